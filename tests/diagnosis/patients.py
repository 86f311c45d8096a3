"""A small network that really learns, and the loaders it is diagnosed with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, TensorDataset

from bnbench.data.batches import Standardize
from bnbench.data.dataset import load_fashion_mnist_12k

P = ParamSpec("P")
T = TypeVar("T")
Pairs = DataLoader[tuple[Tensor, ...]]
BATCH = 64
IMAGES = 512
"""Looked at in tests: fewer than a user would, and enough."""


@cache
def pictures() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bundled training images and labels, in random order; evaluation images and labels."""
    found = load_fashion_mnist_12k()
    standardize = Standardize(found.mean, found.std)
    order = torch.randperm(len(found.train), generator=torch.Generator().manual_seed(0))
    return (
        standardize(found.train.pixels).contiguous()[order],
        found.train.labels[order],
        standardize(found.test.pixels).contiguous(),
        found.test.labels,
    )


def network(
    *,
    momentum: float | None = 0.1,
    tracks: bool = True,
    seed: int = 0,
    norm: Callable[..., nn.Module] = nn.BatchNorm2d,
) -> nn.Sequential:
    """Three convolutions, BatchNorm before each ReLU: layers 1, 4 and 7."""
    torch.manual_seed(seed)

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
            norm(outputs, momentum=momentum, track_running_stats=tracks),
            nn.ReLU(),
        ]

    return nn.Sequential(
        *block(1, 8), *block(8, 16), *block(16, 32), nn.Flatten(), nn.Linear(512, 10)
    )


def steps(
    model: nn.Module,
    count: int,
    *,
    lr: float = 0.05,
    batch: Callable[[int], tuple[Tensor, Tensor]] | None = None,
) -> nn.Module:
    """Train it for so many steps, the rate falling to 0."""
    x, y, *_ = pictures()

    def shuffled(k: int) -> tuple[Tensor, Tensor]:
        at = k * BATCH % (len(y) - BATCH)
        return x[at : at + BATCH], y[at : at + BATCH]

    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for k in range(count):
        optimizer.param_groups[0]["lr"] = lr * (1 - k / count)
        inputs, labels = (batch or shuffled)(k)
        loss = F.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model


def once(make: Callable[P, T]) -> Callable[P, T]:
    """Trains once for the same arguments; each caller has a copy, to be spoiled."""
    kept = cache(make)

    @wraps(make)
    def copied(*args: P.args, **kwargs: P.kwargs) -> T:
        return copy.deepcopy(kept(*args, **kwargs))  # type: ignore[arg-type]

    return copied


@once
def trained() -> nn.Module:
    """A healthy network."""
    return steps(network(), 150)


def norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Its BatchNorm layers by name."""
    return {name: each for name, each in model.named_modules() if isinstance(each, _BatchNorm)}


@torch.no_grad()
def recalibrated(model: nn.Module) -> nn.Module:
    """Running statistics averaged over passes in training mode, as users do it by hand."""
    before = {
        name: (each.momentum, each.num_batches_tracked) for name, each in norms(model).items()
    }
    for each in norms(model).values():
        each.reset_running_stats()
        each.momentum = None
    model.train()
    x, *_ = pictures()
    for part in x[:2048].split(BATCH):  # type: ignore[no-untyped-call]
        model(part)
    for name, each in norms(model).items():
        each.momentum = before[name][0]
        each.num_batches_tracked = before[name][1]
    return model


def loader(batch_size: int = BATCH, *, by_class: bool = False, count: int = 10_000) -> Pairs:
    """Training images in the order in which they are stored, or class by class."""
    x, y, *_ = pictures()
    x, y = x[:count], y[:count]
    if by_class:
        order = y.argsort(stable=True)
        x, y = x[order], y[order]
    return DataLoader(TensorDataset(x, y), batch_size=batch_size)


def eval_loader(change: Callable[[Tensor], Tensor] = lambda x: x) -> Pairs:
    """Evaluation images, class by class as the bundled ones are, changed or not."""
    *_, x, y = pictures()
    return DataLoader(TensorDataset(change(x), y), batch_size=200)


def statistics(layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Its running mean and variance."""
    return cast(Tensor, layer.running_mean), cast(Tensor, layer.running_var)
