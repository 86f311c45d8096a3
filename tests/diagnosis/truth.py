"""What a network gives in its modes, by torch alone."""

from __future__ import annotations

import copy
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.diagnosis.zoo import Batch, batches


def resized(given: list[Batch], size: int) -> list[Batch]:
    """The same examples in batches of another size."""
    return batches(torch.cat([x for x, _ in given]), torch.cat([y for _, y in given]), size)


@torch.no_grad()
def read(model: nn.Module, given: list[Batch], mode: str) -> tuple[Tensor, Tensor]:
    """Losses and right answers of each image; `mode`: "eval", "train" without dropout, or
    "statistics": train() of nothing but the normalizations. Each batch from the same buffers."""
    twin = copy.deepcopy(model).train(mode == "train")
    for module in twin.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
        elif mode == "statistics" and getattr(module, "running_mean", None) is not None:
            module.train()
    kept = [(each, each.clone()) for each in twin.buffers()]
    losses, right = [], []
    for x, y in given:
        for buffer, value in kept:
            buffer.copy_(value)
        output = twin(x).double()
        losses.append(F.cross_entropy(output, y, reduction="none"))
        right.append((output.argmax(1) == y).double())
    return torch.cat(losses), torch.cat(right)


def worse(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], margin: float) -> bool:
    """By more than 0.05 nats or 2 points, times `margin`, and more than chance."""
    for difference, enough in ((one[0] - other[0], 0.05), (other[1] - one[1], 0.02)):
        error = difference.std().item() / sqrt(len(difference))
        if difference.mean().item() > margin * max(enough, 4 * error):
            return True
    return False
