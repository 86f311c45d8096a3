"""BatchNorm whose statistics stop moving while training goes on."""

from __future__ import annotations

from typing import Unpack, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from bnbench.norms.batch import Common, GhostBatchNorm


class FrozenBatchNorm(GhostBatchNorm):
    """Ghost BatchNorm for the first `freeze_after` training steps; from then on its own eval mode.

        x̂ = (x − μ_run) / √(σ²_run + ε),   y = γ·x̂ + β

    x is (N, C) or (N, C, H, W). Up to the freeze this is Ghost BatchNorm with chunks of
    `batch_size` images (None: BatchNorm), with its statistics and running averages. After it,
    training too uses the running ones, which no longer move; no gradient flows through them. γ, β:
    (C,), learned throughout. `num_batches_tracked` counts training steps up to `freeze_after` and
    stops there.

    Source: Wu & Johnson 2021, https://arxiv.org/abs/2105.07576, where it is called
    FrozenBN and keeps training consistent with inference. There it replaces the last 20 of 100
    epochs: `norm.freeze_after: 0.8`; the default here is 0.5.
    """

    shown = ("freeze_after", "batch_size")
    changes_on_the_way = True

    def __init__(
        self,
        channels: int,
        *,
        freeze_after: int,
        batch_size: int | None = None,
        **common: Unpack[Common],
    ) -> None:
        if freeze_after < 0:
            raise ValueError(f"freeze_after must be 0 steps or more, not {freeze_after}")
        super().__init__(channels, batch_size=batch_size, **common)
        self.freeze_after = freeze_after

    @property
    def frozen(self) -> bool:
        """Whether training, too, uses the running statistics by now."""
        return int(cast(Tensor, self.num_batches_tracked)) >= self.freeze_after

    def correction(self, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
        """What turns x̂ of batches with these statistics into what training computes: x̂·r + d.

        (C,) or (batches, C). Once frozen that is normalization by the running statistics.
        """
        if not self.frozen:
            return torch.ones_like(deviation), torch.zeros_like(mean)
        running = torch.sqrt(cast(Tensor, self.running_var) + self.eps)
        return deviation / running, (mean - cast(Tensor, self.running_mean)) / running

    def forward(self, input: Tensor) -> Tensor:
        if self.training and not self.frozen:
            return super().forward(input)
        self._check_input_dim(input)
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )
