"""When a figure says that something is wrong: each threshold with its reason.

A difference counts as harm where it is too large to be chance and large enough to matter, on the
same images (`harms`). Thresholds are well above what healthy networks show and below what each
planted fault does (tests/diagnosis plants them all); "healthy" and "planted" below are those
networks, of three convolutions, on the bundled images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf, sqrt

import torch
from torch import Tensor

from bnbench.diagnosis.evidence import InBatches, Measured, Predictions
from bnbench.diagnosis.result import LayerReading
from bnbench.probes.pooled import PooledStatistics

HARM_LOSS = 0.05
"""Nats. Healthy networks trained for the tests: running − population 0.0002 to 0.007; planted
faults from 0.07."""

HARM_ACCURACY = 0.02
"""Two points, for networks whose losses are small."""

STANDARD_ERRORS = 4.0
"""What is chance: 4 standard errors of the paired difference are crossed once in 30,000 tries."""

OFF, OFF_VARIANCE = 0.1, 0.2
"""A layer is off if its running means differ from the population's by 0.1 standard deviations or
more, or its variances by 20 % or more. Healthy layers: 0.01 to 0.06, and 1 to 10 %."""

INITIAL = 0.05
"""The share of the initial statistics, (1 − momentum)^updates, that is too much: 28 updates at 0.1
leave it."""

SLOW = 0.02
"""A momentum that averages over (2 − m)/m = 99 batches or more, in which weights move."""

FAST = 0.5
"""A momentum that averages over (2 − m)/m = 3 batches or fewer. TensorFlow's 0.99 is 0.01 here."""

FEWER = 0.5
"""A layer with less than this share of another layer's updates was frozen most of the time."""

SMALL_BATCH = 16
"""At 32 and above BatchNorm's error is flat, below 16 it rises steeply (Wu & He 2018,
https://arxiv.org/abs/1803.08494, table 2: 23.6, 23.7, 24.8, 27.3, 34.7 % at 32, 16, 8, 4, 2)."""

FLIPS = 0.05
"""Share of predictions that change with the other images in the batch. Trained with batches of 8 to
64: 0.02 to 0.04."""

FLIPS_OF_ERRORS = 0.25
"""The same relative to the share of wrong predictions: what a network does not know changes anyway.
Trained with batches of 2: 0.3; of 8 to 64: 0.13 to 0.24."""

UNLIKE = 6.0
"""Standard deviations of a shuffled loader's homogeneity: never by chance."""

BY_CHANCE = 3.0
"""Times 1/√n, which is how far, in standard deviations, the mean of n images is off at most where
an image is one value: what running statistics over few images explain."""

SHUFFLES = 200
"""Random orders that a loader's own is compared with."""

NON_IID_LOSS = 0.02
"""Nats by which batches as they come are better than random ones."""

SHIFT, SHIFT_VARIANCE = 0.1, 0.25
"""Differences between the loaders that count: 0.1 standard deviations between means, 25 % between
variances. Fashion-MNIST, training against test images: 0.02, and 2 %."""

DEAD = 1e-6
"""Of the layer's upper quartile of variances: a thousandth of the usual standard deviation."""

ROUNDING = 1e-12
"""Of the squared mean: what fp32 makes of a constant is (6e-8)² of it."""

DEAD_SHARE = 0.1
"""Of a layer's channels that carry nothing."""

EPS_SHARE = 0.25
"""Of a layer's channels that ε shrinks by a factor of √2 or more (σ² ≤ ε)."""


def harms(worse: Predictions, better: Predictions, *, loss: float = HARM_LOSS) -> bool:
    """Whether predictions for the same images are worse than others by more than chance."""
    if not worse.finite or not better.finite:
        return better.finite
    for difference, enough in (
        (worse.losses - better.losses, loss),
        (better.right - worse.right, HARM_ACCURACY),
    ):
        error = difference.std(correction=1).item() / sqrt(len(difference))
        if difference.mean().item() > max(enough, STANDARD_ERRORS * error):
            return True
    return False


def worse_recalibrated(loaders: Sequence[Measured]) -> list[Measured]:
    """The loaders whose images running statistics suit better than the population's."""
    return [each for each in loaders if harms(each.own.population, each.running)]


