"""Generated images for tests and timing: one smooth random pattern per class, plus noise."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bnbench.data.dataset import Dataset, Images, moments, require_memory

# Side of the random grid that becomes a pattern: coarse enough to survive strided convolutions.
_GRID = 4
# Gray levels reach this many standard deviations before they clip (0.3 % of a Gaussian do).
_REACH = 3.0
# Images drawn at a time. Part of what the seed means: another size draws other noise.
DRAWN = 1024


def generate_synthetic(
    *,
    train_images: int,
    test_images: int,
    classes: int,
    channels: int,
    image_size: int,
    noise: float,
    data_seed: int,
) -> Dataset:
    """Balanced classes; image = pattern of its class (standard deviation 1) + noise, as uint8."""
    require_memory(train_images + test_images, channels, image_size)
    generator = torch.Generator().manual_seed(data_seed)
    grid = torch.randn(classes, channels, _GRID, _GRID, generator=generator)
    patterns = F.interpolate(grid, size=(image_size, image_size), mode="bilinear")
    patterns = (patterns - patterns.mean()) / patterns.std(correction=0)
    train = _draw(train_images, patterns, noise, generator)
    test = _draw(test_images, patterns, noise, generator)
    names = tuple(f"class {index}" for index in range(classes))
    return Dataset("synthetic", names, train, test, *moments(train.pixels))


def _draw(count: int, patterns: Tensor, noise: float, generator: torch.Generator) -> Images:
    labels = torch.arange(count) % len(patterns)
    pixels = torch.empty(count, *patterns.shape[1:], dtype=torch.uint8)
    levels = 127.5 / (_REACH * math.sqrt(1 + noise**2))
    for start in range(0, count, DRAWN):
        part = pixels[start : start + DRAWN]
        drawn = torch.randn(part.shape, generator=generator)
        image = patterns[labels[start : start + DRAWN]] + noise * drawn
        part.copy_((127.5 + levels * image).round().clamp(0, 255))
    return Images(pixels, labels)
