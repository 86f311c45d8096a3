"""Means and intervals against SciPy's distribution and a table of Student's t."""

from __future__ import annotations

import sys
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bnbench.stats.differences import ANY, Interval, Mean, Range, mean, two_groups
from tests.processes import completed
from tests.stats.samples import bimodal, four_errors, students

SHARE = Range(0, 1)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("n", [3, 8, 50])
def test_the_interval_is_students(n: int, confidence: float) -> None:
    values = np.random.default_rng(n).normal(1000, 3, n)
    found = mean(values.tolist(), confidence=confidence)
    expected = scipy_stats.t.interval(
        confidence, df=n - 1, loc=values.mean(), scale=scipy_stats.sem(values)
    )
    assert found.interval == pytest.approx(expected, rel=1e-12)


def test_by_hand() -> None:
    """1, 2, 3: mean 2, s = 1; t(2; 0.975) = 4.302653 from a table; 4.302653/√3 = 2.484138."""
    found = mean([1, 2, 3])
    assert found.value == 2
    assert found.interval == pytest.approx((2 - 2.484138, 2 + 2.484138), rel=1e-6)


def test_a_share_has_a_t_interval_on_the_logit_scale() -> None:
    """0.7, 0.8, 0.9: mean 0.8, s = 0.1, half-width 0.2484138 as above. Logit 1.386294, its
    derivative 1/(0.8·0.2) = 6.25: 1.386294 ± 1.552586, which are 0.458523 and 0.949735."""
    found = mean([0.7, 0.8, 0.9], within=SHARE)
    assert found.value == pytest.approx(0.8)
    assert found.interval == pytest.approx((0.458523, 0.949735), abs=1e-6)
    percents = mean([70, 80, 90], within=Range(0, 100))
    assert percents.interval == pytest.approx((45.8523, 94.9735), abs=1e-4)


def test_a_positive_value_has_a_t_interval_on_the_log_scale() -> None:
    """1, 2, 3: 2 times or by e^(2.484138/2) = 3.462771."""
    found = mean([1, 2, 3], within=Range(0))
    assert found.interval == pytest.approx((2 / 3.462771, 2 * 3.462771), rel=1e-6)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=12))
def test_the_interval_of_shares_is_around_their_mean_and_possible(values: list[float]) -> None:
    found, mirrored = mean(values, within=SHARE), mean([1 - x for x in values], within=SHARE)
    assert found.interval is not None
    assert mirrored.interval is not None
    low, high = found.interval
    assert 0 <= low <= found.value <= high <= 1
    assert (1 - high, 1 - low) == pytest.approx(mirrored.interval, abs=1e-6)


def test_a_small_spread_in_the_middle_has_students_interval() -> None:
    values = [0.500, 0.501, 0.503]
    assert mean(values, within=SHARE).interval == pytest.approx(mean(values).interval, abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_equal_shares_have_an_interval_of_width_zero(value: float) -> None:
    assert mean([value] * 3, within=SHARE).interval == Interval(value, value)


def test_what_is_not_possible_has_no_interval() -> None:
    assert mean([0.5, 0.6, 1.7], within=SHARE).interval is None


def test_less_than_three_values_have_no_interval() -> None:
    assert mean([0.25]) == Mean(0.25, None)
    assert mean([0.25, 0.75]) == Mean(0.5, None)


# How often the interval covers the true mean of invented accuracies; Student's, cut to 0 … 1,
# next to it: the figures in the docstring of `mean`, there of 20,000 samples.
SHAPES = {
    "85 ± 5 %": (0.85, 0.05, 0.0),
    "95 ± 5 %": (0.95, 0.05, 0.0),
    "one in three at chance": (0.70, 0.03, 1 / 3),
}
COVERAGE = {
    ("85 ± 5 %", 3): (0.95, 0.95),
    ("85 ± 5 %", 8): (0.95, 0.95),
    ("95 ± 5 %", 3): (0.94, 0.88),
    ("95 ± 5 %", 8): (0.93, 0.89),
    ("one in three at chance", 3): (0.67, 0.67),
    ("one in three at chance", 8): (0.96, 0.94),
}


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "n"), COVERAGE)
def test_how_often_intervals_of_shares_cover(shape: str, n: int) -> None:
    middle, deviation, at_chance = SHAPES[shape]
    random, trials = np.random.default_rng(n), 3000
    size = middle * (1 - middle) / deviation**2 - 1
    samples = random.beta(middle * size, (1 - middle) * size, (trials, n))
    samples[random.random(samples.shape) < at_chance] = 0.1
    truth = at_chance * 0.1 + (1 - at_chance) * middle
    ours = students = 0
    for sample in samples.tolist():
        for within in (SHARE, ANY):
            interval = mean(sample, within=within).interval
            assert interval is not None
            hit = interval.low <= truth <= interval.high
            ours, students = ours + hit * (within == SHARE), students + hit * (within == ANY)
    print(f"\n{shape}, n = {n}: {ours / trials:.1%}, Student {students / trials:.1%}")
    expected = COVERAGE[shape, n]
    for found, said in zip((ours, students), expected, strict=True):
        assert found / trials == pytest.approx(said, abs=four_errors(said, trials) + 0.005)
    assert ours >= students


