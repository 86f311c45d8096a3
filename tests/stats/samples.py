"""Simulated experiments: seeds of two arms from distributions that are kind and unkind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bnbench.stats.differences import Interval, mean

Array = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]


def gaussian(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return random.normal(0, 1, shape)


def student_2(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Student's t with 2 degrees of freedom: its variance is infinite."""
    return random.standard_t(2, shape)


def contaminated(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal, but one in ten with ten times the deviation (Tukey 1960)."""
    return random.normal(0, 1, shape) * np.where(random.random(shape) < 0.1, 10.0, 1.0)


def skewed(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return random.lognormal(0, 1.5, shape)


def on_a_grid(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Half-decades of learning rate: three values, many ties and differences of 0."""
    return random.choice([0.0, 0.5, 1.0], shape)


def never_arriving(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Examples to a target that three runs in ten never reach."""
    return np.where(random.random(shape) < 0.3, np.inf, random.normal(0, 1, shape))


def bimodal(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Accuracies of runs of which four in ten stay near chance."""
    stuck = random.random(shape) < 0.4
    return np.where(stuck, random.normal(11, 1, shape), random.normal(58, 4, shape))


DRAWS: list[Draw] = [
    gaussian,
    student_2,
    contaminated,
    skewed,
    on_a_grid,
    never_arriving,
    bimodal,
]


def students(values: list[float]) -> Interval:
    """Student's 95 % interval of the mean."""
    interval = mean(values).interval
    assert interval is not None
    return interval


def paired_differences(a: Array, b: Array) -> Array:
    """a − b; NaN where neither arrived."""
    with np.errstate(invalid="ignore"):
        return np.asarray(a - b)


def four_errors(share: float, trials: int) -> float:
    """Four standard errors of a share estimated in so many trials."""
    return float(4 * (share * (1 - share) / trials) ** 0.5)
