"""Tuning by racing: what is chosen, and how often verdicts on what is chosen are wrong.

The rule is stated once more, for many arms at a time. Deviations, in points, are those of 20 setups
of the shipped claims at 1,000 validation and 2,000 test images (2026-11-28): of a seed, of a run on
all images, and of what the images of a split add to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats as scipy_stats

from bnbench.stats.racing import DIVERGED, FIRST, LEVEL, rounds
from tests.stats.honesty import LARGE
from tests.stats.looks import FAMILY, MOST, in_looks
from tests.stats.samples import (
    Array,
    Draw,
    contaminated,
    gaussian,
    paired_differences,
    student_2,
)

SEED, RUN, VALIDATION, TEST = 0.75, 1.3, 0.8, 0.6
LOOKS = (9, 12, 15, 19, 24)
POINT = 1.0
PROFILES = {
    "one good rate": (0.0, -3.0, -8.0, -30.0),
    "two alike": (0.0, 0.0, -3.0, -8.0),
    "a point each": (0.0, -1.0, -2.0, -3.0),
    "half a point each": (0.0, -0.5, -1.0, -1.5),
    "all alike": (0.0, 0.0, 0.0, 0.0),
}


def one_in_ten_fails(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Runs that stay at chance, far below."""
    return np.where(random.random(shape) < 0.1, -50.0, random.normal(0, 1, shape))


def one_in_ten_diverges(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.where(random.random(shape) < 0.1, -np.inf, random.normal(0, 1, shape))


DRAWS: list[Draw] = [gaussian, student_2, contaminated, one_in_ten_fails, one_in_ten_diverges]


class Raced(NamedTuple):
    """Of each arm: the place of the value chosen at each number of seeds, and seeds by value."""

    chosen: dict[int, npt.NDArray[np.int64]]
    seeds: npt.NDArray[np.int64]


def arms(draw: Draw, profile: Sequence[float], count: int, seed: int = 0) -> tuple[Array, Array]:
    """Scores on validation and on test, (count, values, MOST); −inf where a run diverged."""
    random = np.random.default_rng([count, len(draw.__name__), int(10 * -sum(profile)), seed])
    shape = (count, len(profile), MOST)
    common = SEED * random.normal(0, 1, (count, 1, MOST))
    own = np.array(profile)[None, :, None] + RUN * draw(random, shape)
    validation = common + own + VALIDATION * random.normal(0, 1, shape)
    return validation, own + TEST * random.normal(0, 1, shape)


def raced(scores: Array, level: float = LEVEL, looks: Sequence[int] = LOOKS) -> Raced:
    """By scores on validation. At level 0 none is given up: every value gets all seeds."""
    every = np.arange(len(scores))
    alive, seeds = np.ones(scores.shape[:2], bool), np.zeros(scores.shape[:2], np.int64)
    chosen = {}
    for n in rounds(looks):
        seeds[alive] = n
        lost = np.isneginf(scores[:, :, :n])
        known = np.where(lost, 0.0, scores[:, :, :n])
        means = known.sum(2) / np.maximum(1, n - lost.sum(2))
        best = np.where(alive, means - 1e6 * lost.sum(2), -np.inf).argmax(1)
        chosen[n] = best
        if level:
            p = _p_values(scores[every, best][:, None, :n], scores[:, :, :n])
            more = lost.sum(2) - lost[every, best].sum(1)[:, None]
            worse = (p < level) | (more >= DIVERGED)
            worse[every, best] = False
            alive &= ~worse
    return Raced(chosen, seeds)


def _p_values(best: Array, others: Array) -> Array:
    """One-sided, of paired t-tests over the seeds in which neither diverged; 1 for too few."""
    with np.errstate(invalid="ignore", divide="ignore"):
        both = np.isfinite(best) & np.isfinite(others)
        n = both.sum(2)
        differences = np.where(both, best - others, 0.0)
        mean = differences.sum(2) / n
        squares = np.where(both, (differences - mean[:, :, None]) ** 2, 0.0).sum(2)
        p = scipy_stats.t.sf(mean / np.sqrt(squares / (n - 1) / n), n - 1)
    return np.asarray(np.where(n < FIRST, 1.0, np.nan_to_num(p, nan=1.0)))


def as_all_seeds(draw: Draw, profile: Sequence[float], count: int) -> dict[int, dict[str, float]]:
    """At the first look and the last: of arms, in how many the choice is within a point of that
    with all seeds of all values, or better; in how many the same; the share of seeds trained."""
    validation, _ = arms(draw, profile, count)
    race, full, truth = raced(validation), raced(validation, 0.0), np.array(profile)
    found = {}
    for n in (LOOKS[0], LOOKS[-1]):
        ours, theirs = race.chosen[n], full.chosen[n]
        found[n] = {
            "within a point": float((truth[ours] >= truth[theirs] - POINT).mean()),
            "the same": float((ours == theirs).mean()),
            "seeds": float(np.minimum(race.seeds, n).mean() / n),
        }
    return found


def wrong(
    draw: Draw, profile: Sequence[float], files: int, level: float = LEVEL
) -> dict[str, float]:
    """Of files of claims about two arms that are the same, each at its chosen value, in how many
    any look says that one is better; and that they are as good where one is better by the smallest
    effect."""
    scores = [arms(draw, profile, FAMILY * files, seed) for seed in (1, 2)]
    found = [(raced(validation, level).chosen, test) for validation, test in scores]
    every = np.arange(FAMILY * files)

    def at(n: int) -> Array:
        ours, theirs = (test[every, chosen[n], :n] for chosen, test in found)
        return paired_differences(ours, theirs)

    def share(outcome: str, edge: float) -> float:
        said = in_looks(lambda n: at(n) + edge, edge, claims=FAMILY, numbers=LOOKS).outcome
        return float((said == outcome).reshape(-1, FAMILY).any(axis=1).mean())

    return {"supported": share("supported", 0.0), "negligible": share("negligible", LARGE)}
