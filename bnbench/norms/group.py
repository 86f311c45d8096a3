"""Normalization of each image by its own statistics over groups of channels.

No layer here has running statistics: training and eval mode are the same function.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from bnbench.norms.moments import Centered, ImageNorm, Sets, as_images, as_lines, divided, repeated


class GroupNorm(ImageNorm):
    """Normalize each image over groups of channels and all positions.

        x̂ = (x − μ_ng) / √(σ²_ng + ε),   y = γ·x̂ + β

    x is (N, C) or (N, C, H, W); μ_ng, σ²_ng are taken over the C/G channels of group g and over
    (H, W), for each image n, σ² biased. γ, β: (C,). It computes with torch's function, and keeps
    the precision of one memory format in the other.

    Raises ArgumentError where the groups do not divide the channels, and where a group is one
    value, which is its own mean: every output would be β.

    Source: Wu & He 2018, https://arxiv.org/abs/1803.08494, Eq. 7.
    """

    argument, hint = "groups", None

    def __init__(
        self, channels: int, *, groups: int, eps: float = 1e-5, affine: bool = True
    ) -> None:
        super().__init__(channels, groups=groups, eps=eps, affine=affine)

    def forward(self, input: Tensor) -> Tensor:
        sets = self.sets(input.shape)
        # torch's CPU kernel for channels-last takes E[x²] − E[x]²: off by 1 % at a mean of 100
        # standard deviations. Elsewhere, images flattened to (N, C, H·W) go to the other one.
        if input.is_cpu and input.ndim == 4 and not input.is_contiguous():
            y, *_ = Centered.apply(input, self.weight, self.bias, sets, self.eps)
            return cast(Tensor, y)
        flat = input.flatten(2) if input.ndim == 4 else input
        y = F.group_norm(flat, self.groups, self.weight, self.bias, self.eps).view(input.shape)
        if input.ndim == 4 and input.is_contiguous(memory_format=torch.channels_last):
            return y.contiguous(memory_format=torch.channels_last)
        return y


class LayerNorm(GroupNorm):
    """Normalize each image over all channels and positions: GroupNorm with one group.

        x̂ = (x − μ_n) / √(σ²_n + ε),   y = γ·x̂ + β

    x is (N, C) or (N, C, H, W); μ_n, σ²_n over (C, H, W), biased. γ, β: (C,), one pair a channel:
    a pair for every position would be another model.

    Source: Ba, Kiros & Hinton 2016, https://arxiv.org/abs/1607.06450; for images as in Wu & He
    2018, https://arxiv.org/abs/1803.08494, section 3.1.
    """

    argument, hint = "channels", None

    def __init__(self, channels: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(channels, groups=1, eps=eps, affine=affine)


class InstanceNorm(ImageNorm):
    """Normalize each channel of each image over its positions: GroupNorm, one channel a group.

        x̂ = (x − μ_nc) / √(σ²_nc + ε),   y = γ·x̂ + β

    x is (N, C, H, W); μ_nc, σ²_nc are taken over (H, W), σ² biased. γ, β: (C,).

    Raises ArgumentError where a channel has one position, as in (N, C): each value is its own mean,
    and every output would be β.

    Source: Ulyanov, Vedaldi & Lempitsky 2016, https://arxiv.org/abs/1607.08022.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(channels, groups=channels, eps=eps, affine=affine)

    def forward(self, input: Tensor) -> Tensor:
        y, *_ = Centered.apply(input, self.weight, self.bias, self.sets(input.shape), self.eps)
        return cast(Tensor, y)


class RMSNorm(ImageNorm):
    """Divide each image by the root of its mean square: LayerNorm without the mean.

        x̂ = x / √(mean_CHW(x²) + ε),   y = γ·x̂ + β

    x is (N, C) or (N, C, H, W); the mean is taken over (C, H, W) for each image n. γ, β: (C,). The
    paper has no β; it is kept here, so that LayerNorm and this layer differ by the mean alone.

    Raises ArgumentError where an image is one value: the output would be its sign.

    Source: Zhang & Sennrich 2019, https://arxiv.org/abs/1910.07467, Eq. 4.
    """

    argument, hint = "channels", None

    def __init__(self, channels: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(channels, groups=1, eps=eps, affine=affine)

    def forward(self, input: Tensor) -> Tensor:
        y = _Divided.apply(input, self.weight, self.bias, self.sets(input.shape), self.eps)
        return cast(Tensor, y)


class _Divided(torch.autograd.Function):
    """RMSNorm: y = γ·x̂ + β, x̂ = s·x, s = 1/√(⟨x²⟩ + ε).

    With g = γ·∂L/∂y: ∂L/∂x = s·(g − x̂·⟨g·x̂⟩), ∂L/∂γ = Σ x̂·∂L/∂y, ∂L/∂β = Σ ∂L/∂y. First
    derivatives only.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, sets: Sets, eps: float
    ) -> Tensor:
        y, scale, slope = divided(as_lines(x, sets.blocks), weight, bias, sets, eps)
        ctx.save_for_backward(x, scale, slope, weight)
        ctx.sets, ctx.with_bias = sets, bias is not None
        return as_images(y, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, slope, weight = ctx.saved_tensors
        sets: Sets = ctx.sets
        lines, above = as_lines(x, sets.blocks), as_lines(above, sets.blocks)
        given = above * lines
        products = sets.sums(given).mul_(scale)  # Σ x̂·∂L/∂y
        for_bias = sets.sums(above).sum(0) if ctx.with_bias else None
        for_weight = None if weight is None else products.sum(0)
        if weight is not None:
            products = products * weight
        curve = scale.square().mul_(-sets.means(products))
        torch.mul(above, repeated(slope, lines), out=given)
        given.addcmul_(lines, repeated(curve, lines))
        return as_images(given, x), for_weight, for_bias, None, None
