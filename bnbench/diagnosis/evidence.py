"""What is measured of a network: the same images under every kind of statistics."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bnbench.diagnosis.foreign import Collected, Logits
from bnbench.diagnosis.result import percent
from bnbench.diagnosis.survey import Pools, Survey, survey
from bnbench.errors import UsageError
from bnbench.probes.pooled import PooledStatistics
from bnbench.probes.statistics import (
    Autocast,
    Batch,
    Discrepancy,
    Sample,
    evaluating,
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
"""Images on which layers are ranked, at most."""

RANKED = 12
"""Layers that are ranked one by one; of more, the worst quarter is looked for first."""

RANKING = 4
"""Passes over all images whose time ranking may take, about."""

GROUPS = 8
"""Parts of the images whose statistics tell how far statistics of so many images scatter."""

Tell = Callable[[float], object]
"""Is told how far it is, from 0 to 1."""


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
    them; `groups`: of some each. `population`: predictions under the training images' pools;
    `by_call`: under those of each call, where a layer is called several times in a forward pass.
    """

    shuffled: Predictions
    population: Predictions
    by_call: Predictions | None
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
    random batches of the same size, where that was asked for. `blame`: nats by layer. `running`:
    what takes images under the network's running statistics as they are then.
    """

    train: Measured
    eval: Measured | None
    batch: Predictions
    again: Predictions | None
    blame: dict[str, float]
    survey: Survey
    running: Callable[[Collected], Predictions]

    @property
    def measured(self) -> list[Measured]:
        """Of each loader."""
        return [self.train] if self.eval is None else [self.train, self.eval]


def measure(
    model: Logits,
    train: Collected,
    evaluation: Collected | None,
    batch_sizes: Sequence[int],
    autocast: Autocast,
    seed: int,
    *,
    again: bool,
    tell: Tell,
) -> Evidence:
    """All of it. `batch_sizes`: the training loader's own first. Raises UsageError."""
    with evaluating(model):
        passes = _Passes(model, autocast, seed, train)
        over_train = 2 + 2 * len(batch_sizes) + again + passes.by_call + RANKING
        over_eval = (3 + passes.by_call) * len(evaluation) if evaluation else 0
        passes.tells(tell, over_train * len(train) + over_eval)
        found = passes.measured(train, batch_sizes)
        other = None
        if evaluation is not None:
            other = passes.measured(evaluation, batch_sizes[:1], found.own.pools)
        batch = passes.as_they_come(train)
        flipped = passes.shuffled(train, batch_sizes[0], again=True)[0] if again else None
        blame = passes.blame(train)
        return Evidence(found, other, batch, flipped, blame, passes.survey, passes.running)


class _Passes:
    """Passes images through a network under each kind of statistics.

    `chunked`: one pass may hold many batches, each with statistics of its own. Not where a layer
    keeps none, and acts by itself, nor where the network folds time or crops into the first
    dimension: there a pass is one batch.
    """

    def __init__(self, model: Logits, autocast: Autocast, seed: int, images: Collected) -> None:
        self.model, self.autocast, self.seed = model, autocast, seed
        x = images.x[: images.sizes[0]].to(images.device)

        def run() -> None:
            with autocast():
                model(x)

        self.survey = survey(model, model.network, len(x), run)
        self.chunked = model.tracking and self.survey.chunked
        self.by_call = any(number > 1 for number in self.survey.calls.values())
        self.done = 0

    def tells(self, tell: Tell, images: int) -> None:
        """How far it is, of so many images to be passed in all."""
        self.tell, self.whole = tell, images

    def measured(
        self, images: Collected, batch_sizes: Sequence[int], given: Pools | None = None
    ) -> Measured:
        """`given`: the training images' statistics; None: these are the training images."""
        running, found = self.running(images), {}
        for size in batch_sizes:
            shuffled, pools, groups = self.shuffled(images, size)
            by_call = None
            with self.survey.given(given or pools):
                population = self.running(images)
            if self.by_call and size == batch_sizes[0]:
                with self.survey.given(given or pools, by_call=True):
                    by_call = self.running(images)
            found[size] = InBatches(shuffled, population, by_call, pools, groups)
        return Measured(images, running, found)

    def running(self, images: Collected) -> Predictions:
        """Under the network's running statistics, as in eval mode."""
        # Layers without them depend on the batch: take the loader's size.
        size = max(images.batch_size, PASS if self.model.tracking else 0)
        return self._predictions(images, images.sample(), size, size)

    def as_they_come(self, images: Collected) -> Predictions:
        """Under the statistics of the loader's batches."""
        own, sizes = images.batch_size, images.sizes
        even = set(sizes[:-1]) <= {own} and sizes[-1] <= own
        chunked = self.chunked and even
        with self.survey.batch(own if chunked else WHOLE):
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
        together = {name: PooledStatistics() for name in self.survey.known}
        pass_size, shared = (PASS, size) if self.chunked else (size, WHOLE)
        predictions, groups = [], []
        for part in order.tensor_split(cuts):
            with self.survey.batch(shared) as pools:
                sample = images.sample(part)
                predictions.append(self._predictions(images, sample, size, pass_size))
            groups.append(pools)
            for name, pool in pools.items():
                together[name].join(pool)
        back = order.argsort()
        in_order = Predictions(*(torch.cat(each)[back] for each in zip(*predictions, strict=True)))
        return in_order, {name: pool.of_calls() for name, pool in together.items()}, groups

    def blame(self, images: Collected) -> dict[str, float]:
        """Which layer's running statistics cost how much, in nats, as the probe `gap_by_layer`.

        Of many layers the worst quarter, in the order of the pass, is halved further.
        """
        layers = [name for name in self.survey.calls if name in self.survey.of("exchanged")]
        if not layers:
            return {}
        size, number = images.batch_size, len(layers)
        passes = 1
        while number > RANKED:
            passes, number = passes + 4, -(-number // 4)
        most = min(BLAMED, RANKING * len(images) // (passes + number))
        random = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(images), generator=random)[: max(most // size, 1) * size]

        def loss(chosen: Sequence[str]) -> float:
            shared, pass_size = (size, PASS) if self.chunked else (WHOLE, size)
            only = {name: self.survey.layers[name] for name in chosen}
            with self.survey.batch(shared, only):
                found = self._predictions(images, images.sample(order), size, pass_size)
            return found.loss if found.finite else inf

        running = loss([])
        while len(layers) > RANKED:
            share = -(-len(layers) // 4)
            parts = [layers[k : k + share] for k in range(0, len(layers), share)]
            layers = min(parts, key=loss)
        return {name: running - loss([name]) for name in layers}

    def _predictions(
        self, images: Collected, sample: Sample, size: int, pass_size: int
    ) -> Predictions:
        how = Discrepancy(size, pass_size, self.autocast)
        told = replace(sample, batches=lambda size: self._told(sample.batches(size)))
        logits, labels = how.forward(self.model, told, how.chunked_size)
        least, most = int(labels.min()), int(labels.max())
        if not 0 <= least <= most < logits.shape[1]:
            raise UsageError(
                f"the {images.loader} loader's labels run from {least} to {most}, and the model "
                f"has {logits.shape[1]} outputs",
                do=f"expected labels from 0 to {logits.shape[1] - 1}",
            )
        losses = F.cross_entropy(logits, labels, reduction="none")
        return Predictions(losses, logits.argmax(1), labels)

    def _told(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, and how far all of the passes are, as a share."""
        for batch in batches:
            yield batch
            self.done += len(batch[1])
            self.tell(min(self.done / self.whole, 1.0))
