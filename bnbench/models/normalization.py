"""Which parts of a network are its normalization: counted, weighed, or trained alone."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from bnbench.errors import ArgumentError

_NAME = re.compile(r"norm\d*")
_TORCH_LAYERS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of parameters (all, trained, in normalization layers) and of normalization layers."""

    parameters: int
    trainable: int
    normalization_parameters: int
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
    layers = normalization_layers(model)
    return Counts(
        parameters=_size(model.parameters()),
        trainable=_size(p for p in model.parameters() if p.requires_grad),
        normalization_parameters=sum(_size(layer.parameters()) for layer in layers.values()),
        normalization_layers=len(layers),
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


def _size(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
