"""What a dataset is: uint8 pixels and labels in memory, and the constants that standardize them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Images counted at a time: bounds what `moments` needs in addition to the pixels.
_COUNTED = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """One part of a dataset, resident in memory.

    `pixels` is uint8 (N, C, H, W); `labels` is int64 (N,).
    """

    pixels: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Images:
        """The same images on a device; no copy where they already are there."""
        return Images(self.pixels.to(device), self.labels.to(device))

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Training and test images, the names of the classes, and per-channel moments.

    `mean` and `std` are of all training pixels / 255: the constants that every setup shares.
    """

    name: str
    classes: tuple[str, ...]
    train: Images
    test: Images
    mean: tuple[float, ...]
    std: tuple[float, ...]


def moments(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and biased standard deviation of pixels / 255, per channel, from (N, C, H, W) uint8.

    Counted, not accumulated: 256 integer counts a channel give the sums exactly, so that the
    difference of squares below cancels nothing and every machine gets the same doubles.
    """
    N, C, H, W = pixels.shape
    total = N * H * W
    mean, std = [], []
    for channel in range(C):
        counts = torch.zeros(256, dtype=torch.int64)
        for start in range(0, N, _COUNTED):
            part = pixels[start : start + _COUNTED, channel]
            counts += torch.bincount(part.reshape(-1), minlength=256)
        first = sum(value * count for value, count in enumerate(counts.tolist()))
        second = sum(value * value * count for value, count in enumerate(counts.tolist()))
        mean.append(first / (255 * total))
        std.append(math.sqrt(total * second - first * first) / (255 * total))
    return tuple(mean), tuple(std)
