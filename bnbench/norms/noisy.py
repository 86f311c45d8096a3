"""BatchNorm followed by noise that shifts the distribution which it has just made stable, and the
same noise without it."""

from __future__ import annotations

from typing import TypedDict, Unpack, cast

import torch
from torch import Tensor, nn

from bnbench.norms.batch import BatchNorm, Common
from bnbench.norms.moments import as_images, as_lines, check_channels, repeated


class Noise(TypedDict, total=False):
    """Arguments of the noise: see NoisyBatchNorm."""

    mean_range: float
    std_range: float
    mean_jitter: float
    std_jitter: float


class _Noise(nn.Module):
    """The layer that comes next in the order of base classes, then noise: see NoisyBatchNorm."""

    def __init__(
        self,
        channels: int,
        *,
        mean_range: float = 0.5,
        std_range: float = 1.25,
        mean_jitter: float = 0.1,
        std_jitter: float = 0.1,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(channels, **common)
        self.mean_range, self.std_range = mean_range, std_range
        self.mean_jitter, self.std_jitter = mean_jitter, std_jitter

    def forward(self, input: Tensor) -> Tensor:
        y = cast(Tensor, super().forward(input))
        if not self.training:
            return y
        shift, scale = self.draw(y)
        lines = as_lines(y, len(y))
        return as_images(torch.addcmul(repeated(shift, lines), lines, repeated(scale, lines)), y)

    def draw(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The shift m and the scale s of one step: (N, C) each."""
        N, C = y.shape[:2]
        dtype = torch.promote_types(y.dtype, torch.float32)
        mean, shift, std, scale = (
            torch.empty(rows, C, dtype=dtype, device=y.device) for rows in (1, N, 1, N)
        )
        mean.uniform_(-self.mean_range, self.mean_range)
        shift.uniform_(-self.mean_jitter, self.mean_jitter)
        std.uniform_(1.0, self.std_range)
        scale.normal_(0.0, self.std_jitter)
        return mean + shift, std + scale


class NoisyBatchNorm(_Noise, BatchNorm):
    """BatchNorm, then in training a random scale and shift of each example's channels.

        z_nc = s_nc·y_nc + m_nc,   y = BatchNorm(x)
        s_nc ~ Normal(σ_c, std_jitter²),            σ_c ~ Uniform(1, std_range)
        m_nc ~ Uniform(μ_c ± mean_jitter),          μ_c ~ Uniform(−mean_range, mean_range)

    x is (N, C) or (N, C, H, W). σ_c, μ_c are drawn at each step and shared by the batch; s, m are
    drawn for each example and shared by its positions. So each channel has another mean and another
    variance at each step. γ, β and running statistics are BatchNorm's; eval mode has no noise. The
    noise comes from the default generator of x's device; no gradient flows to it.

    Source: Santurkar, Tsipras, Ilyas & Madry 2018, https://arxiv.org/abs/1805.11604, section 2.1
    and the algorithm for noisy BatchNorm in appendix A; its constants are the defaults. Chosen
    here, where the paper leaves it open: one draw for all positions of a channel, and std_jitter as
    a standard deviation.
    """

    shown = ("mean_range", "std_range", "mean_jitter", "std_jitter")


class _Affine(nn.Module):
    """y = γ·x + β."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, input: Tensor) -> Tensor:
        check_channels(input.shape, self.channels)
        lines = as_lines(input, len(input))
        weight, bias = repeated(self.weight, lines), repeated(self.bias, lines)
        return as_images(torch.addcmul(bias, lines, weight), input)


class NoiseAlone(_Noise, _Affine):
    """The noise of NoisyBatchNorm where nothing is normalized: its control.

        z_nc = s_nc·y_nc + m_nc,   y = γ·x + β

    γ, β: (C,), learned, in the place of BatchNorm's and of the bias that a weight layer before a
    normalization does not have. Eval mode has no noise, and there are no statistics.

    Source: Santurkar 2018, https://arxiv.org/abs/1805.11604, section 2.1, which says that such
    noise keeps a network without BatchNorm from training. The small networks here train under it.
    """

    def __init__(self, channels: int, **noise: Unpack[Noise]) -> None:
        super().__init__(channels, **noise)
