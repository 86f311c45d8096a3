"""Normalization of each image by its own statistics over groups of channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """Normalize each image over groups of channels and all positions.

        x̂ = (x − μ_ng) / √(σ²_ng + ε),   y = γ·x̂ + β

    x is (N, C) or (N, C, H, W); μ_ng, σ²_ng are taken over the C/G channels of group g and over
    (H, W), for each image n, σ² biased. γ, β: (C,). No running statistics: training and eval
    mode are the same function. This is torch's layer; it only keeps the precision of one memory
    format in the other.

    Raises ValueError where the groups do not divide the channels.

    Source: Wu & He 2018, https://arxiv.org/abs/1803.08494, Eq. 7.
    """

    def __init__(
        self, channels: int, *, groups: int, eps: float = 1e-5, affine: bool = True
    ) -> None:
        if channels % groups:
            raise ValueError(f"{channels} channels do not split into {groups} groups")
        super().__init__(groups, channels, eps=eps, affine=affine)

    def forward(self, input: Tensor) -> Tensor:
        # torch's CPU kernel for channels-last takes E[x²] − E[x]²: off by 1 % at a mean of 100
        # standard deviations. Images flattened to (N, C, H·W) are given to the other one.
        y = super().forward(input.flatten(2) if input.ndim == 4 else input).view(input.shape)
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

    def __init__(self, channels: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(channels, groups=1, eps=eps, affine=affine)
