"""Runs that cost the same, and how long a number of workers takes."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from bnbench.config.identity import cell_key
from bnbench.sweeps.forecast import makespan
from tests.runs import no_norm_config, small_config


def test_seeds_share_a_cell_and_setups_do_not() -> None:
    assert cell_key(small_config(seed=0)) == cell_key(small_config(seed=1))
    assert cell_key(small_config()) != cell_key(no_norm_config())


def test_makespan_by_hand() -> None:
    assert makespan([], 2) == 0.0
    assert makespan([(0, 3.0)], 4) == 3.0
    work = [5.0, 4.0, 3.0, 3.0, 3.0]
    assert makespan([(0, each) for each in work], 2) == 10.0  # {5, 3} and {4, 3, 3}; best is 9
    assert makespan([*((0, each) for each in work[1:]), (1, 5.0)], 2) == 11.0  # {4, 3}, {3, 3, 5}


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 3), st.data())
def test_makespan_is_near_the_best_of_all_orders(
    seconds: list[int], workers: int, data: st.DataObject
) -> None:
    best = min(
        max(
            sum(each for each, at in zip(seconds, places, strict=True) if at == w) for w in range(3)
        )
        for places in itertools.product(range(workers), repeat=len(seconds))
    )
    together = makespan([(7, each) for each in seconds], workers)
    assert best <= together <= best * (4 / 3 - 1 / (3 * workers)) + 1e-9
    turns = [data.draw(st.integers(0, 2)) for _ in seconds]
    assert best <= makespan(zip(turns, seconds, strict=True), workers) <= best * (2 - 1 / workers)
