"""How the layers of a network are made: weights, normalization, activation, initial weights; and
which parts of a network are its normalization: counted, weighed, or trained alone."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from bnbench.errors import ArgumentError


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

Initialization = Literal["he", "xavier", "lecun", "small-gaussian"]


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
    2/(fan_in + fan_out) (Glorot & Bengio 2010, Eq. 12). lecun: normal, variance 1/fan_in (LeCun et
    al. 1998, section 4.6; Klambauer et al. 2017 for selu). small-gaussian: standard deviation 0.01
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
            case "lecun":
                deviation = sqrt(1.0 / fan_in)
            case "small-gaussian":
                deviation = 0.01
        drawn = torch.randn(module.weight.shape, generator=generator_for(f"{name}.weight"))
        module.weight.copy_(drawn * deviation)
        if module.bias is not None:
            module.bias.zero_()
    adjust: Any = getattr(model, "adjust_initial_weights", None)  # of ResNet's Fixup
    if adjust is not None:
        adjust()


# --- what is normalization ------------------------------------------------------------------

_NAME = re.compile(r"norm\d*")
_TORCH_LAYERS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of parameters (all, trained) and of normalization layers."""

    parameters: int
    trainable: int
    normalization_layers: int


def normalization_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The normalization layers by name, in the order of the network.

    A layer counts that is called norm, norm1, norm2, …, as in all networks here, or is one of
    torch's. Layers inside of it are parts of it and do not count.
    """
    found: dict[str, nn.Module] = {}

    def collect(module: nn.Module, name: str) -> None:
        if _NAME.fullmatch(name.rsplit(".", 1)[-1]) or isinstance(module, _TORCH_LAYERS):
            found[name] = module
            return
        for child_name, child in module.named_children():
            collect(child, f"{name}.{child_name}" if name else child_name)

    collect(model, "")
    return found


def named_norm(make_norm: Callable[[int], nn.Module]) -> Callable[[int], nn.Module]:
    """`make_norm` for networks with names of their own: `bn1` becomes `bn1.norm`.

    A normalization layer is found by its name, whatever class it is of.
    """

    def make(channels: int) -> nn.Module:
        return nn.Sequential(OrderedDict(norm=make_norm(channels)))

    return make


def counts(model: nn.Module) -> Counts:
    """Of the network as it stands."""
    return Counts(
        parameters=sum(each.numel() for each in model.parameters()),
        trainable=sum(each.numel() for each in model.parameters() if each.requires_grad),
        normalization_layers=len(normalization_layers(model)),
    )


def train_only_norm(model: nn.Module) -> None:
    """Freeze each parameter that is not of a normalization layer; the head is frozen too.

    Trained are γ and β, and what else such a layer learns (τ of FRN, v of EvoNorm). This is the
    experiment of Frankle, Schwab & Morcos 2021, https://arxiv.org/abs/2003.00152: all other weights
    stay as they were drawn.

    Raises ArgumentError where that leaves nothing to train.
    """
    layers = normalization_layers(model)
    trained = {id(p) for layer in layers.values() for p in layer.parameters()}
    if not trained:
        reason = "norm layers of the network have no γ and β" if layers else "network has no norms"
        raise ArgumentError(
            f"the {reason} to train",
            argument="train_only",
            hint="affine norms have a γ and a β" if layers else None,
        )
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trained)
