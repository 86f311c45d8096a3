"""Normalization of each image by its own statistics over groups of channels."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from bnbench.norms.moments import (
    Normalized,
    check_channels,
    check_group_values,
    check_groups,
    check_image_values,
    check_positions,
)


class GroupNorm(nn.GroupNorm):
    """Normalize each image over groups of channels and all positions.

        x̂ = (x − μ_ng) / √(σ²_ng + ε),   y = γ·x̂ + β

    x is (N, C) or (N, C, H, W); μ_ng, σ²_ng are taken over the C/G channels of group g and over
    (H, W), for each image n, σ² biased. γ, β: (C,). No running statistics: training and eval
    mode are the same function. This is torch's layer; it only keeps the precision of one memory
    format in the other.

    Raises ArgumentError where the groups do not divide the channels, and where a group is one
    value, which is its own mean: every output would be β.

    Source: Wu & He 2018, https://arxiv.org/abs/1803.08494, Eq. 7.
    """

    def __init__(
        self, channels: int, *, groups: int, eps: float = 1e-5, affine: bool = True
    ) -> None:
        check_groups(channels, groups)
        super().__init__(groups, channels, eps=eps, affine=affine)

    def check_shape(self, shape: torch.Size) -> None:
        """Raise ArgumentError where an input of this shape leaves nothing to take statistics of."""
        check_group_values(shape, self.num_groups)

    def forward(self, input: Tensor) -> Tensor:
        self.check_shape(input.shape)
        # torch's CPU kernel for channels-last takes E[x²] − E[x]²: off by 1 % at a mean of 100
        # standard deviations. Elsewhere, images flattened to (N, C, H·W) go to the other one.
        if input.is_cpu and input.ndim == 4 and not input.is_contiguous():
            check_channels(input, self.num_channels)
            y, *_ = Normalized.apply(
                input, self.weight, self.bias, None, len(input), self.num_groups, self.eps, True
            )
            return cast(Tensor, y)
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

    def check_shape(self, shape: torch.Size) -> None:
        check_image_values(shape, "layer")


class InstanceNorm(nn.Module):
    """Normalize each channel of each image over its positions: GroupNorm, one channel a group.

        x̂ = (x − μ_nc) / √(σ²_nc + ε),   y = γ·x̂ + β

    x is (N, C, H, W); μ_nc, σ²_nc are taken over (H, W), σ² biased. γ, β: (C,). No running
    statistics: training and eval mode are the same function.

    Raises ArgumentError where a channel has one position, as in (N, C): each value is its own mean,
    and every output would be β.

    Source: Ulyanov, Vedaldi & Lempitsky 2016, https://arxiv.org/abs/1607.08022.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.channels, self.eps, self.affine = channels, eps, affine
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def check_shape(self, shape: torch.Size) -> None:
        """Raise ArgumentError where an input of this shape leaves nothing to take statistics of."""
        check_positions(shape, "instance")

    def forward(self, input: Tensor) -> Tensor:
        check_channels(input, self.channels)
        self.check_shape(input.shape)
        C = self.channels
        y, *_ = Normalized.apply(input, self.weight, self.bias, None, len(input), C, self.eps, True)
        return cast(Tensor, y)

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}, affine={self.affine}"


class RMSNorm(nn.Module):
    """Divide each image by the root of its mean square: LayerNorm without the mean.

        x̂ = x / √(mean_CHW(x²) + ε),   y = γ·x̂ + β

    x is (N, C) or (N, C, H, W); the mean is taken over (C, H, W) for each image n. γ, β: (C,). The
    paper has no β; it is kept here, so that LayerNorm and this layer differ by the mean alone.
    No running statistics: training and eval mode are the same function.

    Raises ArgumentError where an image is one value: the output would be its sign.

    Source: Zhang & Sennrich 2019, https://arxiv.org/abs/1910.07467, Eq. 4.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.channels, self.eps, self.affine = channels, eps, affine
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def check_shape(self, shape: torch.Size) -> None:
        """Raise ArgumentError where an input of this shape leaves nothing to take statistics of."""
        check_image_values(shape, "rms")

    def forward(self, input: Tensor) -> Tensor:
        check_channels(input, self.channels)
        self.check_shape(input.shape)
        y, *_ = Normalized.apply(
            input, self.weight, self.bias, None, len(input), 1, self.eps, False
        )
        return cast(Tensor, y)

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}, affine={self.affine}"
