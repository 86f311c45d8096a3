"""The rules of a verdict once more, for many experiments at a time and from their definitions.

Quantiles are `scipy.stats`', sign patterns are multiplied out in full: nothing here is shared with
`bnbench.stats`, so that a simulation with it also says that the package follows the rules.
"""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy import stats as scipy_stats

from bnbench.stats.verdict import Direction
from tests.stats.samples import Array

Mask = npt.NDArray[np.bool_]
ROUNDING = 1e-9


def intervals(differences: Array) -> tuple[Array, Array]:
    """(k,), (k,): Student's 95 % interval of each row of (k, n); of rows with infinite values that
    between order statistics."""
    n = differences.shape[1]
    infinite = np.asarray(np.isinf(differences).any(axis=1))
    finite = np.where(infinite[:, None], 0.0, differences)
    half = scipy_stats.t.ppf(0.975, n - 1) * scipy_stats.sem(finite, axis=1)
    ordered = np.sort(differences, axis=1)
    fitting = [r for r in range(1, n // 2 + 1) if 2 * scipy_stats.binom.cdf(r - 1, n, 0.5) <= 0.05]
    rank = max(fitting)
    low = np.where(infinite, ordered[:, rank - 1], finite.mean(axis=1) - half)
    high = np.where(infinite, ordered[:, n - rank], finite.mean(axis=1) + half)
    return low, high


def p_values(differences: Array, direction: Direction) -> Array:
    """(k,): shares of all sign patterns whose sum favours as much as that of each row (k, n); with
    infinite values, whose sum of signed ranks does."""
    n = differences.shape[1]
    infinite = np.asarray(np.isinf(differences).any(axis=1))
    size = np.where(differences == 0, np.nan, np.abs(differences))
    ranks = np.nan_to_num(scipy_stats.rankdata(size, axis=1, nan_policy="omit"))
    values = np.where(infinite[:, None], np.copysign(ranks, differences), differences)
    patterns = np.array(list(product((1.0, -1.0), repeat=n)))
    with np.errstate(invalid="ignore"):
        observed = values.sum(axis=1, keepdims=True)
        slack = ROUNDING * np.abs(values).sum(axis=1, keepdims=True)
        sums = np.abs(values) @ patterns.T
    if direction == "two-sided":
        observed, sums = np.abs(observed), np.abs(sums)
    return np.asarray((sums >= observed - slack).mean(axis=1))


def adjusted(p: Array) -> Array:
    """(files, claims): Holm's correction of each row."""
    order = p.argsort(axis=1)
    steps = np.arange(p.shape[1], 0, -1)
    ordered = np.maximum.accumulate(np.take_along_axis(p, order, axis=1) * steps, axis=1)
    found = np.empty_like(p)
    np.put_along_axis(found, order, np.minimum(ordered, 1), axis=1)
    return found


def outcomes(
    differences: Array, p: Array, *, smallest: float, direction: Direction
) -> npt.NDArray[np.str_]:
    """(k,): the outcome of each row of (k, n), n ≥ 6, whose corrected p is (k,)."""
    low, high = intervals(differences)

    def clear(upper: Array | float, lower: Array | float) -> Mask:
        return np.greater(upper, lower) & ~np.isclose(upper, lower, rtol=ROUNDING, atol=0)

    above, below = clear(low, smallest), clear(-smallest, high)
    claimed = (above | below) if direction == "two-sided" else above
    refuted = below & (direction != "two-sided")
    negligible = (clear(low, -smallest) & clear(smallest, high)) | ((low == 0) & (high == 0))
    rules = [claimed & (p < 0.05), claimed, refuted, negligible]
    names = ["supported", "inconclusive", "refuted", "negligible"]
    return np.select(rules, names, "inconclusive")


def counted(
    differences: Array, *, smallest: float = 0.0, direction: Direction = "up"
) -> Counter[str]:
    """How often there was which outcome, each row being a claim of its own file."""
    p = p_values(differences, direction)
    found = outcomes(differences, p, smallest=smallest, direction=direction)
    return Counter(found.tolist())
