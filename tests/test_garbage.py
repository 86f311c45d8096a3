"""When Python looks for garbage: not while it reads, and from `resume` on again."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from bnbench.errors import UsageError
from bnbench.garbage import pause, resume, uncollected
from bnbench.guard import foreign_code


class Cycle:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def test_from_resume_on_only_later_garbage_is_found() -> None:
    pause()
    earlier = weakref.ref(Cycle())
    resume()
    later = weakref.ref(Cycle())
    assert gc.isenabled()
    gc.collect()
    assert earlier() is not None
    assert later() is None


@pytest.mark.parametrize("enabled", [True, False])
def test_a_process_in_which_it_is_not_paused_is_left_alone(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    earlier = weakref.ref(Cycle())
    resume()
    assert gc.isenabled() == enabled
    gc.collect()
    assert earlier() is None


def test_code_of_the_user_s_leaves_none() -> None:
    pause()
    with foreign_code(lambda raised: UsageError(str(raised))):
        theirs = weakref.ref(Cycle())
    gc.collect()
    assert theirs() is None


@pytest.mark.parametrize("enabled", [True, False])
def test_after_reading_it_is_as_before(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled() == enabled
