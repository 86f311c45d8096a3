"""A model under running, batch or population statistics, and how far its predictions differ.

Running statistics are what inference uses, batch statistics what training uses, population
statistics what inference would use had they been recomputed with these weights ("precise BN",
Wu & Johnson 2021, https://arxiv.org/abs/2105.07576, section 3).

A layer has batch statistics if it is one of torch's layers, or derives from one, and has running
ones. Other layers act the same under all three kinds. Everything is restored.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from bnbench.events import Confusion, Correctness, Evaluation, Gap, Measurement, Split, Statistics
from bnbench.probes.interception import Use, intercepted
from bnbench.probes.pooled import (
    Found,
    PooledStatistics,
    evenly,
    moments,
    normalized_in_chunks,
)


@runtime_checkable
class Corrects(Protocol):
    """A BatchNorm layer that turns x̂ into x̂·r + d in training, by means and deviations (·, C)."""

    def correction(self, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
        """r and d; the layer does not change."""


def batch_norm_layers(model: nn.Module) -> dict[str, _NormBase]:
    """The layers whose outputs depend on the kind of statistics, by name.

    What counts are the buffers: eval mode uses them, also where `track_running_stats` was set to
    False later.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _NormBase) and module.running_mean is not None
    }


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """`model` in eval mode, without gradients; every flag is restored on leaving."""
    with modes_restored(model):
        model.eval()
        with torch.no_grad():  # not inference mode: what a forward keeps is used in training
            yield


@contextmanager
def modes_restored(model: nn.Module) -> Iterator[None]:
    """Give every module its mode back on leaving."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in flags:
            if type(module).train is not nn.Module.train:  # may do more, as LoRA's, than set a flag
                module.train(training)
        for module, training in flags:
            module.training = training


@contextmanager
def batch_statistics(
    model: nn.Module,
    norm_batch_size: int,
    *,
    layers: Mapping[str, nn.Module] | None = None,
    watched: Mapping[str, nn.Module] | None = None,
) -> Iterator[dict[str, PooledStatistics]]:
    """`model` as in training: each chunk of `norm_batch_size` images has its own statistics.

    A forward pass may hold many chunks; what is left over at its end joins the last chunk. Layers
    that correct batch statistics (`Corrects`) do so here; noise is left out. Yields the statistics
    seen, pooled by layer name: after passes over many examples, the population's. `layers`: those
    that this applies to, the others stay as they are; None: all `batch_norm_layers`. `watched`:
    those of which the statistics are only pooled.
    """
    layers = batch_norm_layers(model) if layers is None else layers
    both = {**layers, **(watched or {})}
    pools = {name: PooledStatistics() for name in both}

    def act(use: Use) -> Tensor | None:
        found = partial(pools[use.layer].add_call, use.call)
        if use.layer not in layers:
            found(*moments(use.x))
            return None
        if use.each_image:
            return _each_image_normalized(use, found)
        if use.again is not None:
            return _played_in_chunks(use, norm_batch_size, found)
        correction = use.module.correction if isinstance(use.module, Corrects) else None
        return normalized_in_chunks(
            use.x, norm_batch_size, use.weight, use.bias, use.eps, found, correction
        )

    with intercepted(model, both, act):
        yield pools


def _each_image_normalized(use: Use, found: Found) -> Tensor:
    """As InstanceNorm in training. Its running variance is an average of images' variances, so the
    means' own variance is no part of it."""
    values = use.x.flatten(2).to(torch.promote_types(use.x.dtype, torch.float32))
    means, variances = values.mean(2), values.var(2, correction=0)
    found(means.mean(0, keepdim=True), variances.mean(0, keepdim=True), values[:, 0].numel())
    return F.instance_norm(use.x, None, None, use.weight, use.bias, True, 0.0, use.eps)


def _played_in_chunks(use: Use, size: int, found: Found) -> Tensor:
    """A layer that is called again for each chunk, with the chunk's statistics."""
    whole = evenly(len(use.x), size)
    chunks = [*use.x[:whole].split(size), use.x[whole:]]  # type: ignore[no-untyped-call]
    parts = []
    for chunk in filter(len, chunks):
        mean, variance, count = moments(chunk)
        found(mean, variance, count)
        parts.append(replace(use, x=chunk).with_statistics(mean[0], variance[0]))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@contextmanager
def given_statistics(
    model: nn.Module,
    statistics: Mapping[str, PooledStatistics],
    *,
    layers: Mapping[str, nn.Module] | None = None,
    by_call: bool = False,
) -> Iterator[None]:
    """`model` in inference, with these means and (biased) variances for running ones.

    `layers`: as in `batch_statistics`. `by_call`: each call of a layer in a forward pass has its
    own. Where a layer was not reached when statistics were taken, it keeps its running ones.
    """

    def act(use: Use) -> Tensor | None:
        pool = statistics[use.layer]
        if by_call and use.call < len(pool.calls):
            pool = pool.calls[use.call]
        if use.own or not pool.count:
            return None
        return use.with_statistics(pool.mean, pool.variance)

    with intercepted(model, batch_norm_layers(model) if layers is None else layers, act):
        yield


# --- what is measured with them --------------------------------------------------

MAX_CONFUSED = 100
"""Classes in a confusion matrix: with more, its picture cannot be read."""

