"""Statistics of chunks of a batch: normalizing by them, and pooling them over many batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import gcd, inf

import torch
from torch import Tensor

WIDE_ROW = 64
"""Values in a row over which a reduction runs at full speed; measured on AVX2: 8 channels, 28×28,
a pass of 128 images: 1.0 ms in such rows, 2.3 ms in rows of 8, 1.4 ms in torch's own layer."""


def _zero() -> Tensor:
    # Made within a forward of the user's, whose default device may be another.
    return torch.zeros((), dtype=torch.float64, device="cpu")


@dataclass(slots=True)
class PooledStatistics:
    """Mean and variance over many batches, pooled in fp64.

    Batches may differ in size: μ = E[μ_B], σ² = E[σ²_B] + Var[μ_B], each batch weighted by its
    count, which is the biased variance of all examples at once (Chan, Golub & LeVeque 1983).

    `batches`: how many; `between`: the biased variance of their means. `calls`: the same of the
    layer's first, second, … call in a forward pass.
    """

    count: int = 0
    mean: Tensor = field(default_factory=_zero)
    variance: Tensor = field(default_factory=_zero)
    calls: list[PooledStatistics] = field(default_factory=list)
    batches: int = 0
    between: Tensor = field(default_factory=_zero)

    @property
    def error(self) -> Tensor:
        """The standard error of the mean, (C,), of which batches are a sample."""
        if self.batches < 2:
            return torch.full_like(self.mean, inf)
        return (self.between / (self.batches - 1)).sqrt()

    def add(self, means: Tensor, variances: Tensor, count: int) -> None:
        """Take in batches of `count` values each; means, biased variances: (batches, C)."""
        means, variances = (part.to("cpu", torch.float64) for part in (means, variances))
        mean, between = means.mean(0), means.var(0, correction=0)
        variance = variances.mean(0) + between
        taken = count * means.shape[0]
        share = taken / (self.count + taken)
        delta = mean - self.mean
        self.mean = self.mean + delta * share
        apart = delta.square() * share * (1 - share)
        self.variance = self.variance * (1 - share) + variance * share + apart
        self.between = self.between * (1 - share) + between * share + apart
        self.count += taken
        self.batches += len(means)

    def add_call(self, number: int, means: Tensor, variances: Tensor, count: int) -> None:
        """The same, of a layer's call `number` in the forward pass, from 0."""
        self.add(means, variances, count)
        while len(self.calls) <= number:
            self.calls.append(PooledStatistics())
        self.calls[number].add(means, variances, count)

    def of_calls(self) -> PooledStatistics:
        """Of a layer that is called several times in a pass: what its running statistics tend to.
        Each call has the same weight, and variances are means of theirs."""
        if len(self.calls) < 2:
            return self
        mean, variance, between = (
            torch.stack([getattr(call, name) for call in self.calls]).mean(0)
            for name in ("mean", "variance", "between")
        )
        batches = self.calls[0].batches
        return PooledStatistics(self.count, mean, variance, self.calls, batches, between)


Found = Callable[[Tensor, Tensor, int], None]
"""Takes means and biased variances of chunks, (chunks, C), and the values in each."""

Correction = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From means and deviations of chunks, (chunks, C), to r and d: x̂ becomes x̂·r + d."""


def normalized_in_chunks(
    x: Tensor,
    size: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    found: Found,
    correction: Correction | None = None,
) -> Tensor:
    """x (N, C, *), each chunk of `size` examples in a row normalized by its own statistics.

    What is left over at the end joins the last chunk. `found` is told each chunk's statistics.
    """

    def normalize(x: Tensor, chunks: int) -> Tensor:
        last = x.movedim(1, -1)  # (N, *, C): no copy from channels-last
        C = last.shape[-1]
        flat = last.reshape(chunks, -1, C)
        count = flat.shape[1]
        # Rows of few channels would leave most of a vector unit idle: join several positions.
        joined = gcd(count, max(1, WIDE_ROW // C))
        rows = flat.reshape(chunks, -1, joined * C)

        dtype = torch.promote_types(x.dtype, torch.float32)  # bf16 is too coarse for statistics

        def over_chunk(values: Tensor) -> Tensor:
            """Mean of each channel over a chunk: (chunks, C)."""
            return values.mean(1, dtype=dtype).view(chunks, joined, C).mean(1)

        def along_rows(values: Tensor) -> Tensor:
            """(chunks, C) repeated to the length of a row."""
            return values.unsqueeze(1).repeat(1, 1, joined)

        # Two passes: E[x²] − E[x]² would cancel where the mean is large.
        mean = over_chunk(rows)
        centered = rows - along_rows(mean)
        variance = over_chunk(centered.square())
        found(mean, variance, count)
        gain = torch.rsqrt(variance + eps)
        shift = torch.zeros_like(mean)
        if correction is not None:
            ratio, shift = correction(mean, gain.reciprocal())
            gain = gain * ratio
        if weight is not None:
            gain, shift = gain * weight, shift * weight
        if bias is not None:
            shift = shift + bias
        y = torch.addcmul(along_rows(shift), centered, along_rows(gain))
        return y.to(x.dtype).reshape(last.shape).movedim(-1, 1)

    N = x.shape[0]
    whole = evenly(N, size)
    parts = []
    if whole:
        parts.append(normalize(x[:whole], whole // size))
    if whole < N:
        parts.append(normalize(x[whole:], 1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def evenly(examples: int, size: int) -> int:
    """How many of the examples are in chunks of exactly `size`; the others are the last chunk."""
    return max(examples // size - bool(examples % size), 0) * size


def moments(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean and biased variance (1, C) of x (N, C, *), over all else, and how many values."""
    values = x.detach().movedim(1, -1).reshape(1, -1, x.shape[1])
    values = values.to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(values, 1, correction=0)
    return mean, variance, values.shape[1]
