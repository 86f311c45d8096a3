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
from math import sqrt

import torch
from torch import Tensor

from bnbench.config.feasible import INITIAL
from bnbench.diagnosis.batches import Collected
from bnbench.diagnosis.evidence import InBatches, Measured
from bnbench.diagnosis.foreign import first_tensor
from bnbench.diagnosis.predictions import Predictions
from bnbench.diagnosis.result import LayerReading
from bnbench.diagnosis.task import Task
from bnbench.probes.pooled import PooledStatistics

HARM_LOSS = 0.05
"""Nats; of a regression the share of the labels' variance; of a loss that has a unit of its own, a
tenth of it. Healthy networks trained for the tests: running − population 0.0002 to 0.007; planted
faults from 0.07."""

HARM_ACCURACY = 0.02
"""Two points, for networks whose losses are small."""

STANDARD_ERRORS = 4.0
"""What is chance: 4 standard errors of the paired difference are crossed once in 30,000 tries."""

OFF, OFF_VARIANCE = 0.1, 0.2
"""A layer is off if its running means differ from the population's by 0.1 standard deviations or
more, or its variances by 20 % or more. Healthy layers: 0.01 to 0.06, and 1 to 10 %."""

SLOW = 0.02
"""A momentum that averages over (2 − m)/m = 99 batches or more, in which weights move."""

USUAL = 0.1
"""torch's default momentum, which needs no increase."""

FAST = 0.5
"""A momentum that averages over (2 − m)/m = 3 batches or fewer. TensorFlow's 0.99 is 0.01 here."""

FEWER = 0.5
"""A layer with less than this share of another layer's updates was frozen most of the time."""

SMALL_BATCH = 16
"""At 32 and above BatchNorm's error is flat, below 16 it rises steeply (Wu & He 2018,
https://arxiv.org/abs/1803.08494, table 2: 23.6, 23.7, 24.8, 27.3, 34.7 % at 32, 16, 8, 4, 2)."""

FLIPS = 0.1
"""Share of predictions that change with the other images in the batch. Of 39 networks trained with
batches of 8 and 16: 0.03 to 0.08 where such batches cost up to 0.025 nats, 0.12 to 0.21 where they
cost 0.06 to 0.19 (torch alone, 3,000 other images). Of twelve without running statistics, at 8 to
64: 0.02 to 0.06, which cost at most 0.015."""

FLIPS_OF_ERRORS = 0.5
"""The same relative to the share of wrong predictions: what a network does not know changes anyway.
The same networks: 0.2 to 0.39, and 0.78 to 1.2."""

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

EXPLAINED = 0.02
"""Of the loss that the best constant answer has: a network that saves less knows next to nothing. A
share, as of rare labels little loss is all that there is."""

DEAD = 1e-6
"""Of the layer's upper quartile of variances: a thousandth of the usual standard deviation."""

ROUNDING = 1e-12
"""Of the squared mean: what fp32 makes of a constant is (6e-8)² of it."""

EPS = 1e-5
"""torch's, of layers that do not say their own."""

DEAD_SHARE = 0.1
"""Of a layer's channels that carry nothing."""

EPS_SHARE = 0.25
"""Of a layer's channels that ε shrinks by a factor of √2 or more (σ² ≤ ε)."""

FEWEST_BATCHES = 8
"""Batches from which on they can be said to be of two kinds."""

APART = 5.0
"""Standard deviations within a kind of batches by which two kinds are apart. Normally distributed
ones, cut in the middle: 2.6."""

OUTLIER = 30.0
"""Times the population's variances: no training makes only the first layer's fall so."""

PADDED = 0.05
"""Of the positions of sequences; fewer hardly move a mean."""

TRAILING, FEW = 2.0, 0.25
"""Times what is far, by which no layer is off, and the share that is far off, where running
statistics trail behind weights that move. Trained at a constant rate that did harm: below 1.2, none
or one layer in 18; in eval() for 56 steps, or with buffers of another network: 1.9 to 13, all."""

FITS = 0.5
"""Of the errors: statistics that are off by less than this share fit better."""


def harms(worse: Predictions, better: Predictions, *, loss: float = HARM_LOSS) -> bool:
    """Whether predictions for the same images are worse than others by more than chance."""
    if not worse.finite or not better.finite:
        return better.finite
    enough = loss * (1.0 if better.unit else 2 * abs(better.loss))
    compared = [(worse.losses - better.losses, enough)]
    if worse.right is not None and better.right is not None:
        compared.append((better.right - worse.right, HARM_ACCURACY))
    # Examples that share a loss are one observation.
    shared = max(worse.shared, better.shared)
    for difference, enough in compared:
        error = difference.std(correction=1).item() * sqrt(shared / len(difference))
        if difference.mean().item() > max(enough, STANDARD_ERRORS * error):
            return True
    return False


def helps(after: Predictions, before: Predictions) -> bool:
    """Whether it is better in loss or accuracy, and in neither worse."""
    return harms(before, after) and not harms(after, before)


