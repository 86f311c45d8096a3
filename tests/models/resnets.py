"""Small residual networks of every variant, to be compared."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnbench.models.recipe import Recipe, initialize
from bnbench.models.resnet import ResNet
from bnbench.norms.batch import BatchNorm
from bnbench.norms.group import GroupNorm

Placement = Literal["before", "after"]
Variant = Literal["post", "pre"]
PLACEMENTS: tuple[Placement, ...] = ("before", "after")
VARIANTS: tuple[Variant, ...] = ("post", "pre")


def group(channels: int) -> nn.Module:
    return GroupNorm(channels, groups=2)


class SquaredNorm(nn.Module):
    """A norm that is its own activation, with one parameter a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x.square() * self.weight[:, None, None]


class StandardizedConv(nn.Conv2d):
    """Filters of mean 0 and variance 1/fan_in, whatever the scale of the weights."""

    def forward(self, input: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        fan_in = self.weight[0].numel()
        weight = (self.weight - mean) / (fan_in * (variance + 1e-6)).sqrt()
        return F.conv2d(input, weight, self.bias, self.stride, self.padding)


NORMS: dict[str, Callable[[int], nn.Module] | None] = {
    "none": None,
    "batch": BatchNorm,
    "group": group,
}
SETUPS: list[tuple[str, Variant, Placement]] = [
    (norm, variant, placement)
    for norm in NORMS
    for variant in VARIANTS
    for placement in PLACEMENTS
    if norm != "none" or placement == "before"
]


def recipe_of(norm: str, placement: Placement = "before") -> Recipe:
    return Recipe(NORMS[norm], nn.ReLU, placement)


def resnet(
    recipe: Recipe,
    variant: Variant = "post",
    *,
    depth: int = 8,
    width: int = 4,
    fixup: bool = True,
    zero_init_last_norm: bool = False,
    in_channels: int = 2,
) -> ResNet:
    return ResNet(
        in_channels=in_channels,
        classes=3,
        depth=depth,
        recipe=recipe,
        width=width,
        variant=variant,
        fixup=fixup,
        zero_init_last_norm=zero_init_last_norm,
    )


def initialized(model: ResNet, seed: int = 0) -> ResNet:
    initialize(
        model,
        "he",
        lambda name: torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode())),
    )
    return model


def fill(model: nn.Module) -> None:
    """Values that no tensor starts with; running variances stay positive."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                drawn = torch.randn(tensor.shape, generator=random, dtype=torch.float64)
                tensor.copy_(drawn.abs() + 0.5 if tensor.ndim == 1 else drawn / 4)


def images(n: int = 4, side: int = 9, channels: int = 2) -> Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.randn(n, channels, side, side, generator=random, dtype=torch.float64)
