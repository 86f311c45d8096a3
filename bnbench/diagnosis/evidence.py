"""What is measured of a network: the same images under every kind of statistics."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnbench.diagnosis.foreign import PREFIX, Logits
from bnbench.diagnosis.loader import Collected
from bnbench.errors import UsageError
from bnbench.probes import gap_by_layer
from bnbench.probes.discrepancy import Autocast, Discrepancy, Sample
from bnbench.probes.statistics import (
    PooledStatistics,
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


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
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
    def finite(self) -> bool:
        """Whether every loss is a number."""
        return bool(self.losses.isfinite().all())

    def differs(self, other: Predictions) -> float:
        """The share of images whose predicted class is another."""
        return (self.predicted != other.predicted).double().mean().item()


@dataclass(frozen=True, slots=True, eq=False)
class UnderBatchStatistics:
    """Predictions in random batches of one size, and the statistics of groups of these batches."""

    predictions: Predictions
    groups: tuple[Pools, ...]

    @property
    def pools(self) -> Pools:
        """The statistics of all of them."""
        return {name: _pooled([group[name] for group in self.groups]) for name in self.groups[0]}


@dataclass(slots=True, kw_only=True, eq=False)
class Evidence:
    """Everything that was measured; `findings` reads it.

    `shuffled`, `population`: by batch size, the loader's own first. `again`: the own size in
    other random batches. Of a network without running statistics, all kinds are the same.
    """

    train: Collected
    running: Predictions
    batch: Predictions
    shuffled: dict[int, UnderBatchStatistics]
    again: Predictions
    population: dict[int, Predictions]
    blame: dict[str, float] = field(default_factory=dict)
    eval: Collected | None = None
    eval_running: Predictions | None = None
    eval_shuffled: UnderBatchStatistics | None = None
    eval_population: Predictions | None = None

    @property
    def own(self) -> UnderBatchStatistics:
        """In random batches of the loader's own size."""
        return self.shuffled[self.train.batch_size]

    @property
    def largest(self) -> UnderBatchStatistics:
        """In random batches of the largest size."""
        return self.shuffled[max(self.shuffled)]

    @property
    def recalibrated(self) -> Predictions:
        """Under population statistics, pooled over batches of the loader's own size."""
        return self.population[self.train.batch_size]


def own_name(name: str) -> str:
    """A layer's name in the network itself, without the wrapper."""
    return name.removeprefix(PREFIX) if name.startswith(PREFIX) else ""


def all_batch_norms(network: nn.Module) -> dict[str, _BatchNorm]:
    """BatchNorm layers by name, with running statistics and without."""
    return {
        name: module for name, module in network.named_modules() if isinstance(module, _BatchNorm)
    }


