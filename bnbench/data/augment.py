"""Random flip and crop of a whole batch, in a handful of tensor operations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# The CIFAR recipe: 4 pixels of padding, a crop of the old size, a flip (He et al. 2015,
# arXiv:1512.03385, section 4.2). As in torchvision's training recipes the padding is black, zero
# before standardization.
PADDING = 4


def flip_crop(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Each image of (n, C, H, W) uint8 shifted by up to 4 pixels each way, and mirrored or not.

    Draws, in this order: n row offsets, n column offsets, n flips. `generator` is a CPU one
    whatever the device of the pixels, so that every device sees the same crops.
    """
    n, C, H, W = pixels.shape
    offsets = 2 * PADDING + 1
    top = torch.randint(offsets, (n, 1), generator=generator)
    left = torch.randint(offsets, (n, 1), generator=generator)
    flip = torch.randint(2, (n, 1), generator=generator).bool()
    across = torch.arange(W)
    rows = (top + torch.arange(H)).to(pixels.device)  # (n, H)
    columns = (left + torch.where(flip, across.flip(0), across)).to(pixels.device)  # (n, W)
    padded = F.pad(pixels, (PADDING,) * 4)
    # One flat index per output pixel of a channel: a single gather instead of two.
    places = rows[:, :, None] * (W + 2 * PADDING) + columns[:, None, :]  # (n, H, W)
    flat = padded.flatten(2)  # (n, C, (H+8)·(W+8))
    return flat.gather(2, places.reshape(n, 1, H * W).expand(n, C, H * W)).view(n, C, H, W)
