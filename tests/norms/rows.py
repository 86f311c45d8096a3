"""One row per normalization: what `test_properties` and `test_slow_loop` test it with.

A new normalization adds its row here; a test fails until there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, get_args

import torch
from timm.layers.evo_norm import EvoNorm2dS0
from timm.layers.filter_response_norm import FilterResponseNormTlu2d
from torch import Tensor, nn
from torch.nn import functional as F

from bnbench.assemble.model import normalized
from bnbench.config import schema
from bnbench.norms import noisy

C = 4
STEPS = 100
"""Of the run that a layer is made for: fractions of the budget become steps."""


@dataclass(frozen=True)
class Row:
    """A kind of normalization.

    `settings`: its keys, for layers of 4 channels and more. `nearest`: torch's layer (else timm's)
    that is closest to it, for a number of channels. `alone`: what it says of an image of one
    channel and one position. `shares`: names the set of values that image n, channel c is
    normalized with, where the formula is (x − mean) / √(variance + ε). `make`: the layer, where
    settings cannot say which one is compared.
    """

    nearest: Callable[[int], nn.Module]
    alone: str
    settings: dict[str, Any]
    shares: Callable[[int, int], Hashable] | None = None
    needs_positions: bool = False  # refuses one value per channel of an image
    make: Callable[[int], nn.Module] | None = None


class ImageRMSNorm(nn.Module):
    """torch's rms_norm over whole images."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[1:], eps=1e-5)


def groups(channels: int) -> int:
    """Two groups, if there are so many channels."""
    return min(2, channels)


ONE_VALUE = "1 channel of 1 image on a 1×1 map leaves one value per statistic"

ROWS = {
    "batch": Row(nn.BatchNorm2d, ONE_VALUE, {}, shares=lambda _, c: c),
    "ghost": Row(
        nn.BatchNorm2d,
        "1 examples do not split into chunks of 2",
        {"batch_size": 2},
        shares=lambda n, c: ((0, 0, 1, 1, 2, 2)[n], c),
    ),
    "batch-renorm": Row(nn.BatchNorm2d, ONE_VALUE, {}),
    "frozen": Row(nn.BatchNorm2d, ONE_VALUE, {"freeze_after": 0.09}),
    "noisy": Row(
        nn.BatchNorm2d,
        ONE_VALUE,
        {},
        make=lambda c: noisy.NoisyBatchNorm(
            c, mean_range=0.0, std_range=1.0, mean_jitter=0.0, std_jitter=0.0
        ),
    ),
    "group": Row(
        lambda c: nn.GroupNorm(groups(c), c),
        ONE_VALUE,
        {"groups": 2},
        shares=lambda n, c: (n, "first two channels" if c in (0, 1) else "last two"),
    ),
    "layer": Row(
        lambda c: nn.GroupNorm(1, c),
        ONE_VALUE,
        {},
        shares=lambda n, _: n,
    ),
    "instance": Row(
        nn.InstanceNorm2d,
        ONE_VALUE,
        {},
        shares=lambda n, c: (n, c),
        needs_positions=True,
    ),
    "rms": Row(lambda _: ImageRMSNorm(), ONE_VALUE, {}),
    "frn": Row(
        lambda c: FilterResponseNormTlu2d(c, eps=1e-6),
        ONE_VALUE,
        {},
        needs_positions=True,
    ),
    "evonorm-s0": Row(lambda c: EvoNorm2dS0(c, groups=groups(c)), ONE_VALUE, {"groups": 2}),
}

KINDS: dict[str, type[schema.Block]] = {
    kind: block
    for block in get_args(get_args(schema.NormConfig)[0])
    for kind in get_args(block.model_fields["kind"].annotation)
}
"""All kinds of normalization and their classes of settings."""

OF_BATCH = [kind for kind in ROWS if KINDS[kind] in get_args(schema.BatchStatistics)]
OF_IMAGE = [kind for kind in ROWS if kind not in OF_BATCH]


def settings(kind: str, **changes: Any) -> Any:
    """The settings of a kind as in its row, or the defaults, with changes."""
    keys = ROWS[kind].settings if kind in ROWS else {}
    return KINDS[kind].model_validate({"kind": kind, **keys, **changes})


def layer(kind: str, channels: int = C, **changes: Any) -> nn.Module:
    """The layer of a row, as a configuration makes it."""
    make = ROWS[kind].make
    if make is not None and not changes:
        return make(channels)
    if "groups" in ROWS[kind].settings:
        changes["groups"] = groups(channels)
    made = normalized(settings(kind, **changes), "relu", STEPS).make_norm
    assert made is not None
    return made(channels)


def draw(*sizes: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in fp64."""
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def example(shape: tuple[int, ...]) -> Tensor:
    """Values around 100, in channels of different scales: statistics of the wrong ones show."""
    scale = torch.arange(1, shape[1] + 1, dtype=torch.float64)
    return draw(*shape) * scale.view(1, -1, *[1] * (len(shape) - 2)) + 100