@dataclass(frozen=True, slots=True)
class Measurer:
    """Passes images through a network under each kind of statistics."""

    model: Logits
    autocast: Autocast
    seed: int

    def measure(
        self, train: Collected, evaluation: Collected | None, batch_sizes: Sequence[int]
    ) -> Evidence:
        """All of it. `batch_sizes`: other than the loader's own. Raises UsageError."""
        own = train.batch_size
        with evaluating(self.model):
            running = self.running(train)
            chunked = self._chunked(train)
            shuffled = {
                size: self._shuffled(train, size, chunked)
                for size in dict.fromkeys((own, *batch_sizes))
            }
            again = self._shuffled(train, own, chunked, again=True)
            found = Evidence(
                train=train,
                running=running,
                batch=self._as_they_come(train, chunked),
                shuffled=shuffled,
                again=again.predictions,
                population={
                    size: self.population(train, there.pools) for size, there in shuffled.items()
                },
                blame=self._blame(train, chunked),
            )
            if evaluation is not None:
                found.eval = evaluation
                found.eval_running = self.running(evaluation)
                found.eval_shuffled = self._shuffled(evaluation, own, chunked)
                found.eval_population = self.population(evaluation, found.own.pools)
        return found

    def _chunked(self, images: Collected) -> bool:
        """Whether one pass may hold many batches, each with statistics of its own.

        Not where a layer keeps none, and acts by itself, nor where the network folds time or crops
        into the first dimension: there a pass is one batch.
        """
        counts: list[int] = []
        norms = batch_norm_layers(self.model).values()
        handles = [
            norm.register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[0])))
            for norm in norms
        ]
        try:
            x, _ = next(iter(images.as_they_come().batches(0)))
            self.model(x)
        finally:
            for handle in handles:
                handle.remove()
        return self._tracking and all(count == len(x) for count in counts)

    @property
    def _tracking(self) -> bool:
        """Whether every BatchNorm layer keeps running statistics."""
        return all(each.track_running_stats for each in all_batch_norms(self.model).values())

    def _how(self, size: int, chunked: bool) -> tuple[Discrepancy, int, int]:
        """How to pass batches of this size: images in a pass, and of what shares statistics."""
        how = Discrepancy(norm_batch_size=size, pass_size=PASS, autocast=self.autocast)
        return how, how.chunked_size if chunked else size, size if chunked else WHOLE

    def running(self, images: Collected) -> Predictions:
        """Under the network's own running statistics, as in eval mode."""
        # Layers without them depend on the batch: take the loader's size.
        size = max(images.batch_size, PASS) if self._tracking else images.batch_size
        how = Discrepancy(norm_batch_size=size, pass_size=size, autocast=self.autocast)
        in_order = images.in_order(torch.arange(len(images)))
        return self._predictions(images, in_order, how, size)

    def _as_they_come(self, images: Collected, chunked: bool) -> Predictions:
        """Under the statistics of the loader's batches."""
        own, sizes = images.batch_size, images.sizes
        even = set(sizes[:-1]) <= {own} and sizes[-1] <= own
        how, size, shared = self._how(own, chunked and even)
        sample = images.in_order(torch.arange(len(images))) if even else images.as_they_come()
        with batch_statistics(self.model, shared):
            return self._predictions(images, sample, how, size)

    def population(self, images: Collected, pools: Pools) -> Predictions:
        """Under these statistics for running ones."""
        theirs = {name: pools[own_name(name)] for name in batch_norm_layers(self.model)}
        with given_statistics(self.model, theirs):
            return self.running(images)

    def _shuffled(
        self, images: Collected, batch_size: int, chunked: bool, *, again: bool = False
    ) -> UnderBatchStatistics:
        """Under batch statistics in random batches of this size."""
        how, size, shared = self._how(batch_size, chunked)
        random = torch.Generator().manual_seed(self.seed + again)
        order = torch.randperm(len(images), generator=random)
        whole = len(images) // batch_size
        cuts = sorted({whole * k // GROUPS * batch_size for k in range(1, GROUPS)} - {0})
        predictions, groups = [], []
        for part in order.tensor_split(cuts):
            with batch_statistics(self.model, shared) as pools:
                predictions.append(self._predictions(images, images.in_order(part), how, size))
            groups.append({own_name(name): pool for name, pool in pools.items()})
        back = order.argsort()
        losses, predicted, labels = (
            torch.cat([getattr(each, part) for each in predictions])[back]
            for part in ("losses", "predicted", "labels")
        )
        return UnderBatchStatistics(Predictions(losses, predicted, labels), tuple(groups))

    def _blame(self, images: Collected, chunked: bool) -> dict[str, float]:
        """Which layer's running statistics cost how much, in nats; see the probe."""
        size = images.batch_size
        count = min(len(images), max(BLAMED // size, 1) * size)
        random = torch.Generator().manual_seed(self.seed)
        some = images.in_order(torch.randperm(len(images), generator=random)[:count])
        together = PASS if chunked else size
        how = Discrepancy(norm_batch_size=size, pass_size=together, autocast=self.autocast)
        return {
            own_name(each.layer): each.value
            for each in gap_by_layer.read(self.model, how, some)
            if each.layer.startswith(PREFIX)
        }

    def _predictions(
        self, images: Collected, sample: Sample, how: Discrepancy, size: int
    ) -> Predictions:
        logits, labels = how.forward(self.model, sample, size)
        classes = logits.shape[1]
        if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise UsageError(
                f"the {images.loader} loader's labels run from {int(labels.min())} to "
                f"{int(labels.max())}, and the model has {classes} outputs",
                do=f"expected labels from 0 to {classes - 1}",
            )
        return Predictions(
            F.cross_entropy(logits, labels, reduction="none"), logits.argmax(1), labels
        )


def _pooled(pools: Sequence[PooledStatistics]) -> PooledStatistics:
    """The statistics of all of the images together."""
    together = PooledStatistics()
    for pool in pools:
        if pool.count:
            together.add(pool.mean[None], pool.variance[None], pool.count)
    return together
