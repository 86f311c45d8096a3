"""Means of replicates; what paired differences say, one a seed, some of which may be infinite.

Where a target was never reached a difference is ±∞. Such values are ranked and counted, never
averaged and never dropped: means and t intervals refuse them, order statistics and signs do not.
NaN is refused everywhere: what ∞ − ∞ means is for the caller to say.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import exp, inf, isfinite, isinf, log
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, expit, stdtrit

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]
"""Of fp32, too: exact for whole numbers up to 2²⁴."""

EXACT_UP_TO = 20
"""Differences whose sign patterns are all tried: 2²⁰ sums take 16 MB and some 20 ms."""
DRAWS = 99_999
"""Sign patterns drawn beyond that: at p = 0.05 the standard error is 0.0007."""
PATTERNS_SEED = 0x5169
"""Of the generator that draws them: its own, so that the same differences give the same p."""
ROUNDING = 1e-9
"""Sums this close to 0, relative to the sum of magnitudes, are 0. Accuracies are multiples of
1/images whose differences carry rounding errors; without this they would decide about ties."""
MOST_SEEDS = 10**9


class Range(NamedTuple):
    """Possible values: all, those from `low` up, or those between both, ends included."""

    low: float = -inf
    high: float = inf


ANY = Range()
SEEDS_FOR_AN_INTERVAL = 3
"""Student's t is 12.7 for two values and 4.3 for three: two say more than their interval."""


class Interval(NamedTuple):
    """From low to high, both included."""

    low: float
    high: float


class Mean(NamedTuple):
    """A mean over replicates and its interval: None below three, and where a value is outside of
    what is possible."""

    value: float
    interval: Interval | None


def mean(values: Sequence[float], *, within: Range = ANY, confidence: float = 0.95) -> Mean:
    """The mean of finite values, with an interval that stays within what is possible.

    Without a bound it is Student's: mean ± t·s/√n. With one bound it is taken for the logarithm of
    the mean's distance from it, with two for the mean's logit, and transformed back; the standard
    error is carried over by the derivative there (delta method; for proportions `xlogit` in
    https://search.r-project.org/CRAN/refmans/survey/html/svyciprop.html). It is wider towards the
    side with more room. Values at a bound are taken as they are, and equal values have an interval
    of width 0: at chance, or at 100 %, it says nothing about other seeds.

    How often it covers the true mean of invented accuracies (tests/stats/test_means.py, Student's
    interval in brackets): of 85 ± 5 %, 95 % with three seeds and with eight (95 %); of 95 ± 5 %,
    94 % with three (88 %) and 93 % with eight (89 %). Where one seed in three stays at chance, 67 %
    with three (67 %) and 96 % with eight (94 %): three seeds may not have seen it.

    Raises ValueError where there is no value and where one is not finite.
    """
    array = _checked(values, finite=True)
    n = len(array)
    value, deviation = mean_and_deviation(array)
    if n < SEEDS_FOR_AN_INTERVAL or array.min() < within.low or array.max() > within.high:
        return Mean(value, None)
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * deviation / n**0.5
    return Mean(value, _around(value, half, within))


def _around(value: float, half: float, within: Range) -> Interval:
    """From value − half to value + half, on a scale that has no ends."""
    low, high = within
    if half == 0 or isinf(low):
        return Interval(value - half, value + half)
    if not low < value < high:  # but for rounding, half were 0
        return Interval(value, value)
    if isinf(high):
        factor = exp(half / (value - low))
        return Interval(low + (value - low) / factor, low + (value - low) * factor)
    at, step = log((value - low) / (high - value)), half / (value - low) + half / (high - value)
    ends = low + (high - low) * expit(np.array([at - step, at + step]))
    return Interval(min(value, float(ends[0])), max(value, float(ends[1])))  # of 1e-313, ends are 0


def mean_and_deviation(array: Array) -> tuple[float, float]:
    """Mean and unbiased standard deviation (correction 1) of (n,) finite values.

    Equal values, and a single one, have exactly their value and 0. Sums are taken at a scale of 1,
    so that no square overflows: a power of two changes no other bit.
    """
    if array.min() == array.max():
        return float(array[0]), 0.0
    exponent = np.frexp(np.abs(array).max())[1]
    scaled = np.ldexp(array, -exponent)
    with np.errstate(over="ignore"):  # a deviation beyond the largest number is infinite
        value = np.ldexp(scaled.mean(), exponent)
        deviation = np.ldexp(scaled.std(ddof=1), exponent)
    return float(value), float(deviation)


