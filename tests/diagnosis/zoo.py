"""Small networks of many kinds that have learned, drawn by a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.diagnosis.patients import pictures

Batch: TypeAlias = tuple[Tensor, Tensor]
Norm: TypeAlias = Callable[[int], nn.Module]

TRAINED_ON = 8000
"""The first of the 10,000 bundled training images; the others are held out."""


class ByHand(nn.Module):
    """BatchNorm as people write it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale, self.shift = (
            nn.Parameter(torch.ones(channels)),
            nn.Parameter(torch.zeros(channels)),
        )
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.get_buffer("running_mean"), self.get_buffer("running_var")
        if self.training:
            kept = mean, variance
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            with torch.no_grad():
                for buffer, new in zip(kept, (mean, variance), strict=True):
                    buffer.lerp_(new, 0.1)
        x = (x - mean[:, None, None]) * (variance[:, None, None] + 1e-5).rsqrt()
        return x * self.scale[:, None, None] + self.shift[:, None, None]


class Activates(nn.BatchNorm2d):
    """As timm's BatchNormAct2d."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(super().forward(x))


class Sum(nn.Module):
    """x + f(x), with a projection where shapes differ."""

    def __init__(self, body: nn.Module, way: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.way = body, way or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.way(x) + self.body(x)  # type: ignore[no-any-return]


class Concatenated(nn.Module):
    """x beside f(x), as in a DenseNet."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


