"""What the layers written here share: statistics of sets of values, and the gradient through them.

Every layer of this room divides by the root of a mean over a set of values: one channel of a
chunk of images, or a group of channels of one image. A set is named by two numbers. x is cut
into K blocks of images in a row, and the C channels into G groups; block k and group g make one
set of m = (values in x) / (K·G) values. Batch: K = 1, G = C. Ghost: K chunks, G = C. Group: K = N.
Instance: K = N, G = C. Layer: K = N, G = 1.

Two habits keep this near the speed of torch's kernels on a CPU. Images are (K, L, W·C): lines of
memory as channels-last has them, and a value per channel is written W times in a row to match a
line, for torch's loops run along the last axis, and 8 channels alone are too short for them (four
times slower). And each direction allocates one tensor of the size of x: the first write to fresh
memory costs ten times the arithmetic, so every later pass works in place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bnbench.errors import ArgumentError

SHORT = 16  # with fewer channels than this, a line is a row of pixels; else a pixel (measured)


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


def channel_sums(lines: Tensor, channels: int) -> Tensor:
    """(K, L, W·C) summed by block and channel: (K, C)."""
    return lines.reshape(lines.shape[0], -1, channels).sum(1)


def set_means(sums: Tensor, groups: int, count: int) -> Tensor:
    """Sums by channel (K, C) → means of sets of `count` values, given to each channel: (K, C)."""
    K, C = sums.shape
    if groups == C:
        return sums / count
    means = sums.view(K, groups, -1).sum(2, keepdim=True) / count
    return means.expand(K, groups, C // groups).reshape(K, C)


def center(lines: Tensor, channels: int, groups: int, count: int) -> tuple[Tensor, Tensor]:
    """By channel (K, C), the mean of its set; and x minus that, in a new tensor.

    The mean of what is left corrects the mean, whose sum loses digits: around 100, its error
    would be twice that of torch's kernels, which add in double precision.
    """
    mean = set_means(channel_sums(lines, channels), groups, count)
    centered = lines - repeated(mean, lines)
    return mean + set_means(channel_sums(centered, channels), groups, count), centered


class Normalized(torch.autograd.Function):
    """y = γ·(x − μ)·s + β, s = 1/√(⟨(x − μ)²⟩ + ε), where μ = ⟨x⟩ is the mean over x's set, or 0.

    Arguments: x (N, C) or (N, C, H, W); γ, β: (C,) or None; τ: (C,) or None, a floor under y; K; G;
    ε; whether to subtract μ. Returns y, μ (or None) and the biased variance ⟨(x − μ)²⟩, both
    (K, C), which carry no gradient. With g = γ·∂L/∂y and x̂ = s·(x − μ):

        ∂L/∂x = s·(g − ⟨g⟩ − x̂·⟨g·x̂⟩),   ∂L/∂γ = Σ x̂·∂L/∂y,   ∂L/∂β = Σ ∂L/∂y

    without ⟨g⟩ where μ is not subtracted; where y ≤ τ, ∂L/∂y goes to τ. Ioffe & Szegedy 2015,
    https://arxiv.org/abs/1502.03167, section 3, solved for ∂L/∂x. First derivatives only.

    The variance takes two passes, for ⟨x²⟩ − ⟨x⟩² would cancel where the mean is large. y is then
    γs·x + (β − γs·μ), as torch's kernel has it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        floor: Tensor | None,
        blocks: int,
        groups: int,
        eps: float,
        subtract: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        C = x.shape[1]
        lines = as_lines(x, blocks)
        count = x.numel() // (blocks * groups)
        mean: Tensor | None = None
        if subtract:
            mean, y = center(lines, C, groups, count)
            y.square_()
        else:
            y = lines.square()
        variance = set_means(channel_sums(y, C), groups, count)
        scale = (variance + eps).rsqrt_()
        slope = scale if weight is None else scale * weight
        offset = bias
        if mean is not None:
            offset = -mean * slope if bias is None else bias.addcmul(mean, slope, value=-1)
        if offset is None:
            torch.mul(lines, repeated(slope, lines), out=y)
        else:
            torch.addcmul(repeated(offset, lines), lines, repeated(slope, lines), out=y)
        if floor is not None:
            torch.maximum(y, repeated(floor, y), out=y)
        y = as_images(y, x)
        ctx.save_for_backward(x, mean, scale, slope, weight, floor, None if floor is None else y)
        ctx.blocks, ctx.groups, ctx.count, ctx.with_bias = blocks, groups, count, bias is not None
        ctx.mark_non_differentiable(variance, *([] if mean is None else [mean]))
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, scale, slope, weight, floor, z = ctx.saved_tensors
        C, groups, count = x.shape[1], ctx.groups, ctx.count
        lines, above = as_lines(x, ctx.blocks), as_lines(above, ctx.blocks)
        sums = channel_sums(above, C)
        for_floor = None
        if floor is not None:
            # As numbers 0 and 1: comparing and multiplying by booleans takes five times as long.
            # In z's dtype: a floor that bf16 rounds up would otherwise lie below its own outputs.
            least = floor.to(z.dtype)
            z = as_lines(z, ctx.blocks)
            least = repeated(least.to(z.dtype), z)
            given = torch.gt(z, least, out=torch.empty_like(z)).mul_(above)
            passed = channel_sums(given, C)
            for_floor, sums = (sums - passed).sum(0), passed
            given.mul_(lines)
        elif mean is None:
            given = above * lines
        else:
            given = (lines - repeated(mean, lines)).mul_(above)
        products = channel_sums(given, C).mul_(scale)
        for_weight = None if weight is None else products.sum(0)
        for_bias = sums.sum(0) if ctx.with_bias else None
        if weight is not None:
            sums, products = sums * weight, products * weight
        curve = scale.square().mul_(set_means(products, groups, -count))
        if mean is not None:
            offset = (scale * set_means(sums, groups, -count)).addcmul_(curve, mean, value=-1)
            torch.addcmul(repeated(offset, lines), lines, repeated(curve, lines), out=given)
            given.addcmul_(above, repeated(slope, lines))
        elif floor is not None:
            torch.gt(z, least, out=given).mul_(above).mul_(repeated(slope, lines))
            given.addcmul_(lines, repeated(curve, lines))
        else:
            torch.mul(above, repeated(slope, lines), out=given)
            given.addcmul_(lines, repeated(curve, lines))
        return as_images(given, x), for_weight, for_bias, for_floor, None, None, None, None