@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 1e300])
@pytest.mark.parametrize("n", [3, 6, 7])
def test_equal_values_have_an_interval_of_width_zero(value: float, n: int) -> None:
    assert mean([value] * n) == Mean(value, Interval(value, value))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not finite: count it, do not average it"):
        mean([0.5, value])
    with pytest.raises(ValueError, match="not finite"):
        mean([value])


def test_no_values_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        mean([])


def test_a_power_of_two_changes_no_bit_but_the_exponent() -> None:
    """So that sums taken at a scale of 1 are those of the values themselves."""
    values = np.random.default_rng(8).normal(0.83, 0.004, 8).tolist()
    one, scaled = mean(values), mean([value * 2.0**40 for value in values])
    assert one.interval is not None
    ends = [end * 2.0**40 for end in one.interval]
    assert scaled == Mean(one.value * 2.0**40, Interval(*ends))


def test_large_numbers_do_not_overflow() -> None:
    """At a scale of 10³⁰⁰ squares overflow; the interval is that of the small ones."""
    small, large = mean([1.0, 2.0, 4.0]), mean([1e300, 2e300, 4e300])
    assert small.interval is not None
    assert large.value == pytest.approx(1e300 * small.value, rel=1e-12)
    assert large.interval == pytest.approx([1e300 * end for end in small.interval], rel=1e-12)
    assert mean([1e308, 1e308, -1e308]).interval == (-np.inf, np.inf)


# Two-sided 95 % critical values (P = 0.975), NIST/SEMATECH e-Handbook of Statistical Methods,
# section 1.3.6.7.2, https://www.itl.nist.gov/div898/handbook/eda/section3/eda3672.htm
TABLE = {2: 4.303, 3: 3.182, 5: 2.571, 7: 2.365, 10: 2.228, 20: 2.086, 30: 2.042}


@pytest.mark.parametrize("freedom", TABLE)
def test_the_half_width_is_that_of_a_published_table(freedom: int) -> None:
    """Of 1, −1 and zeros: their mean is 0, their squares add up to 2."""
    n = freedom + 1
    values = [1.0, -1.0] + [0.0] * (n - 2)
    low, high = students(values)
    deviation = (2 / freedom) ** 0.5
    assert low == -high
    assert high * n**0.5 / deviation == pytest.approx(TABLE[freedom], abs=6e-4)


def test_importing_it_does_not_pay_for_all_of_scipys_statistics() -> None:
    asked = "import sys, bnbench.stats; sys.exit('scipy.stats' in sys.modules)"
    completed(sys.executable, "-c", asked)


def test_two_groups_with_a_gap_between_them() -> None:
    found = two_groups([58.0, 11.0, 55.0, 12.0, 57.0, 10.5])
    assert found == ([10.5, 11, 12], [55, 57, 58])
    assert two_groups([11.0, 55, 56, 57, 58, 59]) is None  # one alone is an outlier
    assert two_groups([1.0, 2, 3, 4, 5, 6]) is None
    assert two_groups([1.0, 2, 3, 9.1, 10, 11]) is not None  # a gap of 6.1, 2 wide
    assert two_groups([1.0, 2, 3, 8.9, 10, 11]) is None
    assert two_groups([66.2, 67.3, 69.9, 70.2, 70.6, 71]) is None  # a gap of 2.6, 1.1 wide
    assert two_groups([0.0, 2, *[10] * 22]) is None  # the mean, 9.25, is near the upper one
    assert two_groups([11.0, 12, 57, 58]) is None  # of few values often chance
    assert two_groups([3.0] * 6) is None
    assert two_groups([1.0, 1, inf, inf]) is None


@pytest.mark.parametrize(("n", "of_normal"), [(6, 0.015), (8, 0.002), (10, 0.0005)])
def test_how_often_two_groups_are_seen(n: int, of_normal: float) -> None:
    """Seldom in normal values; in most samples of runs of which four in ten fail."""
    random = np.random.default_rng(n)
    normal = sum(two_groups(row) is not None for row in random.normal(0, 1, (2000, n)).tolist())
    assert normal / 2000 == pytest.approx(of_normal, abs=0.008)
    two = sum(two_groups(row) is not None for row in bimodal(random, (500, n)).tolist())
    assert two > 0.65 * 500
