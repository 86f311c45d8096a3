"""What separates training from inference, in three parts, adapted from Wu & Johnson 2021,
https://arxiv.org/abs/2105.07576.

    training_noise = e(train, batch statistics at the training NBS) − e(train, at the largest NBS)
    generalization = e(val, batch statistics) − e(train, batch statistics)
    inconsistency  = e(val, running statistics) − e(val, batch statistics)

e is the cross entropy in nats (`loss_…`) or the share of wrong predictions (`error_…`); NBS is how
many images share statistics, and the largest is all images at once. The terms are stated as well:
`loss_train_nbs…` for each NBS, `loss_val_batch`, `loss_val_running`. One network is evaluated at
each NBS; the paper compares networks that were trained at each. Without batch statistics the first
and the last part are exactly 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from bnbench.events import Reading
from bnbench.probes import NETWORK, readings
from bnbench.probes.statistics import Discrepancy, Sample, batch_norm_layers, evaluating


def read(
    model: nn.Module,
    how: Discrepancy,
    norm_batch_sizes: Iterable[int],
    train: Sample,
    validation: Sample,
) -> list[Reading]:
    """The three parts and their terms. A size above the number of images means all of them."""
    own, largest = min(how.norm_batch_size, train.images), train.images
    sizes = sorted({min(size, largest) for size in norm_batch_sizes} | {own, largest})

    with evaluating(model):
        running = _errors(*how.forward(model, validation, how.pass_size))
        if batch_norm_layers(model):
            on_train = {
                size: _errors(*replace(how, norm_batch_size=size).under_batch(model, train)[:2])
                for size in sizes
            }
            batch = _errors(*how.under_batch(model, validation)[:2])
        else:
            on_train = dict.fromkeys(sizes, _errors(*how.forward(model, train, how.pass_size)))
            batch = running
    found: dict[str, float] = {}
    for kind in ("loss", "error"):
        found |= {f"{kind}_train_nbs{size}": on_train[size][kind] for size in sizes}
        found |= {
            f"{kind}_val_batch": batch[kind],
            f"{kind}_val_running": running[kind],
            f"{kind}_training_noise": on_train[own][kind] - on_train[largest][kind],
            f"{kind}_generalization": batch[kind] - on_train[own][kind],
            f"{kind}_inconsistency": running[kind] - batch[kind],
        }
    return readings("decomposition", {NETWORK: found})


def _errors(logits: Tensor, labels: Tensor) -> dict[str, float]:
    wrong = (logits.argmax(1) != labels).sum().item()
    return {"loss": F.cross_entropy(logits, labels).item(), "error": wrong / len(labels)}
