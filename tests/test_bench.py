"""`scripts/bench peers`: its ratios with invented seconds, and that all must do the same work."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module("bench_peers")
    for name in ("bench_peers", "bench_sweep"):
        sys.modules.pop(name, None)


def test_ratios_are_of_the_same_round(peers: Any) -> None:
    run = [(420, 0.8)]
    ours = [peers.Cost(10.0, 8.0, run), peers.Cost(40.0, 8.0, run), peers.Cost(20.0, 10.0, run)]
    theirs = [peers.Cost(20.0, 12.0, run), peers.Cost(40.0, 8.0, run), peers.Cost(60.0, 20.0, run)]
    _, row = peers.rows_of([peers.RUNS[0], peers.RUNS[3]], [ours, theirs])
    assert row[2:] == ["40.0", "2.00", "12.0", "1.50", "80.0"]


def test_no_run_is_taken_for_a_sweep(peers: Any) -> None:
    """Ours is called the same in both tables."""
    assert peers.RUNS[0].name == peers.SWEEPS[0].name
    assert not any(each in peers.SWEEPS for each in peers.RUNS)


@pytest.mark.parametrize("other", [[(421, 0.8)], [], [(420, 0.8)] * 2])
def test_other_work_is_refused(peers: Any, other: list[tuple[int, float]]) -> None:
    ours, theirs = peers.Cost(1.0, 1.0, [(420, 0.8)]), peers.Cost(1.0, 1.0, other)
    with pytest.raises(SystemExit, match=r"Lightning.*: not the steps of ours"):
        peers.rows_of([peers.RUNS[0], peers.RUNS[3]], [[ours], [theirs]])
