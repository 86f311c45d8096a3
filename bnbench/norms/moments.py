"""What the layers written here share: statistics of sets of values, and the gradient through them.

Every layer divides by the root of a mean over a set of values: one channel of a chunk of images, or
a group of channels of one image. x is cut into K blocks of images in a row, and its C channels into
G groups; block k and group g make one set. Ghost: K chunks, G = C. Group: K = N. Instance: K = N,
G = C. Layer: K = N, G = 1.

`Sets` are these sets and their sums, `as_lines` is the memory layout for them, `Centered` subtracts
the mean (ghost, group and instance norm). A gradient that one layer alone needs is in its file.

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
    def of(
        cls, shape: torch.Size, *, blocks: int, groups: int, argument: str, hint: str | None = None
    ) -> Sets:
        """The sets of an input of this shape. Raises ArgumentError where a set is one value.

        `argument` of the layer is what to change then: one value is its own mean.
        """
        size = shape.numel() // (blocks * groups)
        if size == 1:
            message = "1 channel of 1 image on a 1×1 map leaves one value per statistic"
            raise ArgumentError(message, argument=argument, hint=hint)
        return cls(blocks, groups, shape[1], size)

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
    if not like.is_contiguous(memory_format=torch.channels_last):
        images = images.contiguous()
    if torch.is_grad_enabled() or not images._is_view():
        return images
    # An autograd Function may not return a view: the next layer could not change it in place.
    return images.new_empty(0).set_(images)  # type: ignore[call-overload, no-any-return]


def divided(
    lines: Tensor, weight: Tensor | None, bias: Tensor | None, sets: Sets, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """y = γ·s·x + β with s = 1/√(⟨x²⟩ + ε), in a new tensor; s and γ·s, (K, C)."""
    y = lines.square()
    scale = (sets.means(sets.sums(y)) + eps).rsqrt_()
    slope = scale if weight is None else scale * weight
    if bias is None:
        torch.mul(lines, repeated(slope, lines), out=y)
    else:
        torch.addcmul(repeated(bias, lines), lines, repeated(slope, lines), out=y)
    return y, scale, slope


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


# --- what layers share ----------------------------------------------------------------------


class ImageNorm(nn.Module):
    """Layers that normalize each image by itself, over `groups` of channels; γ = 1, β = 0: (C,)."""

    argument = "kind"
    hint: str | None = "batch, group and layer norm share statistics between images or channels"

    def __init__(self, channels: int, *, groups: int, eps: float, affine: bool = True) -> None:
        super().__init__()
        if channels % groups:
            s = "" if channels == 1 else "s"
            message = f"{channels} channel{s} do not split into {groups} groups"
            raise ArgumentError(message, argument="groups")
        self.channels, self.groups, self.eps, self.affine = channels, groups, eps, affine
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def sets(self, shape: torch.Size) -> Sets:
        """What shares statistics in an input of this shape. Raises ArgumentError, see `Sets.of`."""
        check_channels(shape, self.channels)
        return Sets.of(
            shape, blocks=shape[0], groups=self.groups, argument=self.argument, hint=self.hint
        )

    def extra_repr(self) -> str:
        return f"{self.channels}, groups={self.groups}, eps={self.eps}, affine={self.affine}"


def check_rank(shape: torch.Size) -> None:
    """Refuse what is not (N, C) or (N, C, H, W)."""
    if len(shape) not in (2, 4):
        raise ValueError(f"expected (N, C) or (N, C, H, W), not {tuple(shape)}")


def check_channels(shape: torch.Size, channels: int) -> None:
    """Refuse what is not (N, C) or (N, C, H, W) with this C."""
    check_rank(shape)
    if shape[1] != channels:
        raise ValueError(f"expected {channels} channels, not {shape[1]}: {tuple(shape)}")
