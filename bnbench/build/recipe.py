"""Normalization, activation and weight layers, as a network takes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, assert_never

from torch import nn

from bnbench import models, norms
from bnbench.build.custom import load_class
from bnbench.config import (
    BatchNormConfig,
    BatchRenormConfig,
    CustomModel,
    CustomNormConfig,
    EvoNormS0Config,
    FRNConfig,
    FrozenNormConfig,
    GhostNormConfig,
    GroupNormConfig,
    GroupWSConfig,
    InstanceNormConfig,
    LayerNormConfig,
    ModelConfig,
    NoisyNormConfig,
    NoNorm,
    NormConfig,
    RMSNormConfig,
    ScaledWSConfig,
    TorchvisionModel,
)

MakeNorm = Callable[[int], nn.Module]
Activation = Literal["relu", "leaky-relu", "gelu", "silu", "tanh", "sigmoid"]


def make_recipe(norm: NormConfig, model: ModelConfig, steps: int) -> models.Recipe:
    """How the weight layers of a network are made and followed up, in a run of so many steps."""
    # The others' networks choose their activation themselves.
    activation: Activation = (
        "relu" if isinstance(model, TorchvisionModel | CustomModel) else model.activation
    )
    make_conv: Callable[..., nn.Conv2d] = nn.Conv2d
    make_linear: Callable[..., nn.Linear] = nn.Linear
    match norm:
        case GroupWSConfig():
            make_conv, make_linear = norms.StandardizedConv2d, norms.StandardizedLinear
        case ScaledWSConfig():
            gain = norms.ACTIVATION_GAINS[activation]
            make_conv = partial(norms.ScaledStandardizedConv2d, activation_gain=gain)
            make_linear = partial(norms.ScaledStandardizedLinear, activation_gain=gain)
        case _:
            pass
    return models.Recipe(
        make_norm=make_norm(norm, steps),
        make_activation=make_activation(activation),
        placement="before" if isinstance(norm, NoNorm | ScaledWSConfig) else norm.placement,
        activates=isinstance(norm, FRNConfig | EvoNormS0Config),
        make_conv=make_conv,
        make_linear=make_linear,
    )


def make_norm(config: NormConfig, steps: int) -> MakeNorm | None:
    """What makes a normalization layer for a number of channels; None: there is none.

    Fractions of the budget become numbers of training steps, of which a run has `steps`.
    """
    match config:
        case NoNorm() | ScaledWSConfig():
            return None
        case BatchNormConfig() | GhostNormConfig():
            return partial(
                norms.batch_norm,
                batch_size=config.batch_size,
                momentum=config.momentum,
                eps=config.eps,
                affine=config.affine,
            )
        case BatchRenormConfig():
            start = round(config.correct_from * steps)
            return partial(
                norms.BatchRenorm,
                r_max=config.r_max,
                d_max=config.d_max,
                r_ramp=(start, round(config.r_open * steps)),
                d_ramp=(start, round(config.d_open * steps)),
                momentum=config.momentum,
                eps=config.eps,
                affine=config.affine,
            )
        case FrozenNormConfig():
            return partial(
                norms.FrozenBatchNorm,
                freeze_after=round(config.freeze_after * steps),
                momentum=config.momentum,
                eps=config.eps,
                affine=config.affine,
            )
        case NoisyNormConfig():
            return partial(
                norms.NoisyBatchNorm,
                momentum=config.momentum,
                eps=config.eps,
                affine=config.affine,
            )
        case GroupNormConfig() | GroupWSConfig():
            return partial(
                norms.GroupNorm, groups=config.groups, eps=config.eps, affine=config.affine
            )
        case LayerNormConfig():
            return partial(norms.LayerNorm, eps=config.eps, affine=config.affine)
        case InstanceNormConfig():
            return partial(norms.InstanceNorm, eps=config.eps, affine=config.affine)
        case RMSNormConfig():
            return partial(norms.RMSNorm, eps=config.eps, affine=config.affine)
        case FRNConfig():
            return partial(norms.FilterResponseNorm, eps=config.eps)
        case EvoNormS0Config():
            return partial(norms.EvoNormS0, groups=config.groups, eps=config.eps)
        case CustomNormConfig():
            return partial(load_class(config.target, "norm.target"), **config.options)
        case _:
            assert_never(config)


def make_activation(activation: Activation) -> Callable[[], nn.Module]:
    """What makes an activation layer."""
    match activation:
        case "relu":
            return nn.ReLU
        case "leaky-relu":
            return nn.LeakyReLU
        case "gelu":
            return nn.GELU
        case "silu":
            return nn.SiLU
        case "tanh":
            return nn.Tanh
        case "sigmoid":
            return nn.Sigmoid
        case _:
            assert_never(activation)
