"""What the paired differences of one claim amount to: middle, interval, and a test of each outcome.

A difference is one seed's, better − worse, oriented so that + favours the claim. The interval is
Student's 95 % interval of the mean; as soon as a value of either side is infinite, that of the
median between order statistics instead. Where both sides are infinite no difference was seen: such
a seed is a tie, which has the rank of 0, is part of no mean and tosses no sign.

Each outcome has its sign-flip test, of the differences minus the edge that they must be beyond,
with s the smallest effect that matters: supported, Δ − s > 0; refuted, −Δ − s > 0; negligible, both
s − Δ > 0 and s + Δ > 0 (the larger p: Schuirmann 1987, https://doi.org/10.1007/BF01068419). A
two-sided claim is supported by the smaller of the first two, doubled. The test is exact where
differences are symmetric about that edge, as they are between equal arms about 0; beyond that, of a
mean, no test of few seeds is (Bahadur & Savage 1956, https://doi.org/10.1214/aoms/1177728077): an
arm that fails in one seed of ten mostly shows no failure in six.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isinf
from typing import Literal

import numpy as np

from bnbench.stats.crossed import crossed_interval
from bnbench.stats.differences import (
    ROUNDING,
    Floats,
    Interval,
    mean,
    median,
    median_interval,
    sign_flip,
)

Direction = Literal["up", "down", "two-sided"]
Decided = Literal["supported", "refuted", "negligible"]
Method = Literal["paired t", "order statistics"]

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Effect:
    """What the differences of one claim amount to, in the metric's unit.

    `differences` may be ±∞; `infinite` counts these, `ties` the seeds at which both sides were, so
    that n = len(differences) + ties. `mean` is None where there are any of either. `coverage` is
    how often an interval of this `method` covers what it estimates: 0.95, or what n order
    statistics can give. One or two finite differences have the interval −∞ … ∞. `p`: of each
    outcome's test, before Holm's correction. `images`: of a test set, if what each seed did on each
    of them is known, and `over_images` the interval over seeds and images then. `share`: what the
    look may spend, where there are several (`looks`); p and coverage are those after it.
    """

    differences: tuple[float, ...]
    smallest_effect: float
    direction: Direction
    mean: float | None
    median: float
    interval: Interval
    method: Method
    coverage: float
    n: int
    infinite: int
    ties: int
    p: Mapping[Decided, float]
    images: int = 0
    over_images: Interval | None = None
    share: float = 1.0


def effect(
    differences: Sequence[float],
    *,
    smallest_effect: float,
    direction: Direction,
    ties: int = 0,
    most: float = inf,
    table: Floats | None = None,
    share: float = 1.0,
) -> Effect:
    """Interval, tests and what else there is to say of the differences of one claim.

    `ties`: seeds at which both sides are infinite, beside those of `differences`. `most`: no
    difference can be larger, and no interval reaches beyond it: to cut away what is not possible
    leaves its coverage as it is. `table`: (seeds, images), whose means over images are the
    differences. `share`: of the error that this look may spend. Raises ValueError for no seeds,
    for NaN and for a smallest effect that is negative or not finite.
    """
    if not 0 <= smallest_effect < inf:
        raise ValueError(f"the smallest effect {smallest_effect} is not a finite number from 0 up")
    values = tuple(float(value) for value in differences)
    ranked = (*values, *[0.0] * ties)
    middle = median(ranked)
    infinite = sum(map(isinf, values))
    ranks = bool(infinite or ties)
    confidence = 1 - (1 - CONFIDENCE) * share
    coverage, interval, over_images = confidence, Interval(-inf, inf), None
    average = None if ranks else mean(values, confidence=confidence)
    if ranks and values:
        interval, coverage = median_interval(ranked, confidence=confidence)
    elif average is not None and average.interval is not None:
        interval = _possible(average.interval, most)
        if table is not None:
            over_images = _possible(crossed_interval(table, confidence=confidence), most)
    return Effect(
        differences=values,
        smallest_effect=float(smallest_effect),
        direction=direction,
        mean=None if average is None else average.value,
        median=middle,
        interval=interval,
        method="order statistics" if ranks else "paired t",
        coverage=coverage,
        n=len(ranked),
        infinite=infinite,
        ties=ties,
        p={
            outcome: min(1.0, p / share)
            for outcome, p in _tested(values, smallest_effect, direction).items()
        },
        images=0 if over_images is None or table is None else table.shape[1],
        over_images=over_images,
        share=share,
    )


def _possible(interval: Interval, most: float) -> Interval:
    return Interval(max(interval.low, -most), min(interval.high, most))


def _tested(
    values: Sequence[float], smallest: float, direction: Direction
) -> Mapping[Decided, float]:
    """The p-value of each outcome; 1 where there is nothing but ties."""
    differences = np.array(values, dtype=np.float64)

    def beyond(sign: int, edge: float) -> float:
        """How often tossed signs leave sign·Δ as far above the edge."""
        with np.errstate(over="ignore"):
            above = sign * differences - edge
        scale = np.maximum(np.abs(differences), abs(edge))
        finite = np.isfinite(differences)
        above[finite & (np.abs(above) <= ROUNDING * scale)] = 0.0
        return sign_flip(above.tolist()) if len(above) else 1.0

    above, below = beyond(1, smallest), beyond(-1, smallest)
    within = max(beyond(1, -smallest), beyond(-1, -smallest))
    if direction == "two-sided":
        above, below = min(1.0, 2 * min(above, below)), 1.0
    return {"supported": above, "refuted": below, "negligible": within}
