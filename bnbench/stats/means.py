"""The mean of replicates, with Student's interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
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
    value, deviation = mean_and_deviation(array)
    quantile = float(stdtrit(n - 1, 0.5 + confidence / 2))
    return Mean(value, quantile * deviation / n**0.5, n)


def mean_and_deviation(array: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Mean and unbiased standard deviation (correction 1) of (n,) finite values, n ≥ 2.

    Equal values have exactly their value and 0. Sums are taken at a scale of 1, so that no square
    overflows: a power of two changes no other bit.
    """
    if array.min() == array.max():
        return float(array[0]), 0.0
    exponent = np.frexp(np.abs(array).max())[1]
    scaled = np.ldexp(array, -exponent)
    with np.errstate(over="ignore"):  # a deviation beyond the largest number is infinite
        value = np.ldexp(scaled.mean(), exponent)
        deviation = np.ldexp(scaled.std(ddof=1), exponent)
    return float(value), float(deviation)
