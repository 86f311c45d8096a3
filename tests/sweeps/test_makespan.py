"""Runs that cost the same, and how long a number of workers takes."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from bnbench.config.identity import cell_key
from bnbench.sweeps.forecast import makespan, shares
from bnbench.sweeps.jobs import Train
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


@given(st.lists(st.floats(0.0, 9.0), min_size=1, max_size=20), st.integers(1, 9))
def test_tasks_have_runs_in_their_order_and_about_the_same_work(
    seconds: list[float], number: int
) -> None:
    trains = [Train(small_config(), each) for each in seconds]
    divided = shares(trains, number)
    assert [train for share in divided for train in share] == trains
    assert len(divided) <= number
    work = [[train.seconds or 1.0 for train in share] for share in divided]
    whole, longest = sum(map(sum, work)), max(map(max, work))
    assert max(map(sum, work)) <= whole / number + longest + 1e-9
