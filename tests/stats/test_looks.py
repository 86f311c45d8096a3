"""Seeds that are added in looks: what the looks spend, and how often verdicts are wrong."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bnbench.stats.effect import Direction, effect
from bnbench.stats.looks import planned, shares
from bnbench.stats.verdict import judge
from tests.stats.honesty import same_arms
from tests.stats.looks import FAMILY, MOST, any_time, at_once, exact, in_looks, wrong
from tests.stats.samples import DRAWS, Draw, four_errors, gaussian

FILES = 200
DIRECTIONS = st.lists(st.sampled_from(["up", "down", "two-sided"]), min_size=1, max_size=20)


@given(DIRECTIONS, st.integers(12, 200))
def test_looks_rise_to_the_most_and_spend_the_error_once(
    directions: list[Direction], most: int
) -> None:
    numbers = planned(directions, most)
    spent = shares(len(numbers))
    assert numbers[-1] == most
    assert all(before < after for before, after in pairwise(numbers))
    assert sum(spent) == pytest.approx(1)
    assert min(spent) > 0


@given(DIRECTIONS)
def test_the_first_look_decides_all_claims_whose_seeds_agree(directions: list[Direction]) -> None:
    """And costs at most one seed more than a file that is looked at once."""
    n, *_ = planned(directions, 200)
    share, *_ = shares(2)
    agreeing = [
        effect([10 + seed / n for seed in range(n)], smallest_effect=1, direction=each, share=share)
        for each in directions
    ]
    assert {verdict.outcome for verdict in judge([(each, ()) for each in agreeing])} == {
        "supported"
    }
    fewer = [
        effect([10 + seed / n for seed in range(n - 2)], smallest_effect=1, direction=each)
        for each in directions
    ]
    outcomes = {verdict.outcome for verdict in judge([(each, ()) for each in fewer])}
    assert "inconclusive" in outcomes


def test_the_looks_of_a_claim_and_of_eight() -> None:
    assert planned(["up"], 24) == (6, 8, 10, 12, 15, 19, 24)
    assert planned(["up"] * 8, 24) == (9, 12, 15, 19, 24)
    assert planned(["up"] * 8, 9) == (9,)
    assert (shares(1), shares(2), shares(3)) == ((1.0,), (0.5, 0.5), (0.5, 0.25, 0.25))
    with pytest.raises(ValueError, match="7 seeds decide nothing; 8 are needed"):
        planned(["up"] * 8, 7)


def test_a_look_divides_p_and_widens_the_interval() -> None:
    values = [0.4, 1.1, 2.0, 0.9, 1.6, -0.2, 1.3]
    found = effect(values, smallest_effect=0, direction="up", share=0.25)
    p = scipy_stats.permutation_test(
        (values,), np.mean, permutation_type="samples", alternative="greater"
    ).pvalue
    assert found.p["supported"] == pytest.approx(p / 0.25)
    ends = scipy_stats.ttest_1samp(values, 0).confidence_interval(1 - 0.05 * 0.25)
    assert found.interval == pytest.approx(tuple(ends))
    assert found.coverage == 1 - 0.05 * 0.25


@pytest.mark.parametrize("draw", DRAWS)
def test_all_looks_together_are_rarely_wrong(draw: Draw) -> None:
    found = wrong(draw, FAMILY * FILES, claims=FAMILY)
    print(f"\n{draw.__name__}, {FAMILY} claims: wrong {found}")
    for outcome, rate in found.items():
        assert rate <= 0.05 + four_errors(0.05, FILES), outcome


def test_looks_that_each_spend_all_of_the_error_are_wrong_too_often() -> None:
    """Negative control: a fixed-sample verdict that is read again and again."""
    rows = same_arms(gaussian, MOST, 1000)
    numbers = planned(["two-sided"], MOST)
    naive = in_looks(rows, 0.0, "two-sided", numbers=numbers, spent=[1.0] * len(numbers))
    assert (naive.outcome == "supported").mean() > 0.05 + four_errors(0.05, 1000)


def test_large_effects_take_the_first_look_and_the_power_that_is_paid_is_small() -> None:
    """Against all seeds at once; beside designs that were not taken."""
    rows = same_arms(gaussian, MOST, 400 * FAMILY // 2) / 2**0.5
    first = planned(["up"] * FAMILY, MOST)[0]
    large = in_looks(rows + 4, 0.0, claims=FAMILY)
    assert (large.outcome == "supported").all()
    assert large.seeds.mean() < first + 0.1
    looks, once = (
        in_looks(rows + 1, 0.0, claims=FAMILY),
        at_once(rows + 1, 0.0, MOST, claims=FAMILY),
    )
    power = (looks.outcome == "supported").mean()
    assert power > 0.96
    assert (once.outcome == "supported").mean() - power < 0.03
    assert looks.seeds.mean() < 0.75 * MOST
    joint, bets = exact(rows + 1, claims=FAMILY), any_time(rows + 1, claims=FAMILY)
    assert looks.seeds.mean() - joint.seeds.mean() < 2
    assert power > (bets.outcome == "supported").mean()