def undoes_the_gap(measured: Measured) -> bool:
    """Whether population statistics help, and undo half of what running ones cost against the
    batch's, or more."""
    running, after, batch = measured.running, measured.own.population, measured.own.shuffled
    if not helps(after, running):
        return False
    left = after.loss - batch.loss > FITS * (running.loss - batch.loss)
    return not (left and harms(after, batch))


def worse_recalibrated(loaders: Sequence[Measured]) -> list[Measured]:
    """The loaders whose images running statistics suit better than the population's."""
    return [each for each in loaders if harms(each.own.population, each.running)]


def channels(mean: Tensor, variance: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Which channels (C,) are dead, and which of the others ε dominates."""
    # Of inputs in units of their own, what is small beside others may be much beside ε.
    little = (DEAD * variance.quantile(0.75)).clamp(max=max(eps, EPS))
    dead = variance <= little + ROUNDING * mean.square()
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
    return away(layer) >= 1


def away(layer: LayerReading) -> float:
    """How far they are from it, as a multiple of what is far; 0 where that is not known."""
    return max((layer.mean_error or 0.0) / OFF, (layer.variance_error or 0.0) / OFF_VARIANCE)


def rank(layer: LayerReading) -> tuple[float, float]:
    """Sorts layers, the worst last: by what running statistics cost, where that is no trifle, then
    by how far they are off."""
    blame = layer.blame if layer.blame is not None and layer.blame >= HARM_LOSS else 0.0
    return blame, away(layer)


def begun(layer: LayerReading, population: PooledStatistics) -> bool:
    """Whether what is left of the initial statistics is too much: of all values, or, as the initial
    variance is 1, of a variance that is small."""
    left = layer.initial_weight or 0.0
    share = left / (population.variance.median().item() + layer.eps)
    return left >= INITIAL or share >= OFF_VARIANCE


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
        chance = (torch.hypot(own.error, other.error) / width).mean().item()
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


def class_labels(task: Task, images: Collected) -> Tensor | None:
    """The class of each example, (n,), where it has one."""
    if task.kind not in ("classes", "binary") or task.labels is None:
        return None
    found = images.column(task.labels)
    one_each = found is not None and found.numel() == len(images)
    return found.reshape(-1).long() if found is not None and one_each else None


def padding(images: Collected) -> float:
    """The share of positions that are padding in batches of sequences, (N, C, T) or (N, T, C), of
    different lengths: zeros in all channels up to the end of the batch's longest, or, as Keras pads
    them, from where that begins."""
    found = []
    for positions in images.as_they_come():
        x = first_tensor(images.batch(positions))
        if x is None or x.ndim != 3 or not x.is_floating_point():
            return 0.0
        shares = [0.0]
        for along in (1, 2):
            zero = (x == 0).all(along)  # (N, T)
            outer = [each.long().cumprod(1).sum(1) for each in (zero.flip(1), zero)]
            less, more = sorted(outer, key=lambda each: each.sum().item())
            # Pictures, (N, H, W), have a margin at both ends.
            if 4 * less.sum() < more.sum() and more.min() == 0:
                shares.append(more.double().mean().item() / zero.shape[1])
        found.append(max(shares))
    return sum(found) / len(found)


def label_distance(one: Tensor | None, other: Tensor | None) -> float:
    """Total variation distance between the labels' frequencies, 0 to 1; 0 without labels."""
    if one is None or other is None:
        return 0.0
    both = torch.cat([one, other]).unique(return_inverse=True)[1]  # type: ignore[no-untyped-call]
    classes = int(both.max()) + 1
    ours, theirs = (
        torch.bincount(each, minlength=classes).double() / len(each)
        for each in (both[: len(one)], both[len(one) :])
    )
    return ((ours - theirs).abs().sum() / 2).item()


def two_kinds(images: Collected) -> tuple[float, float] | None:
    """Whether the means and deviations of a loader's batches, by channel, are of two kinds, by the
    best cut of them in two, along the line on which they differ most: the share of the smaller one,
    and how far they are apart, in standard deviations within a kind."""
    rows = []
    for positions in images.as_they_come():
        x = first_tensor(images.batch(positions))
        if x is None or x.ndim < 2 or x.is_complex():
            return None
        x = x.detach().to("cpu", torch.float64).transpose(0, 1).flatten(1)
        rows.append(torch.cat([x.mean(1), x.std(1, correction=0)]))
    if len({len(each) for each in rows}) > 1 or len(rows) < FEWEST_BATCHES:
        return None
    features = torch.stack(rows)
    features = (features - features.mean(0)) / features.std(0, correction=0).clamp(min=1e-12)
    along = torch.linalg.svd(features, full_matrices=False).U[:, 0].sort().values
    share = furthest = 0.0
    for k in range(2, len(along) - 1):
        one, other = along[:k], along[k:]
        within = torch.cat([one - one.mean(), other - other.mean()]).square().mean().sqrt().item()
        apart = (other.mean() - one.mean()).item() / max(within, 1e-12)
        if apart > furthest:
            share, furthest = min(k, len(along) - k) / len(along), apart
    return (share, furthest) if furthest >= APART else None