def median(values: Sequence[float]) -> float:
    """The middle value, or the midpoint of the middle two: 0 where these are −∞ and ∞.

    Raises ValueError for no values and for NaN.
    """
    ordered = np.sort(_checked(values))
    low, high = float(ordered[(len(ordered) - 1) // 2]), float(ordered[len(ordered) // 2])
    if low == -high:
        return 0.0
    return low if low == high else low / 2 + high / 2


def median_interval(values: Sequence[float], *, confidence: float = 0.95) -> tuple[Interval, float]:
    """Between the k-th smallest and the k-th largest of n ≥ 1 values, which may be infinite; and
    its coverage.

    It covers the median of any continuous distribution with probability 1 − 2·P(X < k),
    X ~ Binomial(n, ½), and that of a distribution with ties at least as often (David & Nagaraja,
    Order Statistics, section 7.1). The largest k that reaches the confidence is taken; where none
    does (95 %: below n = 6), k = 1, the smallest to the largest, with the coverage that it has.
    Raises ValueError for no values and for NaN.
    """
    ordered = np.sort(_checked(values))
    n = len(ordered)
    coverages = 1 - 2 * bdtr(np.arange((n + 1) // 2, dtype=np.float64), n, 0.5)  # of k = 1, 2, …
    enough = np.flatnonzero(coverages >= confidence)
    skipped = int(enough[-1]) if len(enough) else 0
    low, high = ordered[skipped], ordered[n - 1 - skipped]
    return Interval(float(low), float(high)), float(coverages[skipped])


def sign_flip(differences: Sequence[float]) -> float:
    """How often differences whose signs are tossed have as large a mean as these: the p-value.

    If both arms were equal, each difference could as well have had the other sign. Tossed are all
    2ⁿ patterns up to 20 differences other than 0, so that p is exact whatever the distribution;
    beyond, 99,999 patterns from a generator of its own, the same every time, with one added to both
    counts (Phipson & Smyth 2010, https://arxiv.org/abs/1603.05766). Compared is the mean; where one
    difference is infinite, Wilcoxon's sum of signed ranks instead: magnitudes are ranked without
    zeros, infinite ones highest, ties share the middle of their ranks. A difference of 0 is 0 under
    either sign; nothing but zeros gives 1. Raises ValueError for no differences and for NaN.
    """
    values = _checked(differences)
    values = values[values != 0]
    if not len(values):
        return 1.0
    if np.isinf(values).any():
        values = np.sign(values) * _ranks(np.abs(values))
    values = values[np.lexsort((values, np.abs(values)))]  # the order of seeds must not matter
    values = values / np.abs(values).max()
    return _share(values) if len(values) <= EXACT_UP_TO else _drawn_share(values)


def _share(values: Array) -> float:
    """The share of the sign patterns whose mean is at least the one observed.

    Flipping the signs of a subset lowers the sum by twice the subset's: the mean is as large as
    observed where the subset sums to 0 or less. So p does not hang on the rounding of large sums.
    """
    sums = magnitudes = np.zeros(1)
    for value in values:
        sums = np.concatenate((sums, sums + value))
        magnitudes = np.concatenate((magnitudes, magnitudes + abs(value)))
    return int(np.count_nonzero(sums <= ROUNDING * magnitudes)) / len(sums)


def _drawn_share(values: Array) -> float:
    """The same of patterns drawn at random, the observed one among them."""
    generator = np.random.default_rng(PATTERNS_SEED)
    rows = max(1, 2**20 // len(values))
    at_least = 1
    for start in range(0, DRAWS, rows):
        size = min(rows, DRAWS - start), len(values)
        flipped = generator.integers(0, 2, size, dtype=np.int8).astype(np.float64)
        sums, magnitudes = flipped @ values, flipped @ np.abs(values)
        at_least += int(np.count_nonzero(sums <= ROUNDING * magnitudes))
    return at_least / (DRAWS + 1)


def _ranks(values: Array) -> Array:
    """From 1, the smallest; equal values share the middle of their ranks."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last: Array = np.cumsum(counts).astype(np.float64)
    middle: Array = (last - (counts - 1) / 2)[group]
    return middle


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value adjusted for the others, in the given order: those below α are significant
    with a chance of at most α that any of them is wrong, however they depend on each other.

    The i-th smallest of m is multiplied by m − i + 1, at least as large as those before it, at
    most 1 (Holm 1979, https://www.jstor.org/stable/4615733). Raises ValueError for what is no
    probability.
    """
    array = np.asarray(p_values, dtype=np.float64)
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError("a p-value is not between 0 and 1")
    order = np.argsort(array, kind="stable")
    multiplied = array[order] * np.arange(len(array), 0, -1)
    adjusted = np.empty_like(array)
    adjusted[order] = np.minimum(np.maximum.accumulate(multiplied), 1)
    return [float(value) for value in adjusted]


def two_groups(values: Sequence[float]) -> tuple[list[float], list[float]] | None:
    """The values below and above their mean, where they fall into two groups and it is in neither.

    Of six values or more, at least two on each side, with a gap in between of more than three times
    what the wider one spans; the mean is more than half of that away from both. Of a normal
    distribution 1.5 % of samples of six look like that, 0.2 % of eight
    (tests/stats/test_means.py). None otherwise, and where a value is not finite.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if len(ordered) < 6 or not np.isfinite(ordered).all():
        return None
    mean = ordered.mean()
    low, high = ordered[ordered < mean], ordered[ordered >= mean]
    if min(len(low), len(high)) < 2:
        return None
    wide, below, above = max(np.ptp(low), np.ptp(high)), mean - low[-1], high[0] - mean
    apart = below + above > 3 * wide and min(below, above) > wide / 2
    return (low.tolist(), high.tolist()) if apart else None


def probability_of_superiority(a: Sequence[float], b: Sequence[float]) -> float:
    """P(A > B) + ½·P(A = B) over all pairs of a value of `a` and one of `b`; ∞ equals ∞.

    Vargha & Delaney 2000, https://doi.org/10.3102/10769986025002101. Raises ValueError for no
    values and for NaN.
    """
    ours, theirs = _checked(a), np.sort(_checked(b))
    below = np.searchsorted(theirs, ours, side="left").sum()
    not_above = np.searchsorted(theirs, ours, side="right").sum()
    return float((below + not_above) / (2 * len(ours) * len(theirs)))


def seeds_needed(
    differences: Sequence[float], effect: float, *, confidence: float = 0.95, power: float = 0.8
) -> int | None:
    """How many seeds tell a mean from another that is `effect` away, at the spread of these.

    The smallest n ≥ ((t₀.₉₇₅ + t₀.₈)·s/effect)², both quantiles with n − 1 degrees of freedom: as
    many give an interval that excludes the other mean with a chance of 80 %. It plans other seeds:
    of these, power at their own mean only says p again (Hoenig & Heisey 2001,
    https://doi.org/10.1198/000313001300339897). None where there is no answer: fewer than two
    differences, one that is not finite, no spread, an effect of 0 or not finite, a billion seeds.
    """
    array = np.asarray(differences, dtype=np.float64)
    if len(array) < 2 or not np.isfinite(array).all() or effect == 0 or not isfinite(effect):
        return None
    deviation = mean_and_deviation(array)[1]
    if deviation == 0:
        return None

    def enough(n: int) -> bool:
        quantiles = float(stdtrit(n - 1, 0.5 + confidence / 2) + stdtrit(n - 1, power))
        errors = quantiles * (deviation / abs(effect))
        return n >= errors * errors

    n = bisect_left(range(MOST_SEEDS), True, lo=2, key=enough)
    return n if n < MOST_SEEDS else None


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the least-squares line through the points, in units of y per unit of x.

    Raises ValueError for fewer than two different x, and for what is not finite.
    """
    across, up = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(across) != len(up):
        raise ValueError(f"{len(across)} values of x for {len(up)} of y")
    if not (np.isfinite(across).all() and np.isfinite(up).all()):
        raise ValueError("a point is not finite: there is no line through it")
    if len(np.unique(across)) < 2:
        raise ValueError("a line needs two different x")
    across = across - across.mean()
    span = float(np.abs(across).max())
    across = across / span
    up = up - up[0]  # any constant will do: with one of y's own, equal y have a slope of exactly 0
    return float(across @ up / (across @ across)) / span


def _checked(values: Sequence[float], *, finite: bool = False) -> Array:
    """(n,), n ≥ 1, numbers; infinite ones only if they need not be `finite`."""
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        raise ValueError("there are no values")
    if finite and not np.isfinite(array).all():
        raise ValueError("a value is not finite: count it, do not average it")
    if np.isnan(array).any():
        raise ValueError("a value is not a number")
    return array
