"""What is measured of a network: the same images under every kind of statistics."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bnbench.diagnosis.foreign import Collected, Logits
from bnbench.diagnosis.result import percent
from bnbench.errors import UsageError
from bnbench.probes import gap_by_layer
from bnbench.probes.pooled import PooledStatistics
from bnbench.probes.statistics import (
    Autocast,
    Discrepancy,
    Sample,
    batch_norm_layers,
    batch_statistics,
    evaluating,
    given_statistics,
)

WHOLE = sys.maxsize
"""A forward pass is one batch, whatever the first dimension of a layer's input counts: a network
may fold time or crops into it."""

PASS = 64
"""Images in a forward pass, at least, where batches make no difference: passes of 2 would take most
of their time to start."""

REFERENCE = 128
"""A batch size that no longer matters: at 32 and above BatchNorm's error is flat (Wu & He 2018,
https://arxiv.org/abs/1803.08494, table 2)."""

BLAMED = 256
"""Images on which layers are ranked: a pass a layer; 50 layers of 2,048 would take minutes."""

GROUPS = 8
"""Parts of the images whose statistics tell how far statistics of so many images scatter."""

Pools = dict[str, PooledStatistics]


class Predictions(NamedTuple):
    """Of each image, in the loader's order: cross entropy, predicted class, label; (n,)."""

    losses: Tensor
    predicted: Tensor
    labels: Tensor

    @property
    def right(self) -> Tensor:
        """1 where the prediction is right, 0 where not: (n,)."""
        return (self.predicted == self.labels).double()

    @property
    def loss(self) -> float:
        """The mean, in nats."""
        return self.losses.mean().item()

    @property
    def accuracy(self) -> float:
        """The share of right predictions."""
        return self.right.mean().item()

    @property
    def figures(self) -> str:
        """Loss and accuracy: "0.413 and 85.2 %"."""
        return f"{self.loss:.3f} and {percent(self.accuracy)}"

    @property
    def finite(self) -> bool:
        """Whether every loss is a number."""
        return bool(self.losses.isfinite().all())

    def differs(self, other: Predictions) -> float:
        """The share of images whose predicted class is another."""
        return (self.predicted != other.predicted).double().mean().item()


@dataclass(frozen=True, slots=True, eq=False)
class InBatches:
    """One loader's images in random batches of one size.

    `shuffled`: predictions under the statistics of these batches. `pools`: statistics of all of
    them; `groups`: of some each. `population`: predictions under the training images' pools.
    """

    shuffled: Predictions
    population: Predictions
    pools: Pools
    groups: Sequence[Pools]

    def scatter(self, layer: str) -> Tensor:
        """The standard error of the layer's means, (C,), from two groups or more."""
        means = torch.stack([group[layer].mean for group in self.groups])
        return means.std(0, correction=1) / sqrt(len(self.groups))


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """One loader's images; `sizes`: by batch size, the training loader's own first.

    Of a network without running statistics, all kinds are the same.
    """

    images: Collected
    running: Predictions
    sizes: dict[int, InBatches]

    @property
    def own(self) -> InBatches:
        """In random batches of the training loader's size."""
        return next(iter(self.sizes.values()))


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Everything that was measured; `findings` reads it.

    `batch`: under the statistics of the training loader's batches as they come. `again`: in other
    random batches of the same size. `blame`: nats by layer.
    """

    train: Measured
    eval: Measured | None
    batch: Predictions
    again: Predictions
    blame: dict[str, float]


def measure(
    model: Logits,
    train: Collected,
    evaluation: Collected | None,
    batch_sizes: Sequence[int],
    autocast: Autocast,
    seed: int,
) -> Evidence:
    """All of it. `batch_sizes`: the training loader's own first. Raises UsageError."""
    with evaluating(model):
        passes = _Passes(model, autocast, seed, train)
        found = passes.measured(train, batch_sizes)
        other = None
        if evaluation is not None:
            other = passes.measured(evaluation, batch_sizes[:1], found.own.pools)
        batch = passes.as_they_come(train)
        again, *_ = passes.shuffled(train, batch_sizes[0], again=True)
        return Evidence(found, other, batch, again, passes.blame(train))


