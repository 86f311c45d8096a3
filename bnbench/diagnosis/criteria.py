"""When a figure says that something is wrong: each threshold with its reason.

A difference counts as harm where it is too large to be chance and large enough to matter, on the
same images (`harms`). Thresholds stand well above what healthy networks show and below what each
planted fault does (tests/diagnosis plants them all); "healthy" and "planted" below are those
networks, of three convolutions, on the bundled images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from bnbench.diagnosis.evidence import Outcome
from bnbench.diagnosis.result import LayerReading

HARM_LOSS = 0.05
"""Nats. Healthy networks trained for the tests: running − population 0.0002 to 0.007; planted
faults from 0.07."""

HARM_ACCURACY = 0.02
"""Two points, for networks whose losses are small."""

STANDARD_ERRORS = 4.0
"""What is chance: 4 standard errors of the paired difference are crossed once in 30,000 tries."""

OFF = 0.1
"""A layer is off where its running means are a tenth of a standard deviation from the population's
or …"""

OFF_VARIANCE = 0.2
"""… its variances a fifth. Healthy layers: 0.01 to 0.06, and 0.01 to 0.10."""

INITIAL = 0.05
"""The share of the initial statistics, (1 − momentum)^updates, that is too much: 28 updates at 0.1
leave it."""

SLOW = 0.02
"""A momentum that averages over (2 − m)/m = 99 batches or more, in which weights move."""

FAST = 0.5
"""A momentum that averages over (2 − m)/m = 3 batches or fewer. TensorFlow's 0.99 is 0.01 here."""

FEWER = 0.5
"""Updates, of those that other layers have: below, a layer was frozen for most of the time."""

SMALL_BATCH = 16
"""At 32 and above BatchNorm's error is flat, below 16 it rises steeply (Wu & He 2018,
https://arxiv.org/abs/1803.08494, table 2: 23.6, 23.7, 24.8, 27.3, 34.7 % at 32, 16, 8, 4, 2)."""

FLIPS = 0.05
"""Predictions that change with the company. Trained with batches of 8 to 64: 2 to 4 % …"""

FLIPS_OF_ERRORS = 0.25
"""… and of the share of wrong ones: what a network does not know changes anyway. Trained with
batches of 2: 0.3; of 8 to 64: 0.13 to 0.24."""

UNLIKE = 6.0
"""Standard deviations of a shuffled loader's homogeneity: never by chance."""

BY_CHANCE = 3.0
"""Times 1/√n, which is how far, in standard deviations, the mean of n images is off at most where
an image is one value: what running statistics over few images explain."""

SHUFFLES = 200
"""Random orders that a loader's own is compared with."""

NON_IID_LOSS = 0.02
"""Nats by which batches as they come are better than random ones."""

SHIFT = 0.1
"""A tenth of a standard deviation between the loaders' means. Fashion-MNIST, training against test
images: 0.02."""

SHIFT_VARIANCE = 0.25
"""A quarter between their variances; there: 0.02."""

DEAD = 1e-6
"""Of the layer's upper quartile of variances: a thousandth of the usual standard deviation."""

ROUNDING = 1e-12
"""Of the squared mean: what fp32 makes of a constant is (6e-8)² of it."""

DEAD_SHARE = 0.1
"""Of a layer's channels that carry nothing."""

EPS_SHARE = 0.25
"""Of a layer's channels that ε shrinks by a factor of √2 or more (σ² ≤ ε)."""


def harms(worse: Outcome, better: Outcome, *, loss: float = HARM_LOSS) -> bool:
    """Whether one outcome of the same images is worse than another by more than chance."""
    if not worse.finite or not better.finite:
        return better.finite
    return _exceeds(worse.losses - better.losses, loss) or _exceeds(
        better.right - worse.right, HARM_ACCURACY
    )


def _exceeds(difference: Tensor, enough: float) -> bool:
    error = difference.std(correction=1).item() / sqrt(len(difference))
    return difference.mean().item() > max(enough, STANDARD_ERRORS * error)


def channels(mean: Tensor, variance: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Which channels (C,) are dead, and which of the others ε dominates."""
    floor = DEAD * variance.quantile(0.75) + ROUNDING * mean.square()
    dead = variance <= floor
    return dead, ~dead & (variance <= eps)


@dataclass(frozen=True, slots=True)
class Homogeneity:
    """The share of pairs in a batch that have the same label, and what shuffling gives."""

    found: float
    expected: float
    deviation: float
    classes: float
    classes_expected: float

    @property
    def sorted(self) -> bool:
        """Whether batches are of fewer classes than chance makes them."""
        return self.found - self.expected > UNLIKE * max(self.deviation, 1e-9)


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
    own = read(torch.arange(len(labels)))
    drawn = torch.tensor(
        [read(torch.randperm(len(labels), generator=random)) for _ in range(SHUFFLES)],
        dtype=torch.float64,
    )
    expected, deviation = drawn.mean(0), drawn.std(0, correction=1)
    return Homogeneity(own[0], expected[0].item(), deviation[0].item(), own[1], expected[1].item())


def off(layer: LayerReading) -> bool:
    """Whether its running statistics are far from the population's."""
    mean, variance = layer.mean_error, layer.variance_error
    return mean is not None and variance is not None and (mean >= OFF or variance >= OFF_VARIANCE)


def label_distance(one: Tensor, other: Tensor) -> float:
    """Total variation distance between the labels' frequencies, 0 to 1."""
    classes = int(max(one.max(), other.max())) + 1
    shares = [torch.bincount(each, minlength=classes).double() / len(each) for each in (one, other)]
    return ((shares[0] - shares[1]).abs().sum() / 2).item()
