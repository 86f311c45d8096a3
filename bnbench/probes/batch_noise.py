"""How much a prediction depends on the company an image is in.

Weights are frozen; fixed images x meet random sets r of companions in batches of the training NBS.

    noise = mean_x tr Cov_r[logits_xr] / tr Cov_x[mean_r logits_xr]
    flip_rate = share of the pairs (x, r) whose class is not that of mean_r logits_xr

Covariances are unbiased. Without batch statistics both are exactly 0. This is the regularizing
noise of small batches: it falls with NBS (Luo et al. 2019, https://arxiv.org/abs/1809.00846).

`companionship` draws the sets. A quarter of each batch are fixed images, drawn anew with every set,
so that a reading takes 4 images a prediction and not NBS; the rest is drawn from the other images.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bnbench.events import Probe
from bnbench.probes.discrepancy import Discrepancy, Sample
from bnbench.probes.readings import NETWORK, Where, readings
from bnbench.probes.statistics import batch_norm_layers, batch_statistics, evaluating

OTHERS = 3
"""Companions that are not fixed images, for each that is."""


def companionship(
    fixed: int, others: int, norm_batch_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One random set: who stands in which batch, and where the fixed images are.

    Positions in fixed images (0 … fixed − 1) followed by `others` more: (batches·NBS,), a batch
    after the other; and of each fixed image its place among them: (fixed,).
    """
    in_a_batch = max(norm_batch_size // (1 + OTHERS), 1)
    order = torch.randperm(fixed, generator=generator)
    batches, places = [], torch.empty(fixed, dtype=torch.long)
    for number, mates in enumerate(order.split(in_a_batch)):  # type: ignore[no-untyped-call]
        missing = norm_batch_size - len(mates)
        if missing > others:
            raise ValueError(f"{missing} companions of {others} images")
        batches += [mates, fixed + torch.randperm(others, generator=generator)[:missing]]
        places[mates] = number * norm_batch_size + torch.arange(len(mates))
    return torch.cat(batches), places


def batch_noise(
    model: nn.Module,
    how: Discrepancy,
    *,
    sets: list[tuple[Tensor, Tensor]],
    sample_of: Callable[[Tensor], Sample],
    where: Where,
) -> list[Probe]:
    """`noise` and `flip_rate` of the network.

    `sets`: of `companionship`, at least two; `sample_of` makes a sample of images by position.
    """
    noise, flips = 0.0, 0.0
    if batch_norm_layers(model):
        predictions = []
        with evaluating(model), batch_statistics(model, how.norm_batch_size):
            for positions, places in sets:
                logits, _ = how.forward(model, sample_of(positions), how.chunked_size)
                predictions.append(logits[places])
        logits = torch.stack(predictions)  # (sets, images, classes)
        means = logits.mean(0)
        within = logits.var(0, correction=1).sum(1).mean()
        between = means.var(0, correction=1).sum()
        noise = (within / between).item()
        flips = (logits.argmax(2) != means.argmax(1)).double().mean().item()
    return readings("batch_noise", {NETWORK: {"noise": noise, "flip_rate": flips}}, where)
