"""The rules of a verdict once more, for many experiments at a time and from their definitions.

Quantiles are `scipy.stats`', sign patterns are multiplied out in full: nothing here is shared with
`bnbench.stats`, so that a simulation with it also says that the package follows the rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy import stats as scipy_stats

from bnbench.stats.effect import Direction
from tests.stats.samples import Array

Mask = npt.NDArray[np.bool_]
ROUNDING = 1e-9
ALL_UP_TO = 12


def ranked(differences: Array) -> Mask:
    """(k,): rows of (k, n) with infinite values, or with NaN: both sides were."""
    return np.asarray(~np.isfinite(differences).all(axis=1))


def intervals(differences: Array, error: float = 0.05) -> tuple[Array, Array]:
    """(k,), (k,): Student's interval of each row of (k, n), which misses in 5 %; of rows with
    infinite values or ties that between order statistics, a tie at 0."""
    n = differences.shape[1]
    infinite = ranked(differences)
    finite = np.where(infinite[:, None], 0.0, differences)
    half = scipy_stats.t.ppf(1 - error / 2, n - 1) * scipy_stats.sem(finite, axis=1)
    ordered = np.sort(np.where(np.isnan(differences), 0.0, differences), axis=1)
    missed = {r: 2 * scipy_stats.binom.cdf(r - 1, n, 0.5) for r in range(1, n // 2 + 1)}
    rank = max((r for r, rate in missed.items() if rate <= error), default=1)
    low = np.where(infinite, ordered[:, rank - 1], finite.mean(axis=1) - half)
    high = np.where(infinite, ordered[:, n - rank], finite.mean(axis=1) + half)
    return low, high


def flipped(differences: Array) -> Array:
    """(k,): shares of sign patterns with at least the sum of each row (k, n); of rows with infinite
    values, with at least its sum of signed ranks. NaN and 0 have no sign."""
    n = differences.shape[1]
    infinite = np.asarray(np.isinf(differences).any(axis=1))
    known = np.nan_to_num(differences, nan=0.0, posinf=np.inf, neginf=-np.inf)
    size = np.where(known == 0, np.nan, np.abs(known))
    ranks = np.nan_to_num(scipy_stats.rankdata(size, axis=1, nan_policy="omit"))
    values = np.where(infinite[:, None], np.copysign(ranks, known), known)
    patterns = signs(n)
    with np.errstate(invalid="ignore"):
        observed = values.sum(axis=1, keepdims=True)
        slack = ROUNDING * np.abs(values).sum(axis=1, keepdims=True)
        sums = np.abs(values) @ patterns.T
    return np.asarray((sums >= observed - slack).mean(axis=1))


def signs(n: int) -> Array:
    """All patterns; of more than twelve seeds as many that are drawn, and that of the data."""
    if n <= ALL_UP_TO:
        return np.array(list(product((1.0, -1.0), repeat=n)))
    drawn = np.random.default_rng(n).choice([1.0, -1.0], (2**ALL_UP_TO, n))
    drawn[0] = 1.0
    return np.asarray(drawn)


def p_values(differences: Array, smallest: float, direction: Direction) -> dict[str, Array]:
    """Of each outcome, (k,): its sign-flip test of each row of (k, n)."""

    def beyond(sign: int, edge: float) -> Array:
        shifted = sign * differences - edge
        return flipped(np.where(np.isclose(sign * differences, edge, 1e-9, 0), 0.0, shifted))

    above, below = beyond(1, smallest), beyond(-1, smallest)
    within = np.maximum(beyond(1, -smallest), beyond(-1, -smallest))
    if direction == "two-sided":
        above, below = np.minimum(1, 2 * np.minimum(above, below)), np.ones_like(below)
    return {"supported": above, "refuted": below, "negligible": within}


def adjusted(p: Array) -> Array:
    """(files, claims): Holm's correction of each row."""
    order = p.argsort(axis=1)
    steps = np.arange(p.shape[1], 0, -1)
    ordered = np.maximum.accumulate(np.take_along_axis(p, order, axis=1) * steps, axis=1)
    found = np.empty_like(p)
    np.put_along_axis(found, order, np.minimum(ordered, 1), axis=1)
    return found


def outcomes(
    differences: Array, p: Mapping[str, Array], *, smallest: float, direction: Direction
) -> npt.NDArray[np.str_]:
    """(k,): the outcome of each row of (k, n), n ≥ 6, by its interval and corrected p."""
    return decided(intervals(differences), p, smallest=smallest, direction=direction)


def decided(
    interval: tuple[Array, Array],
    p: Mapping[str, Array],
    *,
    smallest: float,
    direction: Direction,
) -> npt.NDArray[np.str_]:
    """(k,): the outcome where both ends of the interval are given."""
    low, high = interval

    def clear(upper: Array | float, lower: Array | float) -> Mask:
        return np.greater(upper, lower) & ~np.isclose(upper, lower, rtol=ROUNDING, atol=0)

    above, below = clear(low, smallest), clear(-smallest, high)
    claimed = (above | below) if direction == "two-sided" else above
    where = {
        "supported": claimed,
        "refuted": below & ~claimed,
        "negligible": clear(low, -smallest) & clear(smallest, high),
    }
    rules = [where[name] & (p[name] < 0.05) for name in where]
    return np.select(rules, list(where), "inconclusive")


def counted(
    differences: Array, *, smallest: float = 0.0, direction: Direction = "up"
) -> Counter[str]:
    """How often there was which outcome, each row being a claim of its own file."""
    p = p_values(differences, smallest, direction)
    found = outcomes(differences, p, smallest=smallest, direction=direction)
    return Counter(found.tolist())
