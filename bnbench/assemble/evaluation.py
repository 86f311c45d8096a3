"""What is measured during a run and at its end: which images, in which company."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal, assert_never

import torch
from torch import Tensor, nn

from bnbench import data
from bnbench.assemble.random import generator
from bnbench.config import schema
from bnbench.probes import Autocast, Discrepancy, Sample
from bnbench.train import Evaluate

POPULATION_IMAGES = 1024
"""Training images behind population statistics at the end of a run: 1,000 to 10,000 suffice (Wu &
Johnson 2021, https://arxiv.org/abs/2105.07576, section 3.2); a power of two splits into batches."""

POPULATION_IMAGES_BEFORE = 256
"""The same at earlier evaluations, where the pass would otherwise be most of the cost."""


def evaluation_steps(total: int, evaluations: int) -> frozenset[int]:
    """After which steps to evaluate: evenly spaced over the budget, the last one at its end."""
    return frozenset(max(1, round(i * total / evaluations)) for i in range(1, evaluations + 1))


def norm_batch_size(config: schema.RunConfig) -> int:
    """Examples that share batch statistics in training, were the normalization BatchNorm."""
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


@dataclass(frozen=True, slots=True)
class Part:
    """Images of one split in an order whose beginnings are stratified samples of it."""

    split: Literal["train", "val", "test"]
    images: data.Images
    indices: Tensor

    def beginning(self, count: int, standardize: data.Standardize, device: torch.device) -> Sample:
        """The first `count` of them."""
        chosen = self.indices[:count]
        return Sample(
            split=self.split,
            images=len(chosen),
            batches=lambda size: data.chunks(
                self.images, chosen, size=size, standardize=standardize, device=device
            ),
        )


def ordered(
    labels: Tensor, sizes: Sequence[int], random: torch.Generator, *, by_class: bool
) -> Tensor:
    """Positions in `labels` in an order whose first n, for each n of `sizes`, are stratified.

    Between two sizes the order is random or, `by_class`, by class: neighbours share batch
    statistics, and they are to be companions as in training.
    """
    parts: list[Tensor] = []
    pool = torch.arange(len(labels))
    for size in [*sorted(set(sizes), reverse=True), 0]:
        inner = pool[data.subset(labels[pool], min(size, len(pool)), random)] if size else pool[:0]
        outer = pool[~torch.isin(pool, inner)]
        outer = outer[torch.randperm(len(outer), generator=random)]
        if by_class:
            outer = outer[labels[outer].argsort(stable=True)]
        parts.append(outer)
        pool = inner
    return torch.cat(parts[::-1])


def evaluations(
    config: schema.RunConfig,
    dataset: data.Dataset,
    train_indices: Tensor,
    validation_indices: Tensor,
    model: nn.Module,
    standardize: data.Standardize,
    device: torch.device,
) -> tuple[Evaluate, Evaluate]:
    """What measures the model during training, and what does at its end.

    Numbers of images are whole chunks that share batch statistics, as far as there are enough.
    """
    chunk = norm_batch_size(config)
    few = config.train.evaluation_images

    def part(
        split: Literal["train", "val", "test"],
        images: data.Images,
        indices: Tensor,
        sizes: Sequence[int | None],
    ) -> tuple[Part, list[int]]:
        counts = [
            len(indices) if size is None else min(len(indices), -(-size // chunk) * chunk)
            for size in sizes
        ]
        order = ordered(
            images.labels[indices],
            counts,
            generator(config.seed, "evaluation", split),
            by_class=config.data.order != "shuffled",
        )
        return Part(split, images, indices[order]), counts

    train, (train_few, before, at_end) = part(
        "train",
        dataset.train,
        train_indices,
        (few or POPULATION_IMAGES, POPULATION_IMAGES_BEFORE, POPULATION_IMAGES),
    )
    before = max(before, train_few)
    validation, (validation_few,) = part("val", dataset.train, validation_indices, (few,))
    test_indices = torch.arange(len(dataset.test.labels))
    test, (test_all,) = part("test", dataset.test, test_indices, (None,))

    def sample(part: Part, count: int) -> Sample:
        return part.beginning(count, standardize, device)

    measure = partial(
        Discrepancy(
            norm_batch_size=chunk,
            pass_size=config.data.eval_batch_size,
            autocast=autocast(config, device),
        ).measure,
        model,
    )
    during = partial(
        measure,
        population=sample(train, before),
        samples=(sample(train, train_few), sample(validation, validation_few)),
    )
    at_the_end = partial(
        measure,
        population=sample(train, at_end),
        samples=(
            sample(train, at_end),
            sample(validation, len(validation_indices)),
            sample(test, test_all),
        ),
    )
    return lambda where: during(where=where), lambda where: at_the_end(where=where)
