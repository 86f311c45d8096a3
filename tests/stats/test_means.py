"""Means and intervals against SciPy's distribution and a table of Student's t."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bnbench.stats.differences import Mean, mean


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("n", [2, 3, 8, 50])
def test_the_interval_is_students(n: int, confidence: float) -> None:
    values = np.random.default_rng(n).normal(1000, 3, n)
    found = mean(values.tolist(), confidence=confidence)
    low, high = scipy_stats.t.interval(
        confidence, df=n - 1, loc=values.mean(), scale=scipy_stats.sem(values)
    )
    assert found.half_width is not None
    assert found.value - found.half_width == pytest.approx(low, rel=1e-12)
    assert found.value + found.half_width == pytest.approx(high, rel=1e-12)
    assert found.n == n


def test_by_hand() -> None:
    """1, 2, 3: mean 2, s = 1; t(2; 0.975) = 4.302653 from a table; 4.302653/√3 = 2.484138."""
    found = mean([1, 2, 3])
    assert found.value == 2
    assert found.half_width == pytest.approx(2.484138, rel=1e-6)


def test_the_interval_covers_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for sample in random.normal(5.0, 2.0, (2000, 4)):
        found = mean(sample.tolist())
        assert found.half_width is not None
        hits += abs(found.value - 5.0) <= found.half_width
    # Four standard errors of a share of 0.95 in 2,000 trials.
    assert abs(hits / 2000 - 0.95) < 4 * (0.95 * 0.05 / 2000) ** 0.5


def test_one_value_has_no_interval() -> None:
    assert mean([0.25]) == Mean(0.25, None, 1)


def test_equal_values_have_an_interval_of_width_zero() -> None:
    assert mean([0.5, 0.5, 0.5]) == Mean(0.5, 0.0, 3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not finite: count it, do not average it"):
        mean([0.5, value])
    with pytest.raises(ValueError, match="not finite"):
        mean([value])


def test_no_values_are_refused() -> None:
    with pytest.raises(ValueError, match="the mean of no values"):
        mean([])


def test_a_power_of_two_changes_no_bit_but_the_exponent() -> None:
    """So that sums taken at a scale of 1 are those of the values themselves."""
    values = np.random.default_rng(8).normal(0.83, 0.004, 8).tolist()
    one, scaled = mean(values), mean([value * 2.0**40 for value in values])
    assert one.half_width is not None
    assert scaled == Mean(one.value * 2.0**40, one.half_width * 2.0**40, 8)


def test_large_numbers_do_not_overflow() -> None:
    """At a scale of 10³⁰⁰ squares overflow; the interval is that of the small ones."""
    small, large = mean([1.0, 2.0, 4.0]), mean([1e300, 2e300, 4e300])
    assert small.half_width is not None
    assert large.value == pytest.approx(1e300 * small.value, rel=1e-12)
    assert large.half_width == pytest.approx(1e300 * small.half_width, rel=1e-12)
    assert mean([1e308, -1e308]).half_width == np.inf


# Two-sided 95 % critical values (P = 0.975), NIST/SEMATECH e-Handbook of Statistical Methods,
# section 1.3.6.7.2, https://www.itl.nist.gov/div898/handbook/eda/section3/eda3672.htm
TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 5: 2.571, 7: 2.365, 10: 2.228, 20: 2.086, 30: 2.042}


@pytest.mark.parametrize("freedom", TABLE)
def test_the_half_width_is_that_of_a_published_table(freedom: int) -> None:
    """Of 1, −1 and zeros: their mean is 0, their squares add up to 2."""
    n = freedom + 1
    values = [1.0, -1.0] + [0.0] * (n - 2)
    found = mean(values)
    deviation = (2 / freedom) ** 0.5
    assert found.half_width is not None
    assert found.half_width * n**0.5 / deviation == pytest.approx(TABLE[freedom], abs=6e-4)


def test_importing_it_does_not_pay_for_all_of_scipys_statistics() -> None:
    asked = "import sys, bnbench.stats; sys.exit('scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], timeout=60).returncode == 0
