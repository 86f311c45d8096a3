"""Normalization by the statistics of a batch: BatchNorm and Ghost BatchNorm."""

from __future__ import annotations

from typing import TypedDict, Unpack, cast

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from bnbench.errors import ArgumentError
from bnbench.norms.moments import Centered, Sets, check_channels, check_rank


class Common(TypedDict, total=False):
    """Arguments of BatchNorm that its variants pass on."""

    momentum: float | None
    eps: float
    affine: bool


class BatchNorm(_BatchNorm):
    """Normalize each channel over the batch and all positions.

        x̂ = (x − μ_B) / √(σ²_B + ε),   y = γ·x̂ + β

    x is (N, C) or (N, C, H, W); μ_B and σ²_B are taken over N (and H, W), σ²_B biased (divided
    by the count n). γ, β: (C,). In eval mode μ_B, σ²_B are replaced by running averages,
    run ← (1 − momentum)·run + momentum·new, of the mean and of the *unbiased* variance
    σ²_B·n/(n − 1). momentum None: the average of all batches so far, equally weighted.

    σ²_B estimates the variance around the batch's own mean, and the running average of it lacks
    Var[μ_B], the spread of these means. n/(n − 1) makes up for that where all n values are
    independent; the positions of an image are not, so that with few images a batch the running
    variance stays too small. Population statistics (`probes.statistics`) include Var[μ_B].

    Raises ArgumentError in training mode where a channel has one value.

    Source: Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167, Algorithms 1 and 2. This is
    torch's layer; it only accepts both ranks of input, so that one layer serves all networks.
    """

    shown: tuple[str, ...] = ()  # arguments of a subclass that its repr names
    changes_on_the_way = False  # whether `num_batches_tracked` decides what a layer computes

    def __init__(
        self,
        channels: int,
        *,
        momentum: float | None = 0.1,
        eps: float = 1e-5,
        affine: bool = True,
    ) -> None:
        super().__init__(channels, eps=eps, momentum=momentum, affine=affine)

    def extra_repr(self) -> str:
        torchs: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return ", ".join((torchs, *(f"{name}={getattr(self, name)}" for name in self.shown)))

    def sets(self, shape: torch.Size) -> Sets:
        """What shares statistics in an input of this shape. Raises ArgumentError, see `Sets.of`."""
        check_channels(shape, self.num_features)
        return Sets.of(shape, blocks=1, groups=self.num_features, argument="batch_size")

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == self.num_features:
            self.sets(input.shape)  # raises: one value per channel
        return super().forward(input)

    def _check_input_dim(self, input: Tensor) -> None:
        check_rank(input.shape)


class GhostBatchNorm(BatchNorm):
    """BatchNorm whose batch is cut into chunks, each normalized by its own statistics.

        x̂_k = (x_k − μ_k) / √(σ²_k + ε),   y_k = γ·x̂_k + β

    for each chunk k of `batch_size` examples in a row; μ_k, σ²_k: (C,), over the chunk and all
    positions, σ²_k biased. The running averages move once a step, by the mean over chunks of μ_k
    and of the unbiased σ²_k. Eval mode is BatchNorm's.

    That differs from Algorithm 1 of the source and from layers that call BatchNorm for each chunk:
    there every chunk moves the averages in turn, so that a step has the momentum
    1 − (1 − m)^chunks (with m = 0.1: 0.999 for 64 chunks), and the source averages σ, not σ². Here
    the momentum of a step does not depend on `batch_size`, which is what is compared.

    `batch_size` None: the whole batch, which is BatchNorm.

    Raises ArgumentError in training mode where the chunks do not fill the batch, or where a channel
    of a chunk has one value.

    Source: Hoffer, Hubara & Soudry 2017, https://arxiv.org/abs/1705.08741, Algorithm 1.
    """

    shown: tuple[str, ...] = ("batch_size",)

    def __init__(self, channels: int, *, batch_size: int | None, **common: Unpack[Common]) -> None:
        super().__init__(channels, **common)
        self.batch_size = batch_size

    def sets(self, shape: torch.Size) -> Sets:
        if self.batch_size is None:
            return super().sets(shape)
        check_channels(shape, self.num_features)
        chunks, rest = divmod(shape[0], self.batch_size)
        if rest:
            raise ArgumentError(
                f"{shape[0]} examples do not split into chunks of {self.batch_size}",
                argument="batch_size",
            )
        return Sets.of(shape, blocks=chunks, groups=self.num_features, argument="batch_size")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.batch_size is None:
            return super().forward(input)
        sets = self.sets(input.shape)
        y, means, variances = Centered.apply(input, self.weight, self.bias, sets, self.eps)
        self._update(means, variances * (sets.size / (sets.size - 1)))
        return cast(Tensor, y)

    @torch.no_grad()
    def _update(self, means: Tensor, unbiased_variances: Tensor) -> None:
        """Move the running averages once; both arguments are (chunks, C)."""
        batches = cast(Tensor, self.num_batches_tracked)
        batches.add_(1)
        weight = 1.0 / float(batches) if self.momentum is None else self.momentum
        cast(Tensor, self.running_mean).lerp_(means.mean(0), weight)
        cast(Tensor, self.running_var).lerp_(unbiased_variances.mean(0), weight)
