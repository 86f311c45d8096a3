"""Which learning rates a single step survives, in seconds of compute.

    ratio(η) = L(w − η·g) / L(w),   g = ∇L(w),   on one training batch, for each η of a grid

`largest_stable`: the largest η of the grid with ratio ≤ 1 (up to rounding) there and at all smaller
ones, 0 where the smallest fails. `smallest_exploding`: the smallest η with ratio > 1,000 or not
finite; not finite itself where there is none. Both are medians over fixed batches (the lower one
of two) and limited by the grid.

Source: Bjorck et al. 2018, https://arxiv.org/abs/1806.02375, who draw this ratio over η at the
first minibatches of training: here that is the first reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite
from statistics import median_low

from torch import nn

from bnbench.events import Reading
from bnbench.probes import NETWORK, readings
from bnbench.probes.stand_in import AsInTraining, StandIn, stand_in
from bnbench.probes.statistics import Batch

EXPLODED = 1e3
"""A step that multiplies the loss by this has exploded."""

ROUNDING = 1e-5
"""Relative change of a loss that is no change: a hundred units in the last place of fp32."""


def read(
    model: nn.Module,
    how: AsInTraining,
    batches: Sequence[Batch],
    steps: Sequence[float],
    step: int,
) -> list[Reading]:
    """`largest_stable` and `smallest_exploding` of the network; `steps`: η, in any order."""
    stable, exploding = [], []
    with stand_in(model, how, step) as copied:
        for batch in batches:
            one, other = _limits(copied, batch, sorted(steps))
            stable.append(one)
            exploding.append(other)
    found = {"largest_stable": median_low(stable), "smallest_exploding": median_low(exploding)}
    return readings("step_stability", {NETWORK: found})


def _limits(copied: StandIn, batch: Batch, steps: Sequence[float]) -> tuple[float, float]:
    weights = copied.weights()
    loss, gradient = copied.gradient(*batch)
    stable, exploding, so_far = 0.0, inf, True
    for step in steps:
        copied.place({name: each - step * gradient[name] for name, each in weights.items()})
        there = copied.loss(*batch)
        so_far = so_far and there <= loss * (1 + ROUNDING)
        if so_far:
            stable = step
        if not isfinite(there) or there > EXPLODED * loss:
            exploding = step
            break
    copied.place(weights)
    return stable, exploding
