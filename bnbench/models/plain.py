"""Networks without shortcuts: the plain convolutional one and the multilayer perceptron."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Literal

from torch import Tensor, nn

from bnbench.errors import ArgumentError
from bnbench.models.recipe import Recipe

POOLING: dict[str, Callable[[], nn.Module]] = {
    "stride": nn.Identity,
    "average": partial(nn.AvgPool2d, 2),
    "max": partial(nn.MaxPool2d, 2),
}


class Plain(nn.Module):
    """Stages of conv-norm-activation units, global mean, linear head.

    x is (N, in_channels, H, W), the result (N, classes). Convolutions are 3×3 with zero padding
    1; the first one of each stage but the first has stride 2 and halves the resolution. This is
    the plain network of He et al. 2015, https://arxiv.org/abs/1512.03385, section 3.3.

    `kernel` and `padding` (zeros, for the convolutions of each stage; None: half the kernel) give
    other convolutions. `halving`: average or max, pooling of 2×2 after each stage instead of a
    stride. `features`: all, the head sees every pixel, of images of `image_size` (H, W), instead of
    each channel's mean. `hidden`: units of linear-norm-activation layers before the head. LeNet
    (LeCun et al. 1998, https://doi.org/10.1109/5.726791, Fig. 2) is such a network.

    Raises ValueError where nothing is left of the images, or `padding` is not of each stage.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        classes: int,
        widths: Sequence[int],
        blocks: int,
        recipe: Recipe,
        dropout: float = 0.0,
        image_size: tuple[int, ...] = (),
        kernel: int = 3,
        padding: Sequence[int] | None = None,
        halving: Literal["stride", "average", "max"] = "stride",
        features: Literal["mean", "all"] = "mean",
        hidden: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.depth, self.hidden, self.features = len(widths), len(hidden), features
        self.pool = POOLING[halving]()
        around = [kernel // 2] * self.depth if padding is None else padding
        if len(around) != self.depth:
            raise ArgumentError(
                f"padding is of {len(around)} stages, the network has {self.depth}",
                argument="padding",
            )
        channels, sides = in_channels, list(image_size)
        for s, (width, zeros) in enumerate(zip(widths, around, strict=True), start=1):
            units: OrderedDict[str, nn.Module] = OrderedDict()
            for b in range(1, blocks + 1):
                stride = 2 if s > 1 and b == 1 and halving == "stride" else 1
                conv = recipe.make_conv(
                    channels, width, kernel, stride=stride, padding=zeros, bias=recipe.bias
                )
                sides = [(side + 2 * zeros - kernel) // stride + 1 for side in sides]
                units[f"block{b}"] = recipe.unit("conv", conv, width)
                channels = width
            self.add_module(f"stage{s}", nn.Sequential(units))
            sides = [side // (1 if halving == "stride" else 2) for side in sides]
        if any(side < 1 for side in sides):
            raise ArgumentError(
                f"{self.depth} stages leave nothing of images of {'×'.join(map(str, image_size))}",
                argument="widths",
                hint="fewer stages, a smaller kernel, or more padding",
            )
        size = channels * (prod(sides) if features == "all" else 1)
        for i, width in enumerate(hidden, start=1):
            linear = recipe.make_linear(size, width, bias=recipe.bias)
            self.add_module(f"hidden{i}", recipe.unit("linear", linear, width))
            size = width
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(size, classes)

    def forward(self, x: Tensor) -> Tensor:
        for s in range(1, self.depth + 1):
            x = self.pool(self.get_submodule(f"stage{s}")(x))
        x = x.flatten(1) if self.features == "all" else x.mean((2, 3))
        for i in range(1, self.hidden + 1):
            x = self.get_submodule(f"hidden{i}")(x)
        logits: Tensor = self.head(self.dropout(x))
        return logits


class MLP(nn.Module):
    """Fully connected layers, each linear-norm-activation, and a linear head.

    x is (N, in_channels, H, W) with in_channels·H·W = `features`, the result (N, classes). With
    sigmoids and three layers this is the network of Ioffe & Szegedy 2015, section 4.1,
    https://arxiv.org/abs/1502.03167.

    `depth`: hidden layers, the last width being repeated until there are so many; None: as many as
    widths. `norm_inputs`: the pixels are normalized first, each of them as a channel.

    Raises ValueError where `depth` is less than there are widths.
    """

    def __init__(
        self,
        *,
        features: int,
        classes: int,
        widths: Sequence[int],
        recipe: Recipe,
        dropout: float = 0.0,
        depth: int | None = None,
        norm_inputs: bool = False,
    ) -> None:
        super().__init__()
        self.depth = depth or len(widths)
        if self.depth < len(widths):
            raise ArgumentError(
                f"{len(widths)} widths are more than {self.depth} layers",
                argument="depth",
            )
        if norm_inputs and recipe.make_norm is not None:
            self.norm = recipe.make_norm(features)
        again = [widths[-1]] * (self.depth - len(widths))
        for i, width in enumerate([*widths, *again], start=1):
            linear = recipe.make_linear(features, width, bias=recipe.bias)
            self.add_module(f"layer{i}", recipe.unit("linear", linear, width))
            features = width
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if hasattr(self, "norm"):
            x = self.norm(x)
        for i in range(1, self.depth + 1):
            x = self.get_submodule(f"layer{i}")(x)
        logits: Tensor = self.head(self.dropout(x))
        return logits
