"""What the layers written here share: statistics of sets of values, and the gradient through them.

Every layer divides by the root of a mean over a set of values: one channel of a chunk of images, or
a group of channels of one image. x is cut into K blocks of images in a row, and its C channels into
G groups; block k and group g make one set of (values in x) / (K·G) values. Ghost: K chunks, G = C.
Group: K = N. Instance: K = N, G = C. Layer: K = N, G = 1.

Here are these sets (`Sets`), the memory layout in which they are summed (`as_lines`), the function
that subtracts the mean (`Centered`: GhostBatchNorm, GroupNorm, InstanceNorm), and the rules that
several layers share. A function that only one layer needs stands in that layer's file.

Two habits keep this near the speed of torch's kernels on a CPU. Images are (K, L, W·C): lines of
memory as channels-last has them, and a value per channel is written W times in a row to match a
line. torch's loops run along the last axis, and 8 channels alone are too short for them (four times
slower). And each direction allocates one tensor of the size of x: the first write to fresh memory
costs ten times the arithmetic, so every later pass works in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bnbench.errors import ArgumentError

SHORT = 16  # with fewer channels than this, a line is a row of pixels; else a pixel (measured)


# --- sets of values and their layout --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sets:
    """The sets of x (N, C, …) that share statistics; each has `size` values."""

    blocks: int  # K
    groups: int  # G
    channels: int  # C
    size: int

    @classmethod
    def of(cls, x: Tensor, *, blocks: int, groups: int) -> Sets:
        """K blocks of images × G groups of channels."""
        return cls(blocks, groups, x.shape[1], x.numel() // (blocks * groups))

    def sums(self, lines: Tensor) -> Tensor:
        """(K, L, W·C) summed by block and channel: (K, C)."""
        return lines.reshape(lines.shape[0], -1, self.channels).sum(1)

    def means(self, sums: Tensor) -> Tensor:
        """Sums by block and channel (K, C) → each channel's mean over its set: (K, C)."""
        if self.groups == self.channels:
            return sums / self.size
        K, C = sums.shape
        means = sums.view(K, self.groups, -1).sum(2, keepdim=True) / self.size
        return means.expand(K, self.groups, C // self.groups).reshape(K, C)

    def center(self, lines: Tensor) -> tuple[Tensor, Tensor]:
        """The means of the sets, by channel (K, C); and x minus them, in a new tensor.

        The mean of what is left corrects the mean, whose sum loses digits: around 100, its error
        would be twice that of torch's kernels, which add in double precision.
        """
        mean = self.means(self.sums(lines))
        centered = lines - repeated(mean, lines)
        return mean + self.means(self.sums(centered)), centered


def as_lines(x: Tensor, blocks: int) -> Tensor:
    """(N, C) or (N, C, H, W) as (K, L, W·C), in fp32 at least; a view where x is channels-last.

    bf16 has 8 bits for a mean, so statistics of half precision are taken in fp32, as torch does.
    """
    if x.dtype in (torch.bfloat16, torch.float16):
        x = x.float()
    C = x.shape[1]
    if x.ndim == 2:
        return x.reshape(blocks, -1, C)
    return x.permute(0, 2, 3, 1).reshape(blocks, -1, C if C >= SHORT else x.shape[3] * C)


def as_images(lines: Tensor, like: Tensor) -> Tensor:
    """Lines back in the shape, dtype and memory format of `like`."""
    if like.ndim == 2:
        return lines.reshape(like.shape).to(like.dtype)
    N, C, H, W = like.shape
    images = lines.view(N, H, W, C).permute(0, 3, 1, 2).to(like.dtype)
    if like.is_contiguous(memory_format=torch.channels_last):
        return images
    return images.contiguous()


def repeated(values: Tensor, lines: Tensor) -> Tensor:
    """(C,) or (K, C) as (1 or K, 1, W·C): each line of W pixels finds its channels' values."""
    rows = values.view(-1, 1, values.shape[-1])
    times = lines.shape[2] // rows.shape[2]
    return rows if times == 1 else rows.expand(-1, times, -1).reshape(len(rows), 1, -1)


# --- subtracting the mean and dividing by the standard deviation ----------------------------


class Centered(torch.autograd.Function):
    """y = γ·x̂ + β, x̂ = s·(x − μ), s = 1/√(σ² + ε), with μ and the biased σ² of x's set.

    x (N, C) or (N, C, H, W); γ, β (C,) or None. Returns y, and μ and σ² by block and channel
    (K, C), which carry no gradient. With g = γ·∂L/∂y and ⟨·⟩ the mean over a set:

        ∂L/∂x = s·(g − ⟨g⟩ − x̂·⟨g·x̂⟩),   ∂L/∂γ = Σ x̂·∂L/∂y,   ∂L/∂β = Σ ∂L/∂y

    Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167, section 3, solved for ∂L/∂x. First
    derivatives only. The variance takes two passes, for ⟨x²⟩ − ⟨x⟩² would cancel where the mean is
    large. y is then γs·x + (β − γs·μ), as in torch's kernel, and ∂L/∂x is one line in x as well.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, sets: Sets, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        lines = as_lines(x, sets.blocks)
        mean, y = sets.center(lines)
        variance = sets.means(sets.sums(y.square_()))
        scale = (variance + eps).rsqrt_()
        slope = scale if weight is None else scale * weight
        offset = -mean * slope if bias is None else bias.addcmul(mean, slope, value=-1)
        torch.addcmul(repeated(offset, lines), lines, repeated(slope, lines), out=y)
        ctx.save_for_backward(x, mean, scale, slope, weight)
        ctx.sets, ctx.with_bias = sets, bias is not None
        ctx.mark_non_differentiable(mean, variance)
        return as_images(y, x), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, scale, slope, weight = ctx.saved_tensors
        sets: Sets = ctx.sets
        lines, above = as_lines(x, sets.blocks), as_lines(above, sets.blocks)
        given = (lines - repeated(mean, lines)).mul_(above)
        sums, products = sets.sums(above), sets.sums(given).mul_(scale)  # Σ ∂L/∂y, Σ x̂·∂L/∂y
        for_bias = sums.sum(0) if ctx.with_bias else None
        for_weight = None if weight is None else products.sum(0)
        if weight is not None:
            sums, products = sums * weight, products * weight
        # ∂L/∂x = slope·∂L/∂y + curve·x + offset
        curve = scale.square().mul_(-sets.means(products))
        offset = (scale * -sets.means(sums)).addcmul_(curve, mean, value=-1)
        torch.addcmul(repeated(offset, lines), lines, repeated(curve, lines), out=given)
        given.addcmul_(above, repeated(slope, lines))
        return as_images(given, x), for_weight, for_bias, None, None


# --- rules and parameters that layers share -------------------------------------------------


class ImageNorm(nn.Module):
    """What the layers have in common that normalize each image by itself: γ = 1 and β = 0, (C,)."""

    def __init__(self, channels: int, *, eps: float, affine: bool = True) -> None:
        super().__init__()
        self.channels, self.eps, self.affine = channels, eps, affine
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}, affine={self.affine}"


def check_channels(x: Tensor, channels: int) -> None:
    """Refuse what is not (N, C) or (N, C, H, W) with this C."""
    if x.ndim not in (2, 4):
        raise ValueError(f"expected (N, C) or (N, C, H, W), not {tuple(x.shape)}")
    if x.shape[1] != channels:
        raise ValueError(f"expected {channels} channels, not {x.shape[1]}: {tuple(x.shape)}")


def check_groups(channels: int, groups: int) -> None:
    """Raise ArgumentError where the groups do not divide the channels."""
    if channels % groups:
        raise ArgumentError(
            f"{_counted(channels, 'channel')} do not split into {groups} groups", argument="groups"
        )


def check_group_values(shape: torch.Size, groups: int) -> None:
    """Raise ArgumentError where each group of channels of an image has one value."""
    if shape[1:].numel() == groups:
        raise ArgumentError(
            f"{_counted(shape[1], 'channel')} in {_counted(groups, 'group')} on a 1×1 map leave "
            "one value per group",
            argument="groups",
        )


def check_image_values(shape: torch.Size, norm: str) -> None:
    """Raise ArgumentError where an image is one value."""
    if shape[1:].numel() == 1:
        raise ArgumentError(
            f"1 channel on a 1×1 map leaves {norm} norm one value", argument="channels"
        )


def check_positions(shape: torch.Size, norm: str) -> None:
    """Raise ArgumentError where a channel of an image has one value."""
    if shape[2:].numel() == 1:
        raise ArgumentError(
            f"on a 1×1 map {norm} norm has one value per channel",
            argument="kind",
            hint="batch, group and layer norm share statistics between images or channels",
        )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
