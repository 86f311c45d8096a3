"""How the layers of a network are made: weights, normalization, activation, initial weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the weight layers of a network are made, and what follows each of them.

    `make_norm` takes a number of channels; None: no normalization. `placement`: the norm stands
    before or after the activation. `activates`: the norm is the activation as well, and stands in
    its place. `make_conv`, `make_linear`: take the arguments of torch's layers; weight
    standardization comes in here.
    """

    make_norm: Callable[[int], nn.Module] | None
    make_activation: Callable[[], nn.Module]
    placement: Literal["before", "after"] = "before"
    activates: bool = False
    make_conv: Callable[..., nn.Conv2d] = nn.Conv2d
    make_linear: Callable[..., nn.Linear] = nn.Linear

    @property
    def bias(self) -> bool:
        """Whether a weight layer has a bias.

        A norm directly after it would subtract the bias again; an activation would not.
        """
        return self.make_norm is None or self.placement == "after"

    def unit(self, name: str, weights: nn.Module, channels: int) -> nn.Sequential:
        """`weights` under its `name`, then norm and activation in the order of the placement."""
        return nn.Sequential(OrderedDict({name: weights} | self.follow_up(channels)))

    def follow_up(self, channels: int) -> dict[str, nn.Module]:
        """Norm and activation after a weight layer, by name, in their order."""
        if self.make_norm is None:
            return {"activation": self.make_activation()}
        norm = {"norm": self.make_norm(channels)}
        if self.activates:
            return norm
        activation = {"activation": self.make_activation()}
        return norm | activation if self.placement == "before" else activation | norm


# --- initial weights, tensor by tensor: the same in all setups of a seed ---------------------

Initialization = Literal["he", "xavier", "small-gaussian"]


@runtime_checkable
class AdjustsInitialWeights(Protocol):
    """A network whose weights start from a known multiple of what was drawn, as Fixup's do."""

    def adjust_initial_weights(self) -> None: ...


@torch.no_grad()
def initialize(
    model: nn.Module,
    scheme: Initialization,
    generator_for: Callable[[str], torch.Generator],
) -> None:
    """Fill the weights of convolutions and linear layers; set their biases to 0.

    Each tensor is drawn from `generator_for(its name)`, on the CPU: two networks that share a
    tensor's name and shape share its values, whatever else they are made of. Normalization
    layers keep their γ = 1, β = 0. A network that adjusts its initial weights does so last.

    he: normal, variance 2/fan_in (He et al. 2015, https://arxiv.org/abs/1502.01852, Eq. 10), and
    1/fan_in for the last layer, which no rectifier follows. xavier: normal, variance
    2/(fan_in + fan_out) (Glorot & Bengio 2010, Eq. 12). small-gaussian: standard deviation 0.01
    (Krizhevsky et al. 2012, section 5), where plain networks stop learning.
    """
    weighted = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    for position, (name, module) in enumerate(weighted, start=1):
        receptive = module.weight[0, 0].numel()
        fan_in = module.weight.shape[1] * receptive
        fan_out = module.weight.shape[0] * receptive
        match scheme:
            case "he":
                deviation = sqrt((1.0 if position == len(weighted) else 2.0) / fan_in)
            case "xavier":
                deviation = sqrt(2.0 / (fan_in + fan_out))
            case "small-gaussian":
                deviation = 0.01
        drawn = torch.randn(module.weight.shape, generator=generator_for(f"{name}.weight"))
        module.weight.copy_(drawn * deviation)
        if module.bias is not None:
            module.bias.zero_()
    if isinstance(model, AdjustsInitialWeights):
        model.adjust_initial_weights()
