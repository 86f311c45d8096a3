"""When Python looks for garbage: not while it reads, and from `resume` on again."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from bnbench.garbage import resume, uncollected


class Cycle:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def test_from_resume_on_only_later_garbage_is_found() -> None:
    gc.disable()
    earlier = weakref.ref(Cycle())
    resume()
    later = weakref.ref(Cycle())
    assert gc.isenabled()
    gc.collect()
    assert earlier() is not None
    assert later() is None


def test_a_process_that_looks_anyway_is_left_alone() -> None:
    earlier = weakref.ref(Cycle())
    resume()
    gc.collect()
    assert earlier() is None


@pytest.mark.parametrize("enabled", [True, False])
def test_after_reading_it_is_as_before(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled() == enabled
