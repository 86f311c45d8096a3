"""Arrays in, statistics with their uncertainty out; no files, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over n replicates and the half-width of its 95 % t interval (None below n = 2)."""

    value: float
    half_width: float | None
    n: int


def mean(values: Sequence[float], *, confidence: float = 0.95) -> Mean:
    """The mean of finite values, with Student's interval. Raises ValueError where there is none."""
    if not values:
        raise ValueError("the mean of no values")
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError("a value is not finite: count it, do not average it")
    n = len(array)
    if n == 1:
        return Mean(float(array[0]), None, 1)
    quantile = float(stdtrit(n - 1, 0.5 + confidence / 2))
    return Mean(float(array.mean()), quantile * float(array.std(ddof=1)) / n**0.5, n)
