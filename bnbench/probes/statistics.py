"""A model under running, batch or population statistics, and how far its predictions differ.

Running statistics are what inference uses, batch statistics what training uses, population
statistics what inference would use had they been recomputed with these weights ("precise BN",
Wu & Johnson 2021, https://arxiv.org/abs/2105.07576, section 3).

A layer has batch statistics if it is one of torch's BatchNorm layers (any `_BatchNorm`) that
keeps running ones. Other layers act the same under all three kinds. Everything is restored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from math import gcd
from typing import Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnbench.events import Confusion, Evaluation, Gap, Measurement, Split, Statistics

WIDE_ROW = 64
"""Values in a row over which a reduction runs at full speed; measured on AVX2: 8 channels, 28×28,
a pass of 128 images: 1.0 ms in such rows, 2.3 ms in rows of 8, 1.4 ms in torch's own layer."""


@runtime_checkable
class Corrects(Protocol):
    """A BatchNorm layer that turns x̂ into x̂·r + d in training, by means and deviations (·, C)."""

    def correction(self, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
        """r and d; the layer does not change."""


def batch_norm_layers(model: nn.Module) -> dict[str, _BatchNorm]:
    """The layers whose outputs depend on the kind of statistics, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    }


@dataclass(slots=True)
class PooledStatistics:
    """Mean and variance over many batches, pooled in fp64.

    Batches may differ in size: μ = E[μ_B], σ² = E[σ²_B] + Var[μ_B], each batch weighted by its
    count, which is the biased variance of all examples at once (Chan, Golub & LeVeque 1983).
    """

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    variance: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def add(self, means: Tensor, variances: Tensor, count: int) -> None:
        """Take in batches of `count` values each; means, biased variances: (batches, C)."""
        means, variances = (part.to("cpu", torch.float64) for part in (means, variances))
        mean = means.mean(0)
        variance = variances.mean(0) + means.var(0, correction=0)
        taken = count * means.shape[0]
        share = taken / (self.count + taken)
        delta = mean - self.mean
        self.mean = self.mean + delta * share
        self.variance = (
            self.variance * (1 - share) + variance * share + delta.square() * share * (1 - share)
        )
        self.count += taken


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """`model` in eval mode, without gradients; every flag is restored on leaving."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.inference_mode():
            yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def _layers_acting_as(acts: dict[_BatchNorm, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Let each layer compute another function; the one before is restored on leaving."""
    before = {layer: layer.__dict__.get("forward") for layer in acts}
    for layer, act in acts.items():
        layer.__dict__["forward"] = act
    try:
        yield
    finally:
        for layer, forward in before.items():
            if forward is None:
                del layer.__dict__["forward"]
            else:
                layer.__dict__["forward"] = forward


@contextmanager
def batch_statistics(
    model: nn.Module, norm_batch_size: int, *, only: Collection[str] | None = None
) -> Iterator[dict[str, PooledStatistics]]:
    """`model` as in training: each chunk of `norm_batch_size` images has its own statistics.

    A forward pass may hold many chunks; what is left over at its end joins the last chunk. Layers
    that correct batch statistics (`Corrects`) do so here; noise is left out. Yields the statistics
    seen, pooled by layer name: after passes over many examples, the population's. `only`: names of
    the layers that this applies to; the others stay as they are.
    """
    layers = batch_norm_layers(model)
    if only is not None:
        layers = {name: layers[name] for name in only}
    pools = {name: PooledStatistics() for name in layers}
    with _layers_acting_as(
        {
            layer: _chunk_normalizer(layer, norm_batch_size, pools[name])
            for name, layer in layers.items()
        }
    ):
        yield pools


def _chunk_normalizer(
    layer: _BatchNorm, norm_batch_size: int, pool: PooledStatistics
) -> Callable[[Tensor], Tensor]:
    def normalize(x: Tensor) -> Tensor:
        N = x.shape[0]
        whole = max(N // norm_batch_size - bool(N % norm_batch_size), 0) * norm_batch_size
        parts = []
        if whole:
            parts.append(normalize_chunks(x[:whole], whole // norm_batch_size))
        if whole < N:
            parts.append(normalize_chunks(x[whole:], 1))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def normalize_chunks(x: Tensor, chunks: int) -> Tensor:
        last = x.movedim(1, -1)  # (N, *, C): no copy from channels-last
        C = last.shape[-1]
        flat = last.reshape(chunks, -1, C)
        count = flat.shape[1]
        # Rows of few channels would leave most of a vector unit idle: join several positions.
        joined = gcd(count, max(1, WIDE_ROW // C))
        rows = flat.reshape(chunks, -1, joined * C)

        dtype = torch.promote_types(x.dtype, torch.float32)  # bf16 is too coarse for statistics

        def over_chunk(values: Tensor) -> Tensor:
            """Mean of each channel over a chunk: (chunks, C)."""
            return values.mean(1, dtype=dtype).view(chunks, joined, C).mean(1)

        def along_rows(values: Tensor) -> Tensor:
            """(chunks, C) repeated to the length of a row."""
            return values.unsqueeze(1).repeat(1, 1, joined)

        # Two passes: E[x²] − E[x]² would cancel where the mean is large.
        mean = over_chunk(rows)
        centered = rows - along_rows(mean)
        variance = over_chunk(centered.square())
        pool.add(mean, variance, count)
        gain = torch.rsqrt(variance + layer.eps)
        shift = torch.zeros_like(mean)
        if isinstance(layer, Corrects):
            ratio, shift = layer.correction(mean, gain.reciprocal())
            gain = gain * ratio
        if layer.affine:
            gain, shift = gain * layer.weight, shift * layer.weight + layer.bias
        y = torch.addcmul(along_rows(shift), centered, along_rows(gain))
        return y.to(x.dtype).reshape(last.shape).movedim(-1, 1)

    return normalize


@contextmanager
def given_statistics(model: nn.Module, statistics: dict[str, PooledStatistics]) -> Iterator[None]:
    """`model` in inference, with these means and (biased) variances for running ones."""

    def normalizer(layer: _BatchNorm, pool: PooledStatistics) -> Callable[[Tensor], Tensor]:
        kept = cast(Tensor, layer.running_mean)
        mean = pool.mean.to(kept)
        variance = pool.variance.to(kept)
        return lambda x: F.batch_norm(
            x, mean, variance, layer.weight, layer.bias, False, 0.0, layer.eps
        )

    layers = batch_norm_layers(model)
    with _layers_acting_as(
        {layer: normalizer(layer, statistics[name]) for name, layer in layers.items()}
    ):
        yield


# --- what is measured with them --------------------------------------------------

MAX_CONFUSED = 100
"""Classes in a confusion matrix: with more, its picture cannot be read."""

Batch = tuple[Tensor, Tensor]
Autocast = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Sample:
    """Images of one split: `batches(size)` yields them, `size` at a time.

    `images`: how many. Their order decides which of them share batch statistics.
    """

    split: Split
    images: int
    batches: Callable[[int], Iterable[Batch]]


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
        control. The test split, which is read once, has its confusion matrix as well.
        """
        facts: list[Measurement] = []
        with evaluating(model):
            if not batch_norm_layers(model):
                for sample in samples:
                    logits, labels = self.forward(model, sample, self.pass_size)
                    facts += _facts(sample.split, logits, logits, logits, labels)
                return facts
            with batch_statistics(model, self.norm_batch_size) as pools:
                in_population, _ = self.forward(model, population, self.chunked_size)
            for sample in samples:
                running, labels = self.forward(model, sample, self.pass_size)
                if sample.split == population.split:
                    batch = in_population[: sample.images]
                else:
                    with batch_statistics(model, self.norm_batch_size):
                        batch, _ = self.forward(model, sample, self.chunked_size)
                with given_statistics(model, pools):
                    precise, _ = self.forward(model, sample, self.pass_size)
                facts += _facts(sample.split, running, batch, precise, labels)
        return facts

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
    split: Split, running: Tensor, batch: Tensor, precise: Tensor, labels: Tensor
) -> list[Measurement]:
    """What logits (images, classes) under the three kinds of statistics say."""
    images = len(labels)
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
    return facts
