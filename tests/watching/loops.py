"""Training loops as people write them, with a small network, and what may be wrong with them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

CLASSES = 4


class Net(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.neck = nn.Sequential(nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(dropout), nn.Linear(24, CLASSES)
        )

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.neck(self.backbone(x)))
        return found


NORMS = ("backbone.1", "neck.1")


def network(dropout: float = 0.0) -> Net:
    torch.manual_seed(0)
    return Net(dropout)


def data(
    examples: int = 64, size: int = 16, shuffle: bool = False
) -> DataLoader[tuple[Tensor, ...]]:
    random = torch.Generator().manual_seed(1)
    y = torch.arange(examples) % CLASSES
    x = torch.randn(examples, 3, 8, 8, generator=random) + y.view(-1, 1, 1, 1) / 3
    return DataLoader(TensorDataset(x, y), size, shuffle=shuffle)


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), 0.01)


def backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def step(model: nn.Module, by: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    by.zero_grad()
    backward(F.cross_entropy(model(x), y))
    by.step()


def epoch(model: nn.Module, by: torch.optim.Optimizer) -> None:
    for x, y in data():
        step(model, by, x, y)


Loop = Callable[[Net], None]


def _plain(model: Net) -> None:
    by = optimizer(model)
    for _ in range(10):
        model.train()
        epoch(model, by)
        model.eval()
        with torch.no_grad():
            for x, _ in data():
                model(x)


def _zeroed_late(model: Net) -> None:
    by = optimizer(model)
    for _ in range(10):
        for x, y in data():
            loss = F.cross_entropy(model(x), y)
            by.zero_grad()
            backward(loss)
            by.step()


def _checkpointed(model: Net) -> None:
    by = optimizer(model)
    for _ in range(10):
        for x, y in data():
            by.zero_grad()
            hidden: Tensor = checkpoint(model.backbone, x, use_reentrant=False)
            backward(F.cross_entropy(model.head(model.neck(hidden)), y))
            by.step()


def _averaged(model: Net) -> None:
    by = optimizer(model)
    average = copy.deepcopy(model)
    for _ in range(10):
        epoch(model, by)
        with torch.no_grad():
            for ours, theirs in zip(average.parameters(), model.parameters(), strict=True):
                ours.lerp_(theirs, 0.1)
            average(next(iter(data()))[0])  # its own statistics


def _closure(model: Net) -> None:
    by = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(10):
        for x, y in data():

            def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
                by.zero_grad()
                loss = F.cross_entropy(model(x), y)
                backward(loss)
                return loss

            by.step(closure)


def _frozen_all_along(model: Net) -> None:
    by = optimizer(model)
    for _ in range(10):
        model.train()
        model.backbone.eval()
        epoch(model, by)


HEALTHY: dict[str, Loop] = {
    "plain": _plain,
    "zeroed late": _zeroed_late,
    "checkpointed": _checkpointed,
    "averaged": _averaged,
    "closure": _closure,
    "frozen all along": _frozen_all_along,
}


def _left_in_eval(model: Net) -> None:
    by = optimizer(model)
    epoch(model, by)
    model.eval()
    epoch(model, by)


def _not_frozen_any_more(model: Net) -> None:
    by = optimizer(model)
    model.backbone.eval()
    for _ in range(2):
        epoch(model, by)
        model.train()


def _validated_in_train(model: Net) -> None:
    by = optimizer(model)
    for _ in range(2):
        epoch(model, by)
        with torch.no_grad():
            model(next(iter(data()))[0])


def _siamese(model: Net) -> None:
    by = optimizer(model)
    for x, y in data():
        by.zero_grad()
        backward(F.cross_entropy(model(x), y) + model(x + 1).square().mean())
        by.step()


def _siamese_later(model: Net) -> None:
    by = optimizer(model)
    for _ in range(3):
        epoch(model, by)
    for x, y in data():
        by.zero_grad()
        backward(F.cross_entropy(model(x), y) + model.head(model.neck(model.backbone(x))).mean())
        by.step()


def _accumulated(model: Net) -> None:
    by = optimizer(model)
    for x, y in data():
        by.zero_grad()
        for part in range(4):
            backward(F.cross_entropy(model(x[part::4]), y[part::4]))
        by.step()


def _batch_of_one(model: Net) -> None:
    by = optimizer(model)
    for x, y in data(examples=33):
        step(model, by, x, y)


def _all_of_one(model: Net) -> None:
    by = optimizer(model)
    for x, y in data(examples=4, size=1):
        step(model, by, x, y)


def _infinite(model: Net) -> None:
    by = optimizer(model)
    epoch(model, by)
    with torch.no_grad():
        model(torch.full((4, 3, 8, 8), torch.inf))
    model.eval()
    by.zero_grad()
    by.step()


def _nan_weights(model: Net) -> None:
    by = optimizer(model)
    epoch(model, by)
    with torch.no_grad():
        model.neck[0].weight[0] = torch.nan  # type: ignore[operator]
    epoch(model, by)


FAULTS: dict[str, tuple[Loop, set[tuple[str, int]]]] = {
    "left in eval": (_left_in_eval, {("frozen", 2)}),
    "not frozen any more": (_not_frozen_any_more, {("no-longer-frozen", 1)}),
    "validated in train": (_validated_in_train, {("moved-without-gradients", 2)}),
    "siamese": (_siamese, {("reused-layer", 2)}),
    "siamese later": (_siamese_later, {("reused-layer", 2)}),
    "accumulated": (_accumulated, {("micro-batches", 2)}),
    "a batch of one": (_batch_of_one, {("small-last-batch", 1)}),
    "all of one": (_all_of_one, {("batch-too-small", 1)}),
    "infinite": (
        _infinite,
        {("overflowed-variance", 2), ("moved-without-gradients", 2), ("frozen", 2)},
    ),
    "nan in the weights": (_nan_weights, {("non-finite", 1)}),
}
"""With what is said of how many layers."""
