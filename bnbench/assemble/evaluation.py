"""What is measured during a run and at its end: which images, in which batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, assert_never

import torch
from torch import Tensor, nn

from bnbench.assemble.inputs import generator
from bnbench.config import schema
from bnbench.data import batches as data_batches
from bnbench.data.batches import Batches, Standardize, subset
from bnbench.data.dataset import Dataset
from bnbench.events import Measurement, Split
from bnbench.probes.statistics import Autocast, Discrepancy, Sample

Evaluate: TypeAlias = Callable[[], list[Measurement]]

POPULATION_IMAGES = 1024
"""Training images for population statistics at the end of a run: 1,000 to 10,000 suffice (Wu &
Johnson 2021, https://arxiv.org/abs/2105.07576, section 3.2); a power of two splits into batches."""

POPULATION_IMAGES_BEFORE = 256
"""The same at earlier evaluations, where the pass would otherwise be most of the cost."""


def evaluation_steps(total: int, evaluations: int) -> frozenset[int]:
    """After which steps to evaluate: evenly spaced over the budget, the last one at its end."""
    return frozenset(max(1, round(i * total / evaluations)) for i in range(1, evaluations + 1))


def norm_batch_size(config: schema.RunConfig) -> int:
    """Images per BatchNorm statistic (the ghost batch size, else the batch size)."""
    if isinstance(config.norm, schema.BatchNormConfig | schema.GhostNormConfig):
        return config.norm.batch_size or config.data.batch_size
    return config.data.batch_size


def autocast(config: schema.RunConfig, device: torch.device) -> Autocast:
    match config.compute.precision:
        case "fp32":
            return nullcontext
        case "bf16":
            return partial(torch.autocast, device.type, torch.bfloat16)
        case _:
            assert_never(config.compute.precision)


def discrepancy(config: schema.RunConfig, device: torch.device) -> Discrepancy:
    """How images are passed under each kind of statistics."""
    return Discrepancy(
        norm_batch_size=norm_batch_size(config),
        pass_size=config.data.eval_batch_size,
        autocast=autocast(config, device),
    )


@dataclass(frozen=True, slots=True)
class RunImages:
    """The dataset of a run, which of its training images train and validate, and their batches."""

    dataset: Dataset
    train: Tensor
    validation: Tensor
    standardize: Standardize
    batches: Batches
    device: torch.device

    def sample(self, split: Split, indices: Tensor) -> Sample:
        """The images at `indices` of the training or, for that split, of the test images."""
        images = self.dataset.test if split == "test" else self.dataset.train
        return Sample(
            split=split,
            images=len(indices),
            batches=lambda size: data_batches.chunks(
                images, indices, size=size, standardize=self.standardize, device=self.device
            ),
        )


def ordered(
    labels: Tensor, sizes: Sequence[int], random: torch.Generator, *, by_class: bool
) -> Tensor:
    """Positions in `labels` in an order whose first n, for each n of `sizes`, are stratified.

    Between two sizes the order is random or, `by_class`, by class: neighbours share batch
    statistics, and should be such neighbours as in training.
    """
    parts: list[Tensor] = []
    pool = torch.arange(len(labels))
    for size in [*sorted(set(sizes), reverse=True), 0]:
        inner = pool[subset(labels[pool], min(size, len(pool)), random)] if size else pool[:0]
        outer = pool[~torch.isin(pool, inner)]
        outer = outer[torch.randperm(len(outer), generator=random)]
        if by_class:
            outer = outer[labels[outer].argsort(stable=True)]
        parts.append(outer)
        pool = inner
    return torch.cat(parts[::-1])


def evaluations(
    config: schema.RunConfig, images: RunImages, model: nn.Module
) -> tuple[Evaluate, Evaluate]:
    """What measures the model during training, and what does at its end.

    Numbers of images are whole chunks that share batch statistics, as far as there are enough.
    """
    chunk = norm_batch_size(config)
    few = config.train.evaluation_images

    def samples(split: Split, indices: Tensor, *sizes: int | None) -> list[Sample]:
        """A stratified sample for each size (None: all images), each the beginning of the next
        larger one; then all images in the same order."""
        counts = [
            len(indices) if size is None else min(len(indices), -(-size // chunk) * chunk)
            for size in sizes
        ]
        dataset = images.dataset
        order = ordered(
            (dataset.test if split == "test" else dataset.train).labels[indices],
            counts,
            generator(config.seed, "evaluation", split),
            by_class=config.data.order != "shuffled",
        )
        return [images.sample(split, indices[order[:n]]) for n in (*counts, len(indices))]

    sizes = few or POPULATION_IMAGES, POPULATION_IMAGES_BEFORE, POPULATION_IMAGES
    few_train, before, population, _ = samples("train", images.train, *sizes)
    few_validation, validation = samples("val", images.validation, few)
    test, _ = samples("test", torch.arange(len(images.dataset.test.labels)), None)
    measure = partial(discrepancy(config, images.device).measure, model)
    enough = max(before, few_train, key=lambda sample: sample.images)
    return (
        partial(measure, enough, (few_train, few_validation)),
        partial(measure, population, (population, validation, test)),
    )