Batch = tuple[Tensor, Tensor]
Autocast = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Sample:
    """Images of one split: `batches(size)` yields them, `size` at a time.

    `images`: how many. Their order decides which of them share batch statistics. `places`:
    (images,) where each stands in the dataset; without it, nothing is told of single images.
    """

    split: Split
    images: int
    batches: Callable[[int], Iterable[Batch]]
    places: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """Measures samples under running, batch and population statistics.

    `norm_batch_size`: images that share batch statistics, as in training. `pass_size`: images in
    one forward pass, at most; a larger norm_batch_size takes precedence.
    """

    norm_batch_size: int
    pass_size: int
    autocast: Autocast = nullcontext

    @property
    def chunked_size(self) -> int:
        """Images in a forward pass under batch statistics: whole chunks."""
        return max(self.pass_size // self.norm_batch_size, 1) * self.norm_batch_size

    def measure(
        self, model: nn.Module, population: Sample, samples: Iterable[Sample]
    ) -> list[Measurement]:
        """Evaluations and gaps of each sample; population statistics come from `population`.

        A sample of the training split is the beginning of `population`: one pass under batch
        statistics serves both. Models without batch statistics are evaluated once: the three
        kinds are equal and the gap is exactly zero, and both are stated all the same, as the
        control. The test split, which is read once, has its confusion matrix as well, and which
        images were classified correctly.
        """
        facts: list[Measurement] = []
        with evaluating(model):
            if not batch_norm_layers(model):
                for sample in samples:
                    logits, labels = self.forward(model, sample, self.pass_size)
                    facts += _facts(sample, logits, logits, logits, labels)
                return facts
            in_population, _, pools = self.under_batch(model, population)
            for sample in samples:
                running, labels = self.forward(model, sample, self.pass_size)
                if sample.split == population.split:
                    batch = in_population[: sample.images]
                else:
                    batch, *_ = self.under_batch(model, sample)
                with given_statistics(model, pools):
                    precise, _ = self.forward(model, sample, self.pass_size)
                facts += _facts(sample, running, batch, precise, labels)
        return facts

    def under_batch(
        self, model: nn.Module, sample: Sample, layers: Mapping[str, nn.Module] | None = None
    ) -> tuple[Tensor, Tensor, dict[str, PooledStatistics]]:
        """`forward` under the statistics of batches, and these, pooled by layer. `layers`: as in
        `batch_statistics`."""
        with batch_statistics(model, self.norm_batch_size, layers=layers) as pools:
            return *self.forward(model, sample, self.chunked_size), pools

    def forward(self, model: nn.Module, sample: Sample, size: int) -> Batch:
        """Logits (images, classes) in fp64 and labels (images,), on the CPU.

        `size`: images in one pass: `pass_size`, or `chunked_size` under batch statistics.
        """
        logits, labels = [], []
        enough = min(size, self.norm_batch_size)  # passes below a chunk have no batch statistics
        for x, y in _without_short_tail(sample.batches(size), enough):
            with self.autocast():
                logits.append(model(x))
            labels.append(y)
        return torch.cat(logits).to("cpu", torch.float64), torch.cat(labels).cpu()


def _without_short_tail(batches: Iterable[Batch], enough: int) -> Iterator[Batch]:
    """The batches, the last one joined to the one before where it has fewer than `enough`."""
    held: Batch | None = None
    for batch in batches:
        if held is not None and len(batch[1]) < enough:
            batch = torch.cat((held[0], batch[0])), torch.cat((held[1], batch[1]))
        elif held is not None:
            yield held
        held = batch
    if held is not None:
        yield held


def _facts(
    sample: Sample, running: Tensor, batch: Tensor, precise: Tensor, labels: Tensor
) -> list[Measurement]:
    """What logits (images, classes) under the three kinds of statistics say."""
    split, images = sample.split, len(labels)
    kinds: dict[Statistics, Tensor] = {"running": running, "batch": batch, "population": precise}
    found = {
        kind: Evaluation(
            split=split,
            stats=kind,
            images=images,
            loss=F.cross_entropy(logits, labels).item(),
            accuracy=(logits.argmax(1) == labels).sum().item() / images,
        )
        for kind, logits in kinds.items()
    }
    log_running, log_batch = F.log_softmax(running, 1), F.log_softmax(batch, 1)
    gap = Gap(
        split=split,
        images=images,
        loss=found["running"].loss - found["batch"].loss,
        accuracy=found["running"].accuracy - found["batch"].accuracy,
        disagreement=(running.argmax(1) != batch.argmax(1)).sum().item() / images,
        kl=(log_batch.exp() * (log_batch - log_running)).sum(1).mean().item(),
    )
    facts: list[Measurement] = [*found.values(), gap]
    classes = running.shape[1]
    if split == "test" and classes <= MAX_CONFUSED:
        pairs = torch.bincount(labels * classes + running.argmax(1), minlength=classes**2)
        counts = tuple(map(tuple, pairs.view(classes, classes).tolist()))  # (label, prediction)
        facts.append(Confusion(split=split, stats="running", counts=counts))
    if split == "test" and sample.places is not None:
        order = torch.argsort(sample.places.cpu())
        for kind, logits in kinds.items():
            packed = np.packbits((logits.argmax(1) == labels)[order].numpy())
            bits = b64encode(packed.tobytes()).decode()
            facts.append(Correctness(split=split, stats=kind, images=images, bits=bits))
    return facts
