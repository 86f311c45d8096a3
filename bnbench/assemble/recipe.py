"""Normalization, activation and weight layers, as a network takes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, assert_never

from torch import nn

from bnbench import models, norms
from bnbench.assemble.custom import load_class
from bnbench.config import schema

MakeNorm = Callable[[int], nn.Module]
Activation = Literal["relu", "leaky-relu", "gelu", "silu", "tanh", "sigmoid"]


def make_recipe(norm: schema.NormConfig, model: schema.ModelConfig, steps: int) -> models.Recipe:
    """How the weight layers of a network are made and followed up, in a run of so many steps."""
    # The others' networks choose their activation themselves.
    activation: Activation = (
        "relu"
        if isinstance(model, schema.TorchvisionModel | schema.CustomModel)
        else model.activation
    )
    make_conv: Callable[..., nn.Conv2d] = nn.Conv2d
    make_linear: Callable[..., nn.Linear] = nn.Linear
    match norm:
        case schema.GroupWSConfig():
            make_conv, make_linear = norms.StandardizedConv2d, norms.StandardizedLinear
        case schema.ScaledWSConfig():
            gain = norms.ACTIVATION_GAINS[activation]
            make_conv = partial(norms.ScaledStandardizedConv2d, activation_gain=gain)
            make_linear = partial(norms.ScaledStandardizedLinear, activation_gain=gain)
        case _:
            pass
    return models.Recipe(
        make_norm=make_norm(norm, steps),
        make_activation=make_activation(activation),
        placement="before"
        if isinstance(norm, schema.NoNorm | schema.ScaledWSConfig)
        else norm.placement,
        activates=isinstance(norm, schema.FRNConfig | schema.EvoNormS0Config),
        make_conv=make_conv,
        make_linear=make_linear,
    )


def make_norm(config: schema.NormConfig, steps: int) -> MakeNorm | None:
    """What makes a normalization layer for a number of channels; None: there is none.

    Fractions of the budget become numbers of training steps, of which a run has `steps`.
    """
    match config:
        case schema.NoNorm() | schema.ScaledWSConfig():
            return None
        case schema.BatchNormConfig() | schema.GhostNormConfig():
            return partial(
                norms.batch_norm,
                batch_size=config.batch_size,
                momentum=config.momentum,
                eps=config.eps,
                affine=config.affine,
            )
        case schema.BatchRenormConfig():
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
        case schema.FrozenNormConfig():
            return partial(
                norms.FrozenBatchNorm,
                freeze_after=round(config.freeze_after * steps),
                momentum=config.momentum,
                eps=config.eps,
                affine=config.affine,
            )
        case schema.NoisyNormConfig():
            return partial(
                norms.NoisyBatchNorm,
                momentum=config.momentum,
                eps=config.eps,
                affine=config.affine,
            )
        case schema.GroupNormConfig() | schema.GroupWSConfig():
            return partial(
                norms.GroupNorm, groups=config.groups, eps=config.eps, affine=config.affine
            )
        case schema.LayerNormConfig():
            return partial(norms.LayerNorm, eps=config.eps, affine=config.affine)
        case schema.InstanceNormConfig():
            return partial(norms.InstanceNorm, eps=config.eps, affine=config.affine)
        case schema.RMSNormConfig():
            return partial(norms.RMSNorm, eps=config.eps, affine=config.affine)
        case schema.FRNConfig():
            return partial(norms.FilterResponseNorm, eps=config.eps)
        case schema.EvoNormS0Config():
            return partial(norms.EvoNormS0, groups=config.groups, eps=config.eps)
        case schema.CustomNormConfig():
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
