"""Normalization of each image by its own statistics over groups of channels."""

from __future__ import annotations

from torch import nn


class GroupNorm(nn.GroupNorm):
    """Normalize each image over groups of channels and all positions.

        x̂ = (x − μ_ng) / √(σ²_ng + ε),   y = γ·x̂ + β

    x is (N, C) or (N, C, H, W); μ_ng, σ²_ng are taken over the C/G channels of group g and over
    (H, W), for each image n, σ² biased. γ, β: (C,). No running statistics: training and eval
    mode are the same function. This is torch's layer.

    Raises ValueError where the groups do not divide the channels.

    Source: Wu & He 2018, https://arxiv.org/abs/1803.08494, Eq. 7.
    """

    def __init__(
        self, channels: int, *, groups: int, eps: float = 1e-5, affine: bool = True
    ) -> None:
        if channels % groups:
            raise ValueError(f"{channels} channels do not split into {groups} groups")
        super().__init__(groups, channels, eps=eps, affine=affine)


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
