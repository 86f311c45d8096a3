"""Images that are shifted against those of training: noise, blur, less contrast, more brightness.

Kinds and order of Hendrycks & Dietterich 2019, https://arxiv.org/abs/1903.12261, section 4.1, on
pixels / 255, clipped to [0, 1] and stored as uint8 again; grades are ours, for images of 28 pixels.
"""

from __future__ import annotations

from math import ceil
from typing import Literal, TypeAlias, assert_never, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Kind: TypeAlias = Literal["noise", "blur", "contrast", "brightness"]

GRADES: dict[Kind, tuple[float, ...]] = {
    "noise": (0.1, 0.2, 0.4),  # standard deviation
    "blur": (0.5, 1.0, 2.0),  # standard deviation of the Gaussian, in pixels
    "contrast": (0.6, 0.3, 0.1),  # what is left of the distance from the image's mean
    "brightness": (0.1, 0.3, 0.5),  # added
}
SHIFTS: dict[str, tuple[Kind, float]] = {
    f"{kind}.{grade}": (kind, size)
    for kind in get_args(Kind)
    for grade, size in enumerate(GRADES[kind], start=1)
}


def shifted(pixels: Tensor, kind: Kind, size: float, generator: torch.Generator) -> Tensor:
    """(n, C, H, W) uint8 shifted by `size` of its kind; the noise is drawn from `generator`."""
    x = pixels.cpu().to(torch.float32) / 255
    match kind:
        case "noise":
            x = x + size * torch.randn(x.shape, generator=generator)
        case "blur":
            x = _blurred(x, size)
        case "contrast":
            mean = x.mean((2, 3), keepdim=True)
            x = mean + size * (x - mean)
        case "brightness":
            x = x + size
        case _:
            assert_never(kind)
    return (255 * x.clamp(0, 1)).round().to(torch.uint8)


def _blurred(x: Tensor, deviation: float) -> Tensor:
    """Gaussian, cut at 3 deviations; what is outside of an image is as its border."""
    radius = ceil(3 * deviation)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / deviation).square())
    weights = weights / weights.sum()
    n, C, H, W = x.shape
    x = F.pad(x.reshape(n * C, 1, H, W), (radius,) * 4, mode="replicate")
    x = F.conv2d(F.conv2d(x, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
    return x.view(n, C, H, W)
