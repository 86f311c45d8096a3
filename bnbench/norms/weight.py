"""Normalization of weights instead of activations: standardized convolutions and linear layers."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnbench.errors import ArgumentError

# γ = 1 / √Var[act(z)], z ~ Normal(0, 1): Brock 2021, https://arxiv.org/abs/2101.08692, section 4.
# relu is √(2 / (1 − 1/π)) in closed form (there too); the others by quadrature of the two
# moments. Tables in circulation (1.71396 for relu) are Monte-Carlo estimates of these.
ACTIVATION_GAINS: dict[str, float] = {
    "relu": 1.7128585504496627,
    "leaky-relu": 1.7048316271773367,  # slope 0.01, torch's default
    "gelu": 1.7009262433633331,  # with erf, not tanh
    "silu": 1.7871872221004420,
    "tanh": 1.5925374197228314,
    "sigmoid": 4.8013133720399622,
    "selu": 1.0,  # its constants make the variance 1
}


def standardized(weight: Tensor, eps: float, scale: Tensor | None = None) -> Tensor:
    """Each filter minus its mean, over √(its biased variance + ε), times `scale` (C_out,)."""
    # Filters are batch normalization's channels here, and one example is the batch: its kernel is
    # one pass over the weights each way. Order within a filter does not matter: no copy.
    last = weight.movedim(1, -1)
    flat = F.batch_norm(last.flatten(1).unsqueeze(0), None, None, scale, training=True, eps=eps)
    return flat.view(last.shape).movedim(-1, 1)


class _Standardized(nn.Module):
    """What convolutions and linear layers with standardized weights share."""

    weight: Tensor

    def __init__(self, *arguments: Any, eps: float = 1e-6, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.fan_in = self.weight[0].numel()
        if self.fan_in == 1:
            raise ArgumentError(
                "after 1 channel a filter has one weight; standardized, it would be 0",
                argument="channels",
            )
        self.eps = eps

    def normalized_weight(self) -> Tensor:
        """Ŵ, which the layer multiplies with."""
        return standardized(self.weight, self.eps)


class _Scaled(_Standardized):
    """The same with a learned gain for each output, and a fixed one for the activation before."""

    def __init__(
        self,
        *arguments: Any,
        activation_gain: float = ACTIVATION_GAINS["relu"],
        **keywords: Any,
    ) -> None:
        super().__init__(*arguments, **keywords)
        self.activation_gain = activation_gain
        self.gain = nn.Parameter(torch.ones(len(self.weight)))

    def normalized_weight(self) -> Tensor:
        scale = self.activation_gain / math.sqrt(self.fan_in)
        return standardized(self.weight, self.eps, self.gain * scale)


class StandardizedConv2d(_Standardized, nn.Conv2d):
    """Convolution whose filters are standardized in every forward pass.

        Ŵ_o = (W_o − μ_o) / √(σ²_o + ε),   y = Ŵ * x + b

    W is (C_out, C_in/groups, kH, kW), the parameter `weight`; μ_o, σ²_o are taken over all axes
    but the first, σ² biased. The arguments are torch.nn.Conv2d's and `eps`.

    Raises ArgumentError where a filter is one weight.

    Source: Qiao et al. 2019, https://arxiv.org/abs/1903.10520, section 3, to stand before
    GroupNorm. ε is timm's 1e-6: weights of fan-in n start with a variance of 1/(3n). The authors'
    code adds 1e-5 to the unbiased standard deviation instead.
    """

    def forward(self, input: Tensor) -> Tensor:
        return cast(Tensor, self._conv_forward(input, self.normalized_weight(), self.bias))


class StandardizedLinear(_Standardized, nn.Linear):
    """Linear layer whose rows of weights are standardized: StandardizedConv2d on a 1×1 map.

        Ŵ_o = (W_o − μ_o) / √(σ²_o + ε),   y = x·Ŵᵀ + b

    W is (C_out, C_in), the parameter `weight`; μ_o, σ²_o are taken over C_in, σ² biased. The
    arguments are torch.nn.Linear's and `eps`. Raises ArgumentError where C_in is 1.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.normalized_weight(), self.bias)


class ScaledStandardizedConv2d(_Scaled, StandardizedConv2d):
    """StandardizedConv2d that keeps the variance of activations, so that no layer normalizes them.

        Ŵ_o = gain_o·c·(W_o − μ_o) / √(n·(σ²_o + ε)),   y = Ŵ * x + b

    n is the fan-in, C_in/groups·kH·kW; `gain`: (C_out,), learned, 1 at the start; c is
    `activation_gain`, ACTIVATION_GAINS' value for the activation that x has gone through (1 for
    none). W, μ_o and σ²_o as in StandardizedConv2d.

    Source: Brock, De & Smith 2021, https://arxiv.org/abs/2101.08692, section 4. In the networks
    here, as in timm's, every such layer has the gain of the network's activation, the first one
    too, although no activation precedes it: its output has c² times the variance. The authors' code
    has the gain in the activation instead, and max(n·σ²_o, 1e-4) under the root; ε here is timm's.
    A residual network here does not rescale its branches (α, β of their NF-ResNet): with `fixup`
    these start at 0.
    """


class ScaledStandardizedLinear(_Scaled, StandardizedLinear):
    """ScaledStandardizedConv2d's linear counterpart, with n = C_in."""
