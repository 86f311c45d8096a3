"""Networks without shortcuts: the plain convolutional one and the multilayer perceptron."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from bnbench.models.recipe import Recipe


class Plain(nn.Module):
    """Stages of conv-norm-activation units, global mean, linear head.

    x is (N, in_channels, H, W), the result (N, classes). Convolutions are 3×3 with zero padding
    1; the first one of each stage but the first has stride 2 and halves the resolution. This is
    the plain network of He et al. 2015, https://arxiv.org/abs/1512.03385, section 3.3.
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
    ) -> None:
        super().__init__()
        self.depth = len(widths)
        channels = in_channels
        for s, width in enumerate(widths, start=1):
            units: OrderedDict[str, nn.Module] = OrderedDict()
            for b in range(1, blocks + 1):
                stride = 2 if s > 1 and b == 1 else 1
                conv = recipe.make_conv(
                    channels, width, 3, stride=stride, padding=1, bias=recipe.bias
                )
                units[f"block{b}"] = recipe.unit("conv", conv, width)
                channels = width
            self.add_module(f"stage{s}", nn.Sequential(units))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        for s in range(1, self.depth + 1):
            x = self.get_submodule(f"stage{s}")(x)
        logits: Tensor = self.head(self.dropout(x.mean((2, 3))))
        return logits


class MLP(nn.Module):
    """Fully connected layers, each linear-norm-activation, and a linear head.

    x is (N, in_channels, H, W) with in_channels·H·W = `features`, the result (N, classes). With
    sigmoids and three layers this is the network of Ioffe & Szegedy 2015, section 4.1,
    https://arxiv.org/abs/1502.03167.
    """

    def __init__(
        self,
        *,
        features: int,
        classes: int,
        widths: Sequence[int],
        recipe: Recipe,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.depth = len(widths)
        for i, width in enumerate(widths, start=1):
            linear = recipe.make_linear(features, width, bias=recipe.bias)
            self.add_module(f"layer{i}", recipe.unit("linear", linear, width))
            features = width
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for i in range(1, self.depth + 1):
            x = self.get_submodule(f"layer{i}")(x)
        logits: Tensor = self.head(self.dropout(x))
        return logits
