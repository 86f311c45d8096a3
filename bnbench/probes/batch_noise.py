"""How much the prediction for an image depends on the other images in its batch.

Weights are frozen; fixed images x are predicted in random batches r of the training NBS.

    noise = mean_x tr Cov_r[logits_xr] / tr Cov_x[mean_r logits_xr]
    flip_rate = share of the pairs (x, r) whose class is not that of mean_r logits_xr

Covariances are unbiased. Without batch statistics both are exactly 0. This is the regularizing
noise of small batches: it falls with NBS (Luo et al. 2019, https://arxiv.org/abs/1809.00846).

A quarter of each batch are fixed images, shuffled in every draw, so that a reading takes 4 images a
prediction and not NBS; the rest are other images.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bnbench.events import Reading
from bnbench.probes import NETWORK, readings
from bnbench.probes.statistics import Discrepancy, Sample, batch_norm_layers, evaluating

OTHERS = 3
"""Other images in a batch, for each fixed one."""


def draw_batches(
    fixed: int, others: int, norm_batch_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random batches that hold every fixed image once.

    Returns the images of the batches (batches·NBS,), one batch after the other, as positions in the
    fixed images (0 … fixed − 1) followed by `others` more; and where in it each fixed image is
    (fixed,). Raises ValueError where there are too few others.
    """
    in_a_batch = max(norm_batch_size // (1 + OTHERS), 1)
    order = torch.randperm(fixed, generator=generator)
    batches, places = [], torch.empty(fixed, dtype=torch.long)
    for number, chosen in enumerate(order.split(in_a_batch)):  # type: ignore[no-untyped-call]
        missing = norm_batch_size - len(chosen)
        if missing > others:
            raise ValueError(f"{missing} other images of {others}")
        batches += [chosen, fixed + torch.randperm(others, generator=generator)[:missing]]
        places[chosen] = number * norm_batch_size + torch.arange(len(chosen))
    return torch.cat(batches), places


def read(
    model: nn.Module,
    how: Discrepancy,
    draws: list[tuple[Tensor, Tensor]],
    sample_of: Callable[[Tensor], Sample],
) -> list[Reading]:
    """`noise` and `flip_rate` of the network.

    `draws`: of `draw_batches`, at least two. `sample_of` makes a sample of images by position.
    """
    noise, flips = 0.0, 0.0
    if batch_norm_layers(model):
        with evaluating(model):
            predictions = [
                how.under_batch(model, sample_of(positions))[0][places]
                for positions, places in draws
            ]
        logits = torch.stack(predictions)  # (draws, images, classes)
        means = logits.mean(0)
        within = logits.var(0, correction=1).sum(1).mean()
        between = means.var(0, correction=1).sum()
        noise = (within / between).item()
        flips = (logits.argmax(2) != means.argmax(1)).double().mean().item()
    return readings("batch_noise", {NETWORK: {"noise": noise, "flip_rate": flips}})
