"""What a network answers to each example, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bnbench.diagnosis.result import NATS, figures

KEPT = 1024
"""Values of an output that are kept of each example, at most, spread evenly over it."""


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Of each example, in the loader's order: its loss, (n,), the share of it that is right, (n,),
    and what was answered, (n, parts).

    `right`: None where an answer is not right or wrong. `answers`: classes, or values as a share of
    their deviation; None where they are not known. `shared`: examples that share one loss. `unit`:
    of the loss; empty where it has its own. `counts`: which have a label, (n,); None: each.
    """

    losses: Tensor
    right: Tensor | None = None
    answers: Tensor | None = None
    shared: int = 1
    unit: str = NATS
    counts: Tensor | None = None

    @property
    def loss(self) -> float:
        """The mean."""
        return self.losses.mean().item()

    @property
    def accuracy(self) -> float | None:
        """The share of right answers."""
        return None if self.right is None else self.right.mean().item()

    @property
    def wrong(self) -> float:
        """The share that is not right, or not explained."""
        return min(self.loss, 1.0) if self.accuracy is None else 1 - self.accuracy

    @property
    def figures(self) -> str:
        """Loss and accuracy: "loss 0.413 and 85.2 % right"."""
        return figures(self.loss, self.accuracy, self.unit)

    @property
    def finite(self) -> bool:
        """Whether every loss is a number."""
        return bool(self.losses.isfinite().all())

    def differs(self, other: Predictions) -> float:
        """The share of answers that are others; of values, how far they are apart."""
        if self.answers is None or other.answers is None:
            return 0.0
        if self.answers.is_floating_point():
            return (self.answers - other.answers).square().mean().item()
        return (self.answers != other.answers).double().mean().item()


def joined(parts: list[Predictions], order: Tensor, unit: str) -> Predictions:
    """Those of all batches, where `order` are the positions of their examples; in the loader's
    order, without those that have no label. `unit`: of the loss."""
    counts = [
        torch.ones(len(each.losses)).bool() if each.counts is None else each.counts
        for each in parts
    ]
    back = order.argsort()
    back = back[torch.cat(counts)[back]]

    def all_of(name: str) -> Tensor | None:
        found = [getattr(each, name) for each in parts]
        if any(each is None for each in found) or len({each.shape[1:] for each in found}) > 1:
            return None
        return torch.cat(found)[back]

    losses = all_of("losses")
    assert losses is not None
    shared = max(each.shared for each in parts)
    return Predictions(losses, all_of("right"), all_of("answers"), shared, unit)


def over_places(
    losses: Tensor, right: Tensor | None, counts: Tensor, answers: Tensor
) -> Predictions:
    """Of each example, the means over its places that count; (n, …) each."""
    counts = counts.reshape(len(counts), -1)
    number = counts.sum(1).clamp(min=1)

    def mean(each: Tensor) -> Tensor:
        return each.double().reshape(counts.shape).where(counts, 0.0).sum(1) / number

    shares = None if right is None else mean(right)
    return Predictions(mean(losses), shares, some(answers), counts=counts.any(1))


def some(values: Tensor) -> Tensor:
    """(n, parts): evenly spread values of each example, `KEPT` at most."""
    flat = values.reshape(len(values), -1)
    return flat[:, :: -(-flat.shape[1] // KEPT)]
