"""Normalization layers, one file a family; each opens with its formula, axes and paper.

`batch`: statistics over the batch (BatchNorm, GhostBatchNorm); `renorm`, `frozen`, `noisy`: its
variants. `group`: statistics of each image (GroupNorm, LayerNorm, InstanceNorm, RMSNorm).
`activated`: normalization and activation in one (FilterResponseNorm, EvoNormS0). `weight`:
statistics of the weights, in convolutions and linear layers. `moments`: the sums and the gradient
that they share. Every layer but `weight`'s takes the number of channels first and keeps the shape.
"""
