"""A small network, its data, and the parts of training loops."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
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


def by_hand(model: Net) -> None:
    """A step without an optimizer, as tutorials make it."""
    for each in model.parameters():
        if each.grad is not None:
            each.data.sub_(0.1 * each.grad)
            each.grad = None


def epochs_by_hand(model: Net) -> None:
    for x, y in (batch for _ in range(2) for batch in data()):
        backward(F.cross_entropy(model(x), y))
        by_hand(model)
