"""Intervals against SciPy, by hand, and whether they cover as often as they say."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import inf, nan

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bnbench.stats.differences import (
    Interval,
    median,
    median_interval,
)
from tests.stats.samples import four_errors, students

Array = npt.NDArray[np.float64]
FINITE = st.floats(allow_nan=False, allow_infinity=False)
EXTENDED = st.floats(allow_nan=False)


@pytest.mark.parametrize(
    ("values", "middle"),
    [
        ([3.0], 3.0),
        ([1.0, 4.0], 2.5),
        ([5.0, 1.0, 2.0], 2.0),
        ([inf, 1.0, 2.0], 2.0),
        ([inf, 1.0], inf),
        ([-inf, 1.0], -inf),
        ([inf, inf], inf),
        ([-inf, inf], 0.0),
        ([-inf, -inf, 3.0, inf], -inf),
        ([1e308, 1.5e308], 1.25e308),
    ],
)
def test_the_median_by_hand(values: list[float], middle: float) -> None:
    assert median(values) == middle


@given(st.lists(st.floats(-1e100, 1e100), min_size=1))
def test_the_median_is_numpys(values: list[float]) -> None:
    assert median(values) == pytest.approx(float(np.median(values)), rel=1e-12, abs=1e-300)


@given(st.lists(EXTENDED, min_size=1))
def test_the_median_of_the_negated_is_the_negated_median(values: list[float]) -> None:
    assert median([-value for value in values]) == -median(values)


@pytest.mark.parametrize(
    ("n", "rank", "coverage"),
    # Tables of the sign test: 2·P(X < rank), X ~ Binomial(n, ½), is at most 5 %.
    [
        (1, 1, 0.0),
        (2, 1, 1 - 2 / 4),
        (5, 1, 1 - 2 / 32),
        (6, 1, 1 - 2 / 64),
        (8, 1, 1 - 2 / 256),
        (9, 2, 1 - 2 * 10 / 512),
        (12, 3, 1 - 2 * (1 + 12 + 66) / 4096),
        (20, 6, 1 - 2 * 21700 / 2**20),
    ],
)
def test_the_ranks_of_the_medians_interval(n: int, rank: int, coverage: float) -> None:
    values = np.random.default_rng(n).permutation(np.arange(1.0, n + 1))
    found, covered = median_interval(values.tolist())
    assert found == (rank, n + 1 - rank)
    assert covered == pytest.approx(coverage, abs=1e-15)


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("n", range(1, 60))
def test_it_is_the_narrowest_that_covers_enough(n: int, confidence: float) -> None:
    (low, high), coverage = median_interval(list(range(1, n + 1)), confidence=confidence)
    # The median is outside where fewer than `low` values are on one side of it.
    assert high == n + 1 - low
    assert coverage == pytest.approx(1 - 2 * scipy_stats.binom.cdf(low - 1, n, 0.5), abs=1e-12)
    if low > 1:
        assert coverage >= confidence
    if low + 1 <= high - 1:
        assert 1 - 2 * scipy_stats.binom.cdf(low, n, 0.5) < confidence


def test_the_coverage_is_that_of_all_sides_the_values_can_take() -> None:
    """Each of 7 values is above or below the true median: count in how many of 2⁷ ways it fits."""
    for confidence in (0.5, 0.8, 0.95):
        (low, high), coverage = median_interval(list(range(1, 8)), confidence=confidence)
        covered = sum(low <= sum(sides) < high for sides in product((0, 1), repeat=7))
        assert coverage == pytest.approx(covered / 2**7, abs=1e-15)


def test_infinite_values_are_ends_like_others() -> None:
    assert median_interval([inf] * 6) == (Interval(inf, inf), 1 - 2 / 64)
    assert median_interval([1, 2, 3, 4, 5, -inf]) == (Interval(-inf, 5), 1 - 2 / 64)
    nine = [-inf, -inf, 1, 2, 3, 4, 5, 6, inf]
    assert median_interval(nine)[0] == (-inf, 6)


@pytest.mark.parametrize("call", [median, median_interval])
def test_no_values_and_nan_are_refused(call: Callable[[list[float]], object]) -> None:
    with pytest.raises(ValueError, match="no values"):
        call([])
    with pytest.raises(ValueError, match="not a number"):
        call([1.0, nan, inf])


@given(st.lists(EXTENDED, min_size=1))
def test_the_medians_interval_is_of_its_values(values: list[float]) -> None:
    (low, high), _ = median_interval(values)
    assert low in values
    assert high in values
    assert low <= median(values) <= high
    assert median_interval([-value for value in values])[0] == (-high, -low)


@given(st.lists(FINITE, min_size=3, max_size=30))
def test_the_t_interval_never_warns_and_holds_the_mean(values: list[float]) -> None:
    low, high = students(values)
    middle = sum(value / len(values) for value in values)
    slack = 1e-12 * max(map(abs, values)) + 1e-300
    assert low - slack <= middle <= high + slack


@given(
    st.lists(st.integers(-1000, 1000), min_size=3, max_size=12),
    st.integers(-100, 100),
    st.sampled_from([0.25, 2.0, 3.0]),
)
def test_shift_scale_and_swap(values: list[int], shift: int, scale: float) -> None:
    low, high = students([*values])
    moved = students([scale * value + shift for value in values])
    assert moved == pytest.approx((scale * low + shift, scale * high + shift), abs=1e-8)
    assert students([-value for value in values]) == pytest.approx((-high, -low), abs=1e-9)
    assert students(sorted(values)) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize("n", [3, 6, 8, 20])
def test_the_t_interval_covers_as_often_as_it_says(n: int) -> None:
    samples = np.random.default_rng(n).normal(0.7, 2.0, (4000, n))
    hits = sum(low <= 0.7 <= high for low, high in map(students, samples.tolist()))
    assert hits / 4000 == pytest.approx(0.95, abs=four_errors(0.95, 4000))


@pytest.mark.parametrize("n", [3, 6, 8, 9, 20])
@pytest.mark.parametrize("shape", ["cauchy", "expon", "lognorm"])
def test_order_statistics_cover_as_often_as_they_say(n: int, shape: str) -> None:
    """Whatever the distribution; one in eight is replaced by the infinity of its side."""
    distribution = getattr(scipy_stats, shape)(*([1.0] if shape == "lognorm" else []))
    truth = float(distribution.median())
    random = np.random.default_rng(n)
    samples: Array = distribution.rvs((4000, n), random_state=random)
    diverged = random.random(samples.shape) < 0.125
    samples[diverged] = np.where(samples[diverged] > truth, inf, -inf)
    found = [median_interval(sample) for sample in samples.tolist()]
    hits = sum(low <= truth <= high for (low, high), _ in found)
    coverage = found[0][1]
    assert hits / 4000 == pytest.approx(coverage, abs=four_errors(coverage, 4000))
