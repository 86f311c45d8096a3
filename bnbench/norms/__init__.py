"""Normalization layers, one file a family; each opens with its formula, axes and paper.

`batch`: statistics over the batch (BatchNorm, GhostBatchNorm); `renorm`, `frozen`, `noisy`: its
variants. `group`: statistics of each image (GroupNorm, LayerNorm, InstanceNorm, RMSNorm).
`activated`: normalization and activation in one (FilterResponseNorm, EvoNormS0). `weight`:
statistics of the weights, in convolutions and linear layers. `moments`: the sums and the gradient
that they share. Every layer but `weight`'s takes the number of channels first and keeps the shape.
"""

from bnbench.norms.activated import EvoNormS0, FilterResponseNorm
from bnbench.norms.batch import BatchNorm, GhostBatchNorm, batch_norm
from bnbench.norms.frozen import FrozenBatchNorm
from bnbench.norms.group import GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from bnbench.norms.noisy import NoisyBatchNorm
from bnbench.norms.renorm import BatchRenorm
from bnbench.norms.weight import (
    ACTIVATION_GAINS,
    ScaledStandardizedConv2d,
    ScaledStandardizedLinear,
    StandardizedConv2d,
    StandardizedLinear,
)

__all__ = [
    "ACTIVATION_GAINS",
    "BatchNorm",
    "BatchRenorm",
    "EvoNormS0",
    "FilterResponseNorm",
    "FrozenBatchNorm",
    "GhostBatchNorm",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "NoisyBatchNorm",
    "RMSNorm",
    "ScaledStandardizedConv2d",
    "ScaledStandardizedLinear",
    "StandardizedConv2d",
    "StandardizedLinear",
    "batch_norm",
]
