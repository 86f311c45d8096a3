"""Images for a stored run that is diagnosed: as in training, and as evaluated."""

from __future__ import annotations

import torch
from torch import Tensor

from bnbench.assemble.inputs import (
    generator,
    load_dataset,
    norm_batch_size,
    ordered,
    standardization,
)
from bnbench.config import schema
from bnbench.data import batches as data_batches
from bnbench.data.batches import split
from bnbench.train import Run

Batch = tuple[Tensor, Tensor]


def training_batches(
    config: schema.RunConfig, run: Run, steps_per_epoch: int, images: int
) -> list[Batch]:
    """Batches of the first epoch, evenly spread over it, that hold `images`, on the CPU.

    As trained on: augmented, in the run's order, cut into what shares batch statistics.
    """
    chunk = norm_batch_size(config)
    count = min(-(-images // config.data.batch_size), steps_per_epoch)
    found: list[Batch] = []
    for k in range(count):
        x, y = run.batch_at(k * steps_per_epoch // count)
        found += zip(x.cpu().split(chunk), y.cpu().split(chunk), strict=True)  # type: ignore[no-untyped-call]
    return found


def validation_batches(config: schema.RunConfig, images: int) -> list[Batch]:
    """A stratified sample of the validation images, on the CPU, as they are evaluated."""
    dataset = load_dataset(config.data, lambda _: None)
    _, validation = split(
        dataset.train.labels,
        validation_size=config.data.validation_size,
        train_size=config.data.train_size,
        generator=generator(config.seed, "split"),
    )
    count = min(images, len(validation))
    random = generator(config.seed, "diagnosis")
    order = ordered(dataset.train.labels[validation], (count,), random, together=1)
    return list(
        data_batches.chunks(
            dataset.train,
            validation[order[:count]],
            size=config.data.eval_batch_size,
            standardize=standardization(config.data, dataset),
            device=torch.device("cpu"),
        )
    )
