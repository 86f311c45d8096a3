"""A normalization and a network as a user writes them, for `kind: custom`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn


class PeakNorm(nn.Module):
    """Divide each image by its largest absolute value; learn a scale per channel."""

    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x / (x.abs().amax((1, 2, 3), keepdim=True) + self.eps)


class Slow(nn.BatchNorm2d):
    """BatchNorm that takes its time, and no core, for each training step but the first `quick` ones
    of a process, for as long as a file is there: such a run does not end before it is disturbed."""

    def __init__(self, channels: int, *, file: str, quick: int) -> None:
        super().__init__(channels)
        self._file, self._quick = Path(file), quick

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            self._quick -= 1
            if self._quick < 0 and self._file.exists():
                time.sleep(0.2)
        return super().forward(x)


class TwoLayers(nn.Module):
    """Two convolutions and a head."""

    def __init__(
        self,
        *,
        in_channels: int,
        classes: int,
        make_norm: Callable[[int], nn.Module],
        width: int = 8,
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, stride=2, bias=False),
            make_norm(width),
            nn.Sigmoid(),
            nn.Conv2d(width, width, 3, bias=False),
            make_norm(width),
            nn.Sigmoid(),
        )
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(x).mean((2, 3)))
        return logits


class SmallUNet(nn.Module):
    """One step down, one up, with a skip; its convolutions have no biases."""

    def __init__(self, in_channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.down = block(in_channels, width)
        self.bottom = block(width, 2 * width, stride=2)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2, bias=False)
        self.up_norm = nn.BatchNorm2d(width)
        self.out = block(2 * width, width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        up = self.up_norm(self.up(self.bottom(skip)))
        logits: Tensor = self.head(self.out(torch.cat([skip, up], 1)).mean((2, 3)))
        return logits


def block(inner: int, outer: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outer),
        nn.Sigmoid(),
    )


def build_small_unet(*, in_channels: int, classes: int, width: int = 4) -> nn.Module:
    """A network that knows nothing of other norms than BatchNorm."""
    return SmallUNet(in_channels, classes, width)
