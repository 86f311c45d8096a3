"""Normalization and activation in one: FilterResponseNorm and EvoNormS0. No activation follows.

No layer here has running statistics: training and eval mode are the same function.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bnbench.norms.moments import ImageNorm, Sets, as_images, as_lines, divided, repeated


class FilterResponseNorm(ImageNorm):
    """Filter response normalization and its thresholded linear unit (TLU).

        y = γ·x / √(mean_HW(x²) + ε) + β,   z = max(y, τ)

    x is (N, C, H, W); the mean is taken over (H, W) for each channel of each image. γ, β, τ: (C,),
    γ = 1 and β = τ = 0 at the start; τ is learned without `affine` too. Where y = τ the gradient
    goes to τ.

    Raises ArgumentError where a channel has one position, as in (N, C): x / √(x² + ε) is a sign.
    The paper learns ε for those (section 3, on 1×1 maps); here ε is fixed.

    Source: Singh & Krishnan 2020, https://arxiv.org/abs/1911.09737, section 3.
    """

    def __init__(self, channels: int, *, eps: float = 1e-6, affine: bool = True) -> None:
        super().__init__(channels, groups=channels, eps=eps, affine=affine)
        self.threshold = nn.Parameter(torch.zeros(channels))

    def forward(self, input: Tensor) -> Tensor:
        sets = self.sets(input.shape)
        y = _Thresholded.apply(input, self.weight, self.bias, self.threshold, sets, self.eps)
        return cast(Tensor, y)


class _Thresholded(torch.autograd.Function):
    """FilterResponseNorm: z = max(y, τ), y = γ·x̂ + β, x̂ = s·x, s = 1/√(⟨x²⟩ + ε).

    With ∂L/∂y = ∂L/∂z where z > τ, else 0, and g = γ·∂L/∂y:

        ∂L/∂x = s·(g − x̂·⟨g·x̂⟩),   ∂L/∂γ = Σ x̂·∂L/∂y,   ∂L/∂β = Σ ∂L/∂y,   ∂L/∂τ = Σ (∂L/∂z − ∂L/∂y)

    First derivatives only.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        threshold: Tensor,
        sets: Sets,
        eps: float,
    ) -> Tensor:
        y, scale, slope = divided(as_lines(x, sets.blocks), weight, bias, sets, eps)
        torch.maximum(y, repeated(threshold, y), out=y)
        z = as_images(y, x)
        ctx.save_for_backward(x, z, scale, slope, weight, threshold)
        ctx.sets, ctx.with_bias = sets, bias is not None
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        x, z, scale, slope, weight, threshold = ctx.saved_tensors
        sets: Sets = ctx.sets
        lines, above = as_lines(x, sets.blocks), as_lines(above, sets.blocks)
        # In z's dtype first: a threshold that bf16 rounds up would be above its own outputs.
        least = threshold.to(z.dtype)
        z = as_lines(z, sets.blocks)
        least = repeated(least.to(z.dtype), z)
        # As numbers 0 and 1: comparing and multiplying by booleans takes five times as long.
        given = torch.gt(z, least, out=torch.empty_like(z)).mul_(above)  # ∂L/∂y
        sums = sets.sums(given)
        for_threshold = (sets.sums(above) - sums).sum(0)
        products = sets.sums(given.mul_(lines)).mul_(scale)  # Σ x̂·∂L/∂y
        for_bias = sums.sum(0) if ctx.with_bias else None
        for_weight = None if weight is None else products.sum(0)
        if weight is not None:
            products = products * weight
        curve = scale.square().mul_(-sets.means(products))
        torch.gt(z, least, out=given).mul_(above).mul_(repeated(slope, lines))
        given.addcmul_(lines, repeated(curve, lines))
        return as_images(given, x), for_weight, for_bias, for_threshold, None, None


class EvoNormS0(ImageNorm):
    """EvoNorm-S0: a gate over the standard deviation of a group, found by architecture search.

        y = γ·x·sigmoid(v·x) / √(σ²_ng + ε) + β

    x is (N, C) or (N, C, H, W); σ²_ng is taken over the C/G channels of group g and over (H, W),
    for each image n, biased (tf.nn.moments in the paper's listing); the mean is not subtracted
    from x. γ, β, v: (C,), γ = v = 1 and β = 0 at the start.

    Raises ArgumentError where the groups do not divide the channels, and where a group is one
    value: its variance is 0.

    Source: Liu, Brock, Simonyan & Le 2020, https://arxiv.org/abs/2004.02967.
    """

    argument, hint = "groups", None

    def __init__(self, channels: int, *, groups: int, eps: float = 1e-5) -> None:
        super().__init__(channels, groups=groups, eps=eps)
        self.gate = nn.Parameter(torch.ones(channels))  # v in the paper

    def forward(self, input: Tensor) -> Tensor:
        sets = self.sets(input.shape)
        y = _Gated.apply(input, self.weight, self.bias, self.gate, sets, self.eps)
        return cast(Tensor, y)


class _Gated(torch.autograd.Function):
    """EvoNormS0's formula and its gradient.

    With the gate o = sigmoid(v·x), h = x·o, s = 1/√(σ² + ε), g = γ·∂L/∂y and ⟨·⟩ the mean over a
    set:

        ∂L/∂x = s·g·(o + v·x·o·(1 − o)) − s³·(x − μ)·⟨g·h⟩,   ∂L/∂v = Σ s·g·x²·o·(1 − o)

    First derivatives only.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, gate: Tensor, sets: Sets, eps: float
    ) -> Tensor:
        lines = as_lines(x, sets.blocks)
        mean, y = sets.center(lines)  # two passes: ⟨x²⟩ − ⟨x⟩² would cancel
        scale = (sets.means(sets.sums(y.square_())) + eps).rsqrt_()
        slope = scale * weight
        opening = (lines * repeated(gate, lines)).sigmoid_()
        torch.mul(lines, opening, out=y)
        torch.addcmul(repeated(bias, lines), y, repeated(slope, lines), out=y)
        ctx.save_for_backward(x, opening, mean, scale, slope, weight, gate)
        ctx.sets = sets
        return as_images(y, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        x, opening, mean, scale, slope, weight, gate = ctx.saved_tensors
        sets: Sets = ctx.sets
        lines, above = as_lines(x, sets.blocks), as_lines(above, sets.blocks)
        for_bias = sets.sums(above).sum(0)
        gated = lines * opening
        given = above * gated
        products = sets.sums(given).mul_(scale)
        for_weight = products.sum(0)
        bent = gated.addcmul_(gated, opening, value=-1)  # x·o·(1 − o)
        for_gate = sets.sums(torch.mul(bent, lines, out=given).mul_(above)).mul_(slope).sum(0)
        torch.addcmul(opening, bent, repeated(gate, lines), out=given)
        given.mul_(above).mul_(repeated(slope, lines))
        curve = scale.square().mul_(sets.means(products * weight))
        centered = torch.sub(lines, repeated(mean, lines), out=bent)
        given.addcmul_(centered, repeated(curve, lines), value=-1)
        return as_images(given, x), for_weight, for_bias, for_gate, None, None
