"""What a network needs to know about normalization and activation, and the unit made of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn


@dataclass(frozen=True, slots=True)
class Recipe:
    """How each weight layer of a network is followed up.

    `make_norm` takes a number of channels; None: no normalization. `placement`: the norm stands
    before or after the activation.
    """

    make_norm: Callable[[int], nn.Module] | None
    make_activation: Callable[[], nn.Module]
    placement: Literal["before", "after"] = "before"

    @property
    def bias(self) -> bool:
        """Whether a weight layer has a bias.

        A norm right behind it would subtract the bias again; an activation would not.
        """
        return self.make_norm is None or self.placement == "after"

    def unit(self, name: str, weights: nn.Module, channels: int) -> nn.Sequential:
        """`weights` under its `name`, then norm and activation in the order of the placement."""
        layers: OrderedDict[str, nn.Module] = OrderedDict({name: weights})
        if self.make_norm is not None and self.placement == "before":
            layers["norm"] = self.make_norm(channels)
        layers["activation"] = self.make_activation()
        if self.make_norm is not None and self.placement == "after":
            layers["norm"] = self.make_norm(channels)
        return nn.Sequential(layers)