class Twice(nn.Module):
    """The same layers for a picture and its mirror image."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.body(x.flip(3))  # type: ignore[no-any-return]


def conv(inputs: int, outputs: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, groups=groups, bias=False)


def head(channels: int, *before: nn.Module) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(2), nn.Flatten(), *before, nn.Linear(4 * channels, 10)]


def plain(width: int, *norms: Norm, act: type[nn.Module] = nn.ReLU) -> list[nn.Module]:
    """Three convolutions, each with the next kind of normalization."""
    layers: list[nn.Module] = []
    channels = [1, width, 2 * width, 4 * width]
    for k in range(3):
        norm = norms[k % len(norms)](channels[k + 1])
        layers += [conv(channels[k], channels[k + 1], 2), norm, act()]
    return layers


def residual(width: int, *, before: bool = False) -> list[nn.Module]:
    """A stem and two blocks, with normalization before the convolutions or after them."""

    def block(n: int, m: int) -> nn.Module:
        one, other = conv(n, m, 2), conv(m, m)
        if before:
            body = [nn.BatchNorm2d(n), nn.ReLU(), one, nn.BatchNorm2d(m), nn.ReLU(), other]
            return Sum(nn.Sequential(*body), nn.Conv2d(n, m, 1, 2))
        body = [one, nn.BatchNorm2d(m), nn.ReLU(), other, nn.BatchNorm2d(m)]
        way = nn.Sequential(nn.Conv2d(n, m, 1, 2, bias=False), nn.BatchNorm2d(m))
        return nn.Sequential(Sum(nn.Sequential(*body), way), nn.ReLU())

    blocks = [block(width, 2 * width), block(2 * width, 4 * width)]
    end = [nn.BatchNorm2d(4 * width), nn.ReLU()] if before else []
    return [conv(1, width, 2), nn.BatchNorm2d(width), nn.ReLU(), *blocks, *end]


def separable(width: int) -> list[nn.Module]:
    layers: list[nn.Module] = [conv(1, width, 2), nn.BatchNorm2d(width), nn.Hardswish()]
    for n in (width, 2 * width):
        layers += [conv(n, n, 2, groups=n), nn.BatchNorm2d(n), nn.Hardswish()]
        layers += [nn.Conv2d(n, 2 * n, 1, bias=False), nn.BatchNorm2d(2 * n), nn.Hardswish()]
    return layers


def dense(width: int) -> list[nn.Module]:
    def part(n: int) -> nn.Module:
        return Concatenated(nn.Sequential(nn.BatchNorm2d(n), nn.ReLU(), conv(n, width)))

    return [
        conv(1, 2 * width, 4),
        part(2 * width),
        part(3 * width),
        nn.BatchNorm2d(4 * width),
        nn.ReLU(),
    ]


def pooled(width: int) -> list[nn.Module]:
    """As a VGG, activation before normalization."""
    layers: list[nn.Module] = [nn.MaxPool2d(2)]
    channels = [1, width, 2 * width, 4 * width]
    for n, m in pairwise(channels):
        layers += [nn.Conv2d(n, m, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(m), nn.MaxPool2d(2)]
    return layers


def perceptron(width: int) -> list[nn.Module]:
    n = 8 * width
    return [
        nn.Flatten(), nn.Linear(784, n), nn.BatchNorm1d(n), nn.ReLU(),
        nn.Linear(n, n), nn.BatchNorm1d(n), nn.ReLU(), nn.Linear(n, 10),
    ]  # fmt: skip


def groups(channels: int) -> nn.Module:
    return nn.GroupNorm(4, channels)


BN, IN = nn.BatchNorm2d, nn.InstanceNorm2d

KINDS: dict[str, Callable[[int], list[nn.Module]]] = {
    "plain": lambda n: [*plain(n, BN), *head(4 * n)],
    "GELU": lambda n: [*plain(n, BN, act=nn.GELU), *head(4 * n)],
    "dropout at the end": lambda n: [*plain(n, BN), *head(4 * n, nn.Dropout(0.3))],
    "residual": lambda n: [*residual(n), *head(4 * n)],
    "residual, normalized before": lambda n: [*residual(n, before=True), *head(4 * n)],
    "separable": lambda n: [*separable(n), *head(4 * n)],
    "dense": lambda n: [*dense(n), *head(4 * n)],
    "pooled": lambda n: [*pooled(n), nn.Flatten(), nn.Linear(4 * n, 10)],
    "perceptron": perceptron,
    "GroupNorm between": lambda n: [*plain(n, BN, groups), *head(4 * n)],
    "InstanceNorm between": lambda n: [*plain(n, BN, IN, BN), *head(4 * n)],
    "by hand": lambda n: [*plain(n, ByHand), *head(4 * n)],
    "activating": lambda n: [*plain(n, Activates, act=nn.Identity), *head(4 * n)],
    "two views": lambda n: [Twice(nn.Sequential(*plain(n, BN))), *head(4 * n)],
    "GroupNorm": lambda n: [*plain(n, groups), *head(4 * n)],
}


@dataclass(frozen=True, slots=True)
class Case:
    """A network, how it was trained, and the batches of its loaders."""

    model: nn.Module
    says: str
    train: list[Batch]
    evaluation: list[Batch]


def batches(x: Tensor, y: Tensor, size: int) -> list[Batch]:
    return list(zip(x.split(size), y.split(size), strict=True))  # type: ignore[no-untyped-call]


def healthy(seed: int, *, steps: int, sizes: tuple[int, ...], images: int) -> Case:
    """A network that has learned in so many steps at momentum 0.1; its running statistics are those
    of its last weights."""
    chance = random.Random(seed)
    kind, width, size = chance.choice([*KINDS]), chance.choice([8, 12]), chance.choice(sizes)
    adam, rate = chance.random() < 0.5, chance.choice([0.5, 1.0])
    torch.manual_seed(seed)
    model = nn.Sequential(*KINDS[kind](width)).train()
    x, y, x_eval, y_eval = pictures()
    order = torch.randperm(TRAINED_ON)
    x, y = x[order], y[order]
    optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    if adam:
        optimizer = torch.optim.AdamW(model.parameters(), 0.005)
    rate *= cast(float, optimizer.param_groups[0]["lr"])
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - k / steps)
        at = k * size % (len(y) - size)
        optimizer.zero_grad()
        F.cross_entropy(model(x[at : at + size]), y[at : at + size]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    says = f"{kind}, width {width}, batches of {size}, {'AdamW' if adam else 'SGD'} {rate:g}"
    chosen = torch.randperm(len(y_eval))[:images]
    evaluation = batches(x_eval[chosen], y_eval[chosen], 64)
    return Case(model, says, batches(x[:images].clone(), y[:images], size), evaluation)
