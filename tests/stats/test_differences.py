"""Holm's correction, superiority, seeds needed and slopes against slower or other definitions."""

from __future__ import annotations

from itertools import combinations
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bnbench.stats.differences import holm, probability_of_superiority, seeds_needed, slope

P_VALUES = st.lists(st.floats(0, 1), max_size=6)


def closed_test(p_values: list[float]) -> list[float]:
    """Holm's adjusted p by the closure principle: a hypothesis falls where every intersection with
    others falls by Bonferroni (Marcus, Peritz & Gabriel 1976). All subsets, no sorting."""
    everyone = range(len(p_values))
    subsets = [set(c) for size in everyone for c in combinations(everyone, size + 1)]
    return [
        max(min(1, len(s) * min(p_values[j] for j in s)) for s in subsets if i in s)
        for i in everyone
    ]


@given(P_VALUES)
def test_holm_is_the_closed_bonferroni_test(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(closed_test(p_values), rel=1e-12)


def test_holm_by_hand() -> None:
    assert holm([]) == []
    assert holm([0.03]) == [0.03]
    # Sorted 0.005·4, 0.01·3, 0.03·2, 0.04·1; the last may not be below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1, 1]


@given(P_VALUES)
def test_holm_is_monotone_and_lowers_nothing(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    by_p = sorted(zip(p_values, adjusted, strict=True))
    assert [a for _, a in by_p] == sorted(adjusted)
    assert holm(p_values[::-1]) == adjusted[::-1]
    assert holm(sorted(p_values)) == sorted(adjusted)


@pytest.mark.parametrize("value", [nan, -0.1, 1.1, inf])
def test_holm_refuses_what_is_no_probability(value: float) -> None:
    with pytest.raises(ValueError, match="not between 0 and 1"):
        holm([0.5, value])


SAMPLES = st.lists(
    st.sampled_from([-inf, inf]) | st.integers(-3, 3).map(float), min_size=1, max_size=12
)


@given(SAMPLES, SAMPLES)
def test_superiority_is_the_share_of_pairs(a: list[float], b: list[float]) -> None:
    pairs = [1.0 if x > y else 0.5 if x == y else 0.0 for x in a for y in b]
    found = probability_of_superiority(a, b)
    assert found == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert probability_of_superiority(b, a) == pytest.approx(1 - found, abs=1e-12)


def test_superiority_is_mann_whitneys_statistic() -> None:
    a, b = np.random.default_rng(0).normal((0.5, 0), 1, (9, 2)).T
    statistic = scipy_stats.mannwhitneyu(a, b[:7]).statistic
    assert probability_of_superiority(a.tolist(), b[:7].tolist()) == pytest.approx(statistic / 63)


def test_superiority_refuses_no_values_and_nan() -> None:
    with pytest.raises(ValueError, match="no values"):
        probability_of_superiority([], [1.0])
    with pytest.raises(ValueError, match="not a number"):
        probability_of_superiority([1.0], [nan])


def with_deviation(deviation: float, n: int = 8) -> list[float]:
    values = np.random.default_rng(n).normal(5, 1, n)
    return list(deviation * (values - values.mean()) / values.std(ddof=1))


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.5, 1.0, 2.0, 5.0, 30.0])
def test_the_seeds_needed_are_where_the_formula_is_stable(ratio: float) -> None:
    """n = ⌈((t₀.₉₇₅ + t₀.₈)·s/δ)²⌉ from its own n − 1, or one less would not do."""
    n = seeds_needed(with_deviation(ratio), 1.0)
    assert n is not None

    def asked(n: int) -> float:
        return float((scipy_stats.t.ppf(0.975, n - 1) + scipy_stats.t.ppf(0.8, n - 1)) * ratio) ** 2

    assert n >= asked(n)
    assert n == 2 or n - 1 < asked(n - 1)


def test_the_seeds_needed_by_hand() -> None:
    """s = δ: from n = 8 on, (2.365 + 0.896)² = 10.6 → 11, (2.228 + 0.879)² = 9.65 → 10,
    (2.262 + 0.883)² = 9.89 → 10."""
    assert seeds_needed(with_deviation(1.0), 1.0) == 10
    assert seeds_needed(with_deviation(3.0), -3.0) == 10
    # Many seeds: the quantiles are the normal's, (1.96 + 0.842)² = 7.849.
    assert seeds_needed(with_deviation(1000.0), 1.0) == pytest.approx(7.849e6, rel=1e-3)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0, 4.0])
def test_so_many_seeds_have_the_power_they_promise(ratio: float) -> None:
    """By the noncentral t distribution, which the formula does not know."""
    n = seeds_needed(with_deviation(ratio), 1.0)
    assert n is not None

    def power(n: int) -> float:
        return float(scipy_stats.nct.sf(scipy_stats.t.ppf(0.975, n - 1), n - 1, n**0.5 / ratio))

    assert 0.79 < power(n) < 0.92  # one seed is many where five will do
    assert power(n // 2) < 0.6  # half of them have not


@pytest.mark.parametrize(
    ("differences", "effect"),
    [
        ([], 1.0),
        ([1.0], 1.0),
        ([1.0, inf, 2.0], 1.0),
        ([1.0, nan], 1.0),
        ([0.1, 0.1, 0.1], 1.0),
        ([1.0, 2.0], 0.0),
        ([1.0, 2.0], inf),
        ([1.0, 2.0], nan),
        ([1.0, 2.0], 1e-9),
        ([-1e308, 1e308], 1e-308),
    ],
)
def test_no_answer_is_none(differences: list[float], effect: float) -> None:
    assert seeds_needed(differences, effect) is None


def test_the_mean_of_the_differences_does_not_matter() -> None:
    values = with_deviation(2.0)
    moved = [value + 40.0 for value in values]
    assert seeds_needed(values, 1.0) == seeds_needed(moved, 1.0)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_the_slope_is_scipys(n: int) -> None:
    x, y = np.random.default_rng(n).normal((7, -300), (1, 20), (n, 2)).T
    expected = scipy_stats.linregress(x, y).slope
    assert slope(x.tolist(), y.tolist()) == pytest.approx(expected, rel=1e-9)


def test_the_slope_by_hand() -> None:
    assert slope([1, 2, 3], [5, 7, 9]) == 2
    assert slope([0, 1, 2, 3], [0, 0, 1, 1]) == pytest.approx(0.4)
    assert slope([1, 1, 2], [0, 2, 4]) == pytest.approx(3)
    assert slope([1, 2, 4], [0.1] * 3) == 0
    assert slope([0, 1e-200], [0, 1e-200]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        ([], [], "two different x"),
        ([1], [1], "two different x"),
        ([2, 2, 2], [1, 2, 3], "two different x"),
        ([1, 2], [1, inf], "not finite"),
        ([1, nan], [1, 2], "not finite"),
        ([1, 2, 3], [1, 2], "3 values of x for 2 of y"),
    ],
)
def test_there_is_not_always_a_slope(x: list[float], y: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        slope(x, y)
