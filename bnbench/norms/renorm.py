"""Batch renormalization: BatchNorm drawn towards its running statistics."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from bnbench.norms.batch import BatchNorm


class BatchRenorm(BatchNorm):
    """BatchNorm whose output in training is corrected towards what inference would give.

        x̂ = (x − μ_B)/σ_B·r + d,   y = γ·x̂ + β
        r = clip(σ_B/σ, 1/r_max, r_max),   d = clip((μ_B − μ)/σ, −d_max, d_max)

    x is (N, C) or (N, C, H, W); μ_B and σ_B = √(σ²_B + ε) are taken over N (and H, W), σ²_B
    biased. μ, σ are the running averages before this batch; no gradient flows through r and d.
    γ, β: (C,). After t training steps, the limit on r rises linearly from 1 at
    t = r_ramp[0] to `r_max` at t = r_ramp[1], that on d from 0 to `d_max` over `d_ramp`; up to the
    start of both ramps this is BatchNorm.

    State: μ ← (1 − momentum)·μ + momentum·μ_B, and so for **σ**, not σ²; σ = 1 at the start. σ is
    kept as `running_var` = σ² − ε, biased, so that inference, which is BatchNorm's, divides by σ.
    `num_batches_tracked` is t. momentum None: the average of all batches so far.

    Raises ArgumentError in training mode where a channel has one value, and ValueError for limits
    or ramps out of order.

    Source: Ioffe 2017, https://arxiv.org/abs/1702.03275, Algorithm 1; the defaults are those of
    section 4: r_max = 3 after 40,000 steps, d_max = 5 after 25,000, BatchNorm for 5,000.
    """

    shown = ("r_max", "d_max", "r_ramp", "d_ramp")
    changes_on_the_way = True

    def __init__(
        self,
        channels: int,
        *,
        r_max: float = 3.0,
        d_max: float = 5.0,
        r_ramp: tuple[int, int] = (5_000, 40_000),
        d_ramp: tuple[int, int] = (5_000, 25_000),
        momentum: float | None = 0.01,
        eps: float = 1e-5,
        affine: bool = True,
    ) -> None:
        if r_max < 1 or d_max < 0:
            raise ValueError(f"r_max must be 1 or more and d_max 0 or more, not {r_max}, {d_max}")
        for name, (start, end) in {"r_ramp": r_ramp, "d_ramp": d_ramp}.items():
            if not 0 <= start <= end:
                raise ValueError(f"{name} must rise from a step ≥ 0, not from {start} to {end}")
        super().__init__(channels, momentum=momentum, eps=eps, affine=affine)
        self.r_max, self.d_max = r_max, d_max
        self.r_ramp, self.d_ramp = r_ramp, d_ramp

    def reset_running_stats(self) -> None:
        super().reset_running_stats()
        cast(Tensor, self.running_var).fill_(1.0 - self.eps)

    def limits(self) -> tuple[float, float]:
        """The largest r and the largest d of the next training step."""
        steps = int(cast(Tensor, self.num_batches_tracked))
        return (
            1.0 + (self.r_max - 1.0) * _risen(steps, self.r_ramp),
            self.d_max * _risen(steps, self.d_ramp),
        )

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        self.sets(input.shape)
        full = input.detach().to(torch.promote_types(input.dtype, torch.float32))
        mean, variance = torch.batch_norm_update_stats(full, None, None, 0.0)
        deviation = torch.sqrt(variance + self.eps)
        r, d = self.correction(mean, deviation)
        self._update(mean, deviation)
        statistics = mean, variance, deviation.reciprocal()
        y = _Corrected.apply(input, self.weight, self.bias, r, d, *statistics, self.eps)
        return cast(Tensor, y)

    @torch.no_grad()
    def correction(self, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
        """r and d for batches of these means and standard deviations, (C,) or (batches, C)."""
        running = torch.sqrt(cast(Tensor, self.running_var) + self.eps)
        r_limit, d_limit = self.limits()
        r = (deviation / running).clamp(1.0 / r_limit, r_limit)
        d = ((mean - cast(Tensor, self.running_mean)) / running).clamp(-d_limit, d_limit)
        return r, d

    @torch.no_grad()
    def _update(self, mean: Tensor, deviation: Tensor) -> None:
        """One step of the running averages."""
        running_mean, running_var = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        batches = cast(Tensor, self.num_batches_tracked)
        batches.add_(1)
        momentum = 1.0 / float(batches) if self.momentum is None else self.momentum
        running_mean.lerp_(mean, momentum)
        running = torch.sqrt(running_var + self.eps)
        running_var.copy_(running.lerp(deviation, momentum).square() - self.eps)


class _Corrected(torch.autograd.Function):
    """y = γ·(x̂·r + d) + β = (γ·r)·x̂ + (γ·d + β): torch's BatchNorm with another γ and another β.

    Its kernels take each step here: statistics came from one, inference with them is the second,
    and the third is BatchNorm's gradient, whose γ and β are turned back into ours. (Called as a
    whole, BatchNorm would take the statistics once more.) First derivatives only.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        r: Tensor,
        d: Tensor,
        mean: Tensor,
        variance: Tensor,
        scale: Tensor,
        eps: float,
    ) -> Tensor:
        slope = r if weight is None else r * weight
        offset = d if bias is None or weight is None else torch.addcmul(bias, weight, d)
        ctx.save_for_backward(x, slope, r, d, mean, scale)
        ctx.affine, ctx.eps = weight is not None, eps
        return F.batch_norm(x, mean, variance, slope, offset, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        x, slope, r, d, mean, scale = ctx.saved_tensors
        given, for_slope, for_offset = torch.ops.aten.native_batch_norm_backward(
            above, x, slope, None, None, mean, scale, True, ctx.eps, (True, True, True)
        )
        for_weight = torch.addcmul(r * for_slope, d, for_offset) if ctx.affine else None
        return given, for_weight, for_offset if ctx.affine else None, *[None] * 6


def _risen(steps: int, ramp: tuple[int, int]) -> float:
    """How far up a ramp is, from 0 to 1; a ramp of no length is a step at its end."""
    start, end = ramp
    if steps >= end:
        return 1.0
    return max(0.0, (steps - start) / (end - start))
