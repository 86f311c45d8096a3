"""Images for a stored run that is diagnosed: as in training, and as evaluated."""

from __future__ import annotations

import torch
from torch import Tensor

from bnbench.assemble.inputs import load_dataset, norm_batch_size, run_images
from bnbench.config import schema
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
    of_run = run_images(config, dataset, torch.device("cpu"))
    chosen, _ = of_run.stratified("val", [images], "diagnosis", together=1)
    return list(of_run.sample("val", chosen).batches(config.data.eval_batch_size))
