"""What a network needs to know about normalization and activation, and the unit made of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

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
