"""The multilayer perceptron: the network of the covariate-shift experiments."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from bnbench.models.recipe import Recipe


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
