"""Normalization and activation in one: FilterResponseNorm and EvoNormS0. No activation follows."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bnbench.norms.moments import (
    Normalized,
    as_images,
    as_lines,
    center,
    channel_sums,
    check_channels,
    check_group_values,
    check_groups,
    check_positions,
    repeated,
    set_means,
)


class FilterResponseNorm(nn.Module):
    """Filter response normalization and its thresholded linear unit (TLU).

        y = γ·x / √(mean_HW(x²) + ε) + β,   z = max(y, τ)

    x is (N, C, H, W); the mean is taken over (H, W) for each channel of each image. γ, β, τ: (C,),
    γ = 1 and β = τ = 0 at the start; τ is learned without `affine` too. Where y = τ the gradient
    goes to τ. No running statistics: training and eval mode are the same function.

    Raises ArgumentError where a channel has one position, as in (N, C): x / √(x² + ε) is a sign.
    The paper learns ε for those (section 3, on 1×1 maps); here ε is fixed.

    Source: Singh & Krishnan 2020, https://arxiv.org/abs/1911.09737, section 3.
    """

    def __init__(self, channels: int, *, eps: float = 1e-6, affine: bool = True) -> None:
        super().__init__()
        self.channels, self.eps, self.affine = channels, eps, affine
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.threshold = nn.Parameter(torch.zeros(channels))

    def check_shape(self, shape: torch.Size) -> None:
        """Raise ArgumentError where an input of this shape leaves nothing to take statistics of."""
        check_positions(shape, "frn")

    def forward(self, input: Tensor) -> Tensor:
        check_channels(input, self.channels)
        self.check_shape(input.shape)
        N, C = len(input), self.channels
        y, *_ = Normalized.apply(
            input, self.weight, self.bias, self.threshold, N, C, self.eps, False
        )
        return cast(Tensor, y)

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}, affine={self.affine}"


class EvoNormS0(nn.Module):
    """EvoNorm-S0: a gate over the standard deviation of a group, found by architecture search.

        y = γ·x·sigmoid(v·x) / √(σ²_ng + ε) + β

    x is (N, C) or (N, C, H, W); σ²_ng is taken over the C/G channels of group g and over (H, W),
    for each image n, biased (tf.nn.moments in the paper's listing); the mean is not subtracted
    from x. γ, β, v: (C,), γ = v = 1 and β = 0 at the start. No running statistics: training and
    eval mode are the same function.

    Raises ArgumentError where the groups do not divide the channels, and where a group is one
    value: its variance is 0.

    Source: Liu, Brock, Simonyan & Le 2020, https://arxiv.org/abs/2004.02967.
    """

    def __init__(self, channels: int, *, groups: int, eps: float = 1e-5) -> None:
        check_groups(channels, groups)
        super().__init__()
        self.channels, self.groups, self.eps = channels, groups, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.gate = nn.Parameter(torch.ones(channels))  # v in the paper

    def check_shape(self, shape: torch.Size) -> None:
        """Raise ArgumentError where an input of this shape leaves nothing to take statistics of."""
        check_group_values(shape, self.groups)

    def forward(self, input: Tensor) -> Tensor:
        check_channels(input, self.channels)
        self.check_shape(input.shape)
        y = _Gated.apply(input, self.weight, self.bias, self.gate, self.groups, self.eps)
        return cast(Tensor, y)

    def extra_repr(self) -> str:
        return f"{self.channels}, groups={self.groups}, eps={self.eps}"


class _Gated(torch.autograd.Function):
    """EvoNormS0's formula and its gradient.

    With the gate o = sigmoid(v·x), h = x·o, s = 1/√(σ² + ε), g = γ·∂L/∂y and ⟨·⟩ the mean over a
    set:

        ∂L/∂x = s·g·(o + v·x·o·(1 − o)) − s³·(x − μ)·⟨g·h⟩,   ∂L/∂v = Σ s·g·x²·o·(1 − o)

    First derivatives only.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        gate: Tensor,
        groups: int,
        eps: float,
    ) -> Tensor:
        C, count = x.shape[1], x[0].numel() // groups
        lines = as_lines(x, len(x))
        mean, y = center(lines, C, groups, count)  # two passes: ⟨x²⟩ − ⟨x⟩² would cancel
        scale = (set_means(channel_sums(y.square_(), C), groups, count) + eps).rsqrt_()
        slope = scale * weight
        opening = (lines * repeated(gate, lines)).sigmoid_()
        torch.mul(lines, opening, out=y)
        torch.addcmul(repeated(bias, lines), y, repeated(slope, lines), out=y)
        ctx.save_for_backward(x, opening, mean, scale, slope, weight, gate)
        ctx.groups, ctx.count = groups, count
        return as_images(y, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        x, opening, mean, scale, slope, weight, gate = ctx.saved_tensors
        C = x.shape[1]
        lines, above = as_lines(x, len(x)), as_lines(above, len(x))
        for_bias = channel_sums(above, C).sum(0)
        gated = lines * opening
        given = above * gated
        products = channel_sums(given, C).mul_(scale)
        for_weight = products.sum(0)
        bent = gated.addcmul_(gated, opening, value=-1)  # x·o·(1 − o)
        for_gate = channel_sums(torch.mul(bent, lines, out=given).mul_(above), C).mul_(slope).sum(0)
        torch.addcmul(opening, bent, repeated(gate, lines), out=given)
        given.mul_(above).mul_(repeated(slope, lines))
        curve = scale.square().mul_(set_means(products * weight, ctx.groups, ctx.count))
        given.addcmul_(
            torch.sub(lines, repeated(mean, lines), out=bent), repeated(curve, lines), value=-1
        )
        return as_images(given, x), for_weight, for_bias, for_gate, None, None
