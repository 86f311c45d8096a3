"""Eval-mode discrepancy: the same weights on the same images under three kinds of statistics.

Running statistics are what inference uses, batch statistics what training uses, population
statistics what inference would use had they been recomputed with these weights ("precise BN",
Wu & Johnson 2021, https://arxiv.org/abs/2105.07576, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnbench.events import Confusion, Evaluation, Gap, Measurement, Split, Statistics
from bnbench.probes import statistics

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
        with statistics.evaluating(model):
            if not statistics.batch_norm_layers(model):
                for sample in samples:
                    logits, labels = self.forward(model, sample, self.pass_size)
                    facts += _facts(sample.split, logits, logits, logits, labels)
                return facts
            with statistics.batch_statistics(model, self.norm_batch_size) as pools:
                in_population, _ = self.forward(model, population, self.chunked_size)
            for sample in samples:
                running, labels = self.forward(model, sample, self.pass_size)
                if sample.split == population.split:
                    batch = in_population[: sample.images]
                else:
                    with statistics.batch_statistics(model, self.norm_batch_size):
                        batch, _ = self.forward(model, sample, self.chunked_size)
                with statistics.given_statistics(model, pools):
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
