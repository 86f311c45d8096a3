"""A normalization and a network as a user writes them, for `kind: custom`."""

from __future__ import annotations

from collections.abc import Callable

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