def channels(mean: Tensor, variance: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Which channels (C,) are dead, and which of the others ε dominates."""
    floor = DEAD * variance.quantile(0.75) + ROUNDING * mean.square()
    dead = variance <= floor
    return dead, ~dead & (variance <= eps)


@dataclass(frozen=True, slots=True)
class Homogeneity:
    """Pairs in a batch that have the same label, as a share, and classes in a batch.

    `expected`: in shuffled batches. `sorted`: whether the batches are of fewer classes than chance
    makes them.
    """

    found: float
    expected: float
    classes: float
    classes_expected: float
    sorted: bool


def homogeneity(labels: Tensor, sizes: Sequence[int], seed: int) -> Homogeneity:
    """Of a loader's batches, as they come, and of `SHUFFLES` random orders of their images."""
    values, coded = torch.unique(labels, return_inverse=True)
    numbers = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    of = torch.tensor(sizes, dtype=torch.float64)
    pairs = (of * (of - 1)).sum().clamp(min=1)

    def read(order: Tensor) -> tuple[float, float]:
        cells = numbers * len(values) + coded[order]
        counts = torch.bincount(cells, minlength=len(sizes) * len(values)).double()
        classes = (counts.view(len(sizes), -1) > 0).sum(1).double().mean().item()
        return ((counts * (counts - 1)).sum() / pairs).item(), classes

    random = torch.Generator().manual_seed(seed)
    found, classes = read(torch.arange(len(labels)))
    drawn = torch.tensor(
        [read(torch.randperm(len(labels), generator=random)) for _ in range(SHUFFLES)],
        dtype=torch.float64,
    )
    expected, classes_expected = drawn.mean(0).tolist()
    deviation = max(drawn[:, 0].std(correction=1).item(), 1e-9)
    beyond_chance = found - expected > UNLIKE * deviation
    return Homogeneity(found, expected, classes, classes_expected, beyond_chance)


def off(layer: LayerReading) -> bool:
    """Whether its running statistics are far from the population's."""
    mean, variance = layer.mean_error, layer.variance_error
    return mean is not None and variance is not None and (mean >= OFF or variance >= OFF_VARIANCE)


def shifts(
    layers: Sequence[LayerReading], ours: InBatches, theirs: InBatches
) -> list[tuple[LayerReading, float, float]]:
    """Layers whose statistics differ between two loaders, by |Δμ|/σ and |ln σ²|, worst first.

    Only where they differ by more than chance and enough to matter.
    """
    found = []
    for layer in layers:
        own, other = ours.pools[layer.name], theirs.pools[layer.name]
        width = (own.variance + layer.eps).sqrt()
        mean = ((other.mean - own.mean).abs() / width).mean().item()
        variance = ((other.variance + layer.eps) / width.square()).log().abs().mean().item()
        # The standard error of the difference between the means, in standard deviations.
        chance = inf
        if min(len(ours.groups), len(theirs.groups)) > 1:
            errors = (loader.scatter(layer.name) for loader in (ours, theirs))
            chance = (torch.hypot(*errors) / width).mean().item()
        if mean > max(SHIFT, STANDARD_ERRORS * chance) or (
            variance > SHIFT_VARIANCE and chance < SHIFT
        ):
            found.append((layer, mean, variance))
    return sorted(found, key=lambda each: -(each[1] / SHIFT + each[2] / SHIFT_VARIANCE))


def calls_apart(pool: PooledStatistics, eps: float) -> tuple[float, float]:
    """How far apart a layer's calls in a forward pass are, the two that differ most: |Δμ|/σ, with
    the variance of all calls together, and |ln σ²|, each a mean over the channels."""
    width = (pool.variance + eps).sqrt()
    means, variances = [0.0], [0.0]
    for one, other in combinations(pool.calls, 2):
        means.append(((one.mean - other.mean).abs() / width).mean().item())
        ratio = (one.variance + eps) / (other.variance + eps)
        variances.append(ratio.log().abs().mean().item())
    return max(means), max(variances)


def label_distance(one: Tensor, other: Tensor) -> float:
    """Total variation distance between the labels' frequencies, 0 to 1."""
    classes = int(max(one.max(), other.max())) + 1
    ours, theirs = (
        torch.bincount(each, minlength=classes).double() / len(each) for each in (one, other)
    )
    return ((ours - theirs).abs().sum() / 2).item()
