"""Values that are given up in tuning: when, and what that does to choices and verdicts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bnbench.stats.racing import LEVEL, is_worse, rounds
from tests.stats.looks import FAMILY
from tests.stats.racing import DRAWS, PROFILES, as_all_seeds, one_in_ten_fails, wrong
from tests.stats.samples import Draw, four_errors, gaussian

ARMS, FILES = 1000, 200
SCORES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=12)


@settings(max_examples=50)
@given(SCORES, st.booleans())
def test_a_value_is_worse_by_a_paired_t_test(scores: list[tuple[float, float]], up: bool) -> None:
    """SciPy's, of seeds in any order; those that one of both lacks do not count."""
    best, other = ({seed: pair[side] for seed, pair in enumerate(scores)} for side in (0, 1))
    differences = np.subtract(*np.transpose(scores)) * (1 if up else -1)
    if np.ptp(differences) < 1e-9:
        return
    p = scipy_stats.ttest_1samp(differences, 0, alternative="greater").pvalue
    if abs(p - LEVEL) > 1e-6:
        shuffled = dict(reversed(other.items()))
        assert is_worse(shuffled | {99: 0.0}, best | {98: 1.0}, higher=up) == (p < LEVEL)


def test_diverging_twice_more_is_worse_and_once_is_not() -> None:
    best = {seed: 0.5 + seed / 100 for seed in range(6)}
    once, twice = {**best, 0: None}, {**best, 0: None, 1: None}
    assert not is_worse(once, best, higher=True)
    assert is_worse(twice, best, higher=True)
    assert not is_worse(twice, once, higher=True)
    assert not is_worse(dict.fromkeys(best), dict.fromkeys(best), higher=True)


def test_two_seeds_and_equal_scores_show_nothing() -> None:
    assert not is_worse({0: 0.1, 1: 0.1}, {0: 0.9, 1: 0.8}, higher=True)
    assert is_worse({0: 0.1, 1: 0.1, 2: 0.1}, {0: 0.9, 1: 0.8, 2: 0.8}, higher=True)
    assert not is_worse(dict.fromkeys(range(5), 0.1), dict.fromkeys(range(5), 0.1), higher=True)


def test_values_are_compared_before_the_first_look_and_at_each() -> None:
    assert rounds((9, 12, 15)) == (3, 5, 7, 9, 12, 15)
    assert rounds((6, 8)) == (3, 5, 6, 8)
    assert rounds((2,)) == (2,)


@pytest.mark.parametrize("draw", DRAWS)
def test_the_choice_is_within_a_point_of_that_with_all_seeds(draw: Draw) -> None:
    for name, profile in PROFILES.items():
        for n, found in as_all_seeds(draw, profile, ARMS).items():
            print(f"\n{draw.__name__}, {name}, {n} seeds: {found}")
            assert found["within a point"] >= 0.98 - four_errors(0.02, ARMS)


def test_racing_takes_half_of_the_seeds_where_one_value_is_good() -> None:
    """Negative control: where runs fail and values are alike it does not."""
    few = as_all_seeds(gaussian, PROFILES["one good rate"], ARMS)[24]["seeds"]
    more = as_all_seeds(one_in_ten_fails, PROFILES["all alike"], ARMS)[24]["seeds"]
    assert few < 0.5 < more


def test_equal_setups_are_rarely_told_apart_at_what_is_chosen() -> None:
    """Values a point apart: where one setup is left with a worse one, that can be seen."""
    found = wrong(gaussian, PROFILES["a point each"], FILES)
    print(f"\n{FAMILY} claims: wrong {found}")
    for outcome, rate in found.items():
        assert rate <= 0.05 + four_errors(0.05, FILES), outcome


def test_values_that_are_given_up_too_early_make_verdicts_wrong() -> None:
    """Negative control: at a level of a half the choice rests on three seeds."""
    found = wrong(gaussian, PROFILES["a point each"], FILES, level=0.5)
    assert found["supported"] > 0.05 + four_errors(0.05, FILES)
