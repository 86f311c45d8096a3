"""Normalization layers, one file a family; each opens with its formula, axes and paper.

`batch`: statistics over the batch (BatchNorm, GhostBatchNorm). `group`: statistics of each image
(GroupNorm, LayerNorm). Every layer takes the number of channels first and keeps the shape.
"""

from bnbench.norms.batch import BatchNorm, GhostBatchNorm, batch_norm
from bnbench.norms.group import GroupNorm, LayerNorm

__all__ = ["BatchNorm", "GhostBatchNorm", "GroupNorm", "LayerNorm", "batch_norm"]