class _Passes:
    """Passes images through a network under each kind of statistics.

    `chunked`: one pass may hold many batches, each with statistics of its own. Not where a layer
    keeps none, and acts by itself, nor where the network folds time or crops into the first
    dimension: there a pass is one batch.
    """

    def __init__(self, model: Logits, autocast: Autocast, seed: int, images: Collected) -> None:
        self.model, self.autocast, self.seed = model, autocast, seed
        counts: set[int] = set()
        x = images.x[: images.sizes[0]].to(images.device)
        with ExitStack() as hooks:
            for norm in batch_norm_layers(model).values():
                hook = norm.register_forward_pre_hook(lambda _, inputs: counts.add(len(inputs[0])))
                hooks.enter_context(hook)
            model(x)
        self.chunked = model.tracking and counts <= {len(x)}

    def measured(
        self, images: Collected, batch_sizes: Sequence[int], given: Pools | None = None
    ) -> Measured:
        """`given`: the training images' statistics; None: these are the training images."""
        running, found = self._running(images), {}
        for size in batch_sizes:
            shuffled, pools, groups = self.shuffled(images, size)
            with given_statistics(self.model.network, given or pools):
                found[size] = InBatches(shuffled, self._running(images), pools, groups)
        return Measured(images, running, found)

    def _running(self, images: Collected) -> Predictions:
        """Under the network's running statistics, as in eval mode."""
        # Layers without them depend on the batch: take the loader's size.
        size = max(images.batch_size, PASS if self.model.tracking else 0)
        return self._predictions(images, images.sample(), size, size)

    def as_they_come(self, images: Collected) -> Predictions:
        """Under the statistics of the loader's batches."""
        own, sizes = images.batch_size, images.sizes
        even = set(sizes[:-1]) <= {own} and sizes[-1] <= own
        chunked = self.chunked and even
        with batch_statistics(self.model.network, own if chunked else WHOLE):
            sample = images.sample(as_they_come=not even)
            return self._predictions(images, sample, own, PASS if chunked else own)

    def shuffled(
        self, images: Collected, size: int, *, again: bool = False
    ) -> tuple[Predictions, Pools, list[Pools]]:
        """Under batch statistics in random batches of this size: statistics of all, of groups."""
        random = torch.Generator().manual_seed(self.seed + again)
        order = torch.randperm(len(images), generator=random)
        whole = len(images) // size
        cuts = sorted({whole * k // GROUPS * size for k in range(1, GROUPS)} - {0})
        together = {name: PooledStatistics() for name in batch_norm_layers(self.model.network)}
        pass_size, shared = (PASS, size) if self.chunked else (size, WHOLE)
        predictions, groups = [], []
        for part in order.tensor_split(cuts):
            with batch_statistics(self.model.network, shared) as pools:
                sample = images.sample(part)
                predictions.append(self._predictions(images, sample, size, pass_size))
            groups.append(pools)
            for name, pool in pools.items():
                together[name].join(pool)
        back = order.argsort()
        in_order = Predictions(*(torch.cat(each)[back] for each in zip(*predictions, strict=True)))
        return in_order, together, groups

    def blame(self, images: Collected) -> dict[str, float]:
        """Which layer's running statistics cost how much, in nats; see the probe."""
        size = images.batch_size
        count = min(len(images), max(BLAMED // size, 1) * size)
        random = torch.Generator().manual_seed(self.seed)
        some = images.sample(torch.randperm(len(images), generator=random)[:count])
        how = Discrepancy(size, PASS if self.chunked else size, self.autocast)
        return {
            each.layer.removeprefix(Logits.PREFIX): each.value
            for each in gap_by_layer.read(self.model, how, some)
            if each.layer.startswith(Logits.PREFIX)
        }

    def _predictions(
        self, images: Collected, sample: Sample, size: int, pass_size: int
    ) -> Predictions:
        how = Discrepancy(size, pass_size, self.autocast)
        logits, labels = how.forward(self.model, sample, how.chunked_size)
        least, most = int(labels.min()), int(labels.max())
        if not 0 <= least <= most < logits.shape[1]:
            raise UsageError(
                f"the {images.loader} loader's labels run from {least} to {most}, and the model "
                f"has {logits.shape[1]} outputs",
                do=f"expected labels from 0 to {logits.shape[1] - 1}",
            )
        losses = F.cross_entropy(logits, labels, reduction="none")
        return Predictions(losses, logits.argmax(1), labels)
