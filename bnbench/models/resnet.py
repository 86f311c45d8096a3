"""Residual networks for small images: the CIFAR family, with the norm on either side.

Without normalization they start from Fixup, so that the comparison with "none" is fair.
"""

from __future__ import annotations

from collections import OrderedDict
from math import sqrt
from typing import Literal

import torch
from torch import Tensor, nn

from bnbench.errors import ArgumentError
from bnbench.models.recipe import Recipe

Variant = Literal["post", "pre"]

STAGES = (1, 2, 3)


class ResNet(nn.Module):
    """Stem, three stages of residual blocks, global mean, linear head.

    x is (N, in_channels, H, W), the result (N, classes). A 3×3 stem with stride 1; n blocks a
    stage with `width`, 2·`width`, 4·`width` channels, where depth = 6n + 2; the first block of the
    second and of the third stage halves the resolution. This is the network of He et al. 2015,
    https://arxiv.org/abs/1512.03385, section 4.2, with projection shortcuts (option B) in place of
    its zero-padded ones. `variant`: see `ResidualBlock`.

    `zero_init_last_norm`: γ of each branch's last norm starts at 0, so that each block starts as
    its shortcut (Goyal et al. 2017, https://arxiv.org/abs/1706.02677, section 5.1). It needs a
    branch that ends in its norm, which is the case in variant post with placement before; without
    normalization there is no γ and nothing happens.

    `fixup`: without normalization, start from Fixup (Zhang, Dauphin & Ma 2019,
    https://arxiv.org/abs/1901.09321, section 3): with L residual branches of m = 2 convolutions,

        last convolution of each branch, head: 0
        other convolutions in branches: × L^(−1/(2m − 2))

    and a scalar bias (0) before each convolution but the stem's, each activation and the head, and
    a scalar multiplier (1) at the end of each branch. The convolutions keep their biases, one a
    channel, in addition to the paper's scalars: the β of the norms compared with is one a channel.
    Weights that are standardized have no scale, and none at 0: with them the multipliers start at
    0 instead (SkipInit: De & Smith 2020, https://arxiv.org/abs/2002.10444). Where there is a norm
    `fixup` changes nothing.

    Raises ArgumentError for a depth that is not 6n + 2, and for a zero-initialized norm that does
    not end its branch or has no γ.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        classes: int,
        depth: int,
        recipe: Recipe,
        width: int = 16,
        variant: Variant = "post",
        zero_init_last_norm: bool = False,
        fixup: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        blocks = _blocks_per_stage(depth)
        self.fixup = fixup and recipe.make_norm is None

        conv = recipe.make_conv(in_channels, width, 3, padding=1, bias=recipe.bias)
        follow_up = recipe.follow_up(width) if variant == "post" else {}
        self.stem = _sequence({"conv": conv} | self._shifted(follow_up))
        channels = width
        for s in STAGES:
            out_channels = width * 2 ** (s - 1)
            stage: dict[str, nn.Module] = {}
            for b in range(1, blocks + 1):
                stage[f"block{b}"] = ResidualBlock(
                    channels,
                    out_channels,
                    recipe=recipe,
                    variant=variant,
                    stride=2 if s > 1 and b == 1 else 1,
                    opens_stage=b == 1,
                    fixup=self.fixup,
                )
                channels = out_channels
            self.add_module(f"stage{s}", _sequence(stage))
        follow_up = recipe.follow_up(channels) if variant == "pre" else {}
        self.final = _sequence(self._shifted(follow_up))
        self.dropout = nn.Dropout(dropout)
        self.shift_head = Shift() if self.fixup else nn.Identity()
        self.head = nn.Linear(channels, classes)
        if zero_init_last_norm and recipe.make_norm is not None:
            self._zero_last_norms(recipe, variant)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for s in STAGES:
            x = self.get_submodule(f"stage{s}")(x)
        features = self.dropout(self.final(x).mean((2, 3)))
        logits: Tensor = self.head(self.shift_head(features))
        return logits

    @torch.no_grad()
    def adjust_initial_weights(self) -> None:
        """Rescale freshly drawn weights as Fixup asks; `initialize` calls this once."""
        if not self.fixup:
            return
        blocks = self._blocks()
        for block in blocks:
            block.apply_fixup(branches=len(blocks))
        self.head.weight.zero_()

    def _blocks(self) -> list[ResidualBlock]:
        return [module for module in self.modules() if isinstance(module, ResidualBlock)]

    def _shifted(self, layers: dict[str, nn.Module]) -> dict[str, nn.Module]:
        return _with_shifts(layers) if self.fixup else layers

    @torch.no_grad()
    def _zero_last_norms(self, recipe: Recipe, variant: Variant) -> None:
        def refused(why: str, hint: str | None = None) -> ArgumentError:
            return ArgumentError(why, argument="zero_init_last_norm", hint=hint)

        if recipe.activates:
            raise refused("a norm that is the activation as well cannot end a branch")
        if variant == "pre":
            raise refused("in variant pre a branch ends in a convolution", "write variant: post")
        if recipe.placement == "after":
            raise refused(
                "with placement after a branch ends in a convolution", "write placement: before"
            )
        for block in self._blocks():
            gamma = getattr(block.branch.get_submodule("norm2"), "weight", None)
            if not isinstance(gamma, nn.Parameter):
                raise refused("the norms have no γ", "affine norms have one")
            gamma.zero_()


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut.

        x ──▶ entry ─┬─▶ branch ──▶ (+) ──▶ exit ──▶
                     └─▶ shortcut ──┘

    post (He et al. 2015, https://arxiv.org/abs/1512.03385, Figure 2):

                            branch                               exit
        before      conv1 norm1 activation1 conv2 norm2 ──(+)──  activation2
        after       conv1 activation1 norm1 conv2 ────────(+)──  activation2 norm2
        activates   conv1 norm1 conv2 ────────────────────(+)──  norm2

    pre (He et al. 2016, https://arxiv.org/abs/1603.05027, Figure 4e):

                    entry               branch
        before      norm1 activation1   conv1 norm2 activation2 conv2 ──(+)
        after       activation1 norm1   conv1 activation2 norm2 conv2 ──(+)
        activates   norm1               conv1 norm2 conv2 ──────────────(+)

    Each placement has two norms a block, with the same parameters. The shortcut of pre starts
    before `entry`, except in the first block of a stage, where both paths share it (ibid.,
    appendix, and the authors' code, https://github.com/KaimingHe/resnet-1k-layers).

    A norm that is also the activation (`activates`) cannot end a branch: FRN and EvoNorm without
    their activation are other layers (timm's EvoNorm-S0 then does not normalize at all). It takes
    the place of the activation after the sum.

    Where the shape changes the shortcut is a 1×1 convolution, in post with a norm after it in
    both placements; not with `activates`, since nothing else bends a shortcut. It has no bias: it
    would be added to that of conv2 or of a norm.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        recipe: Recipe,
        variant: Variant,
        stride: int,
        opens_stage: bool,
        fixup: bool,
    ) -> None:
        super().__init__()
        conv1 = recipe.make_conv(
            in_channels, channels, 3, stride=stride, padding=1, bias=recipe.bias
        )
        conv2 = recipe.make_conv(channels, channels, 3, padding=1, bias=recipe.bias)
        second = _numbered(recipe.follow_up(channels), 2)
        entry: dict[str, nn.Module] = {}
        exit_: dict[str, nn.Module] = {}
        if variant == "post":
            first = _numbered(recipe.follow_up(channels), 1)
            branch = {"conv1": conv1} | first | {"conv2": conv2}
            exit_ = second
            if "norm2" in second and recipe.placement == "before" and not recipe.activates:
                branch["norm2"] = second.pop("norm2")
        else:
            entry = _numbered(recipe.follow_up(in_channels), 1)
            branch = {"conv1": conv1} | second | {"conv2": conv2}

        shortcut: dict[str, nn.Module] = {}
        if stride != 1 or in_channels != channels:
            shortcut["conv"] = recipe.make_conv(in_channels, channels, 1, stride=stride, bias=False)
            if variant == "post" and recipe.make_norm is not None and not recipe.activates:
                shortcut["norm"] = recipe.make_norm(channels)

        # Other convolutions than torch's standardize their weights: scale and zeros mean nothing.
        self.scale_free = type(conv2) is not nn.Conv2d
        if fixup:
            entry, branch, exit_, shortcut = map(_with_shifts, (entry, branch, exit_, shortcut))
            branch["multiplier"] = Multiplier(0.0 if self.scale_free else 1.0)
        self.entry = _sequence(entry)
        self.branch = _sequence(branch)
        self.shortcut = _sequence(shortcut)
        self.exit = _sequence(exit_)
        self.shares_entry = opens_stage

    def forward(self, x: Tensor) -> Tensor:
        entered = self.entry(x)
        kept = self.shortcut(entered if self.shares_entry else x)
        result: Tensor = self.exit(kept + self.branch(entered))
        return result

    @torch.no_grad()
    def apply_fixup(self, *, branches: int) -> None:
        """Scale the branch's convolutions in a network of so many residual branches."""
        if not self.scale_free:
            self.branch.get_parameter("conv1.weight").mul_(1 / sqrt(branches))  # m = 2
            self.branch.get_parameter("conv2.weight").zero_()


class Shift(nn.Module):
    """x + b for one number b, which starts at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class Multiplier(nn.Module):
    """a·x for one number a."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def _blocks_per_stage(depth: int) -> int:
    """The n of depth = 6n + 2."""
    if depth < 8 or (depth - 2) % 6:
        raise ArgumentError(
            f"{depth} is not 6n + 2", argument="depth", hint="8, 14, 20, 32, 44, 56, 110"
        )
    return (depth - 2) // 6


def _numbered(layers: dict[str, nn.Module], number: int) -> dict[str, nn.Module]:
    return {f"{name}{number}": layer for name, layer in layers.items()}


def _with_shifts(layers: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """A Shift in front of each layer."""
    shifted: dict[str, nn.Module] = {}
    for name, layer in layers.items():
        shifted[f"shift_{name}"] = Shift()
        shifted[name] = layer
    return shifted


def _sequence(layers: dict[str, nn.Module]) -> nn.Sequential:
    """The layers in a row; without any, the identity."""
    return nn.Sequential(OrderedDict(layers))
