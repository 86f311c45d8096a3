"""Networks, their normalization, their optimizer and its learning rate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import assert_never

import torch
from torch import nn

from bnbench import models, norms, optim
from bnbench.build.random import generator
from bnbench.config import (
    AdamWConfig,
    BatchNormConfig,
    GroupNormConfig,
    LayerNormConfig,
    MLPModel,
    ModelConfig,
    NoNorm,
    NormConfig,
    OptimConfig,
    PlainModel,
    RunConfig,
    SGDConfig,
)


def make_norm(config: NormConfig) -> Callable[[int], nn.Module] | None:
    """What makes a normalization layer for a number of channels; None: there is none."""
    match config:
        case NoNorm():
            return None
        case BatchNormConfig():
            return partial(
                norms.batch_norm,
                batch_size=config.batch_size,
                momentum=config.momentum,
                eps=config.eps,
                affine=config.affine,
            )
        case GroupNormConfig():
            return partial(
                norms.GroupNorm, groups=config.groups, eps=config.eps, affine=config.affine
            )
        case LayerNormConfig():
            return partial(norms.LayerNorm, eps=config.eps, affine=config.affine)
        case _:
            assert_never(config)


def make_activation(config: ModelConfig) -> Callable[[], nn.Module]:
    """What makes an activation layer."""
    match config.activation:
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
            assert_never(config.activation)


def make_model(config: RunConfig, *, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The network for images of `image_shape` (C, H, W), initialized, channels-last.

    Raises ValueError where normalization and network do not fit together.
    """
    channels, height, width = image_shape
    recipe = models.Recipe(
        make_norm=make_norm(config.norm),
        make_activation=make_activation(config.model),
        placement="before" if isinstance(config.norm, NoNorm) else config.norm.placement,
    )
    model: nn.Module
    match config.model:
        case PlainModel():
            model = models.Plain(
                in_channels=channels,
                classes=classes,
                widths=config.model.widths,
                blocks=config.model.blocks,
                recipe=recipe,
                dropout=config.model.dropout,
            )
        case MLPModel():
            model = models.MLP(
                features=channels * height * width,
                classes=classes,
                widths=config.model.widths,
                recipe=recipe,
                dropout=config.model.dropout,
            )
        case _:
            assert_never(config.model)
    models.initialize(model, config.model.init, partial(generator, config.seed, "init"))
    return model.to(memory_format=torch.channels_last)


def make_optimizer(config: OptimConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over all of a model's parameters."""
    groups = optim.parameter_groups(
        model,
        weight_decay=config.weight_decay,
        decay_norm_and_bias=config.decay_norm_and_bias,
    )
    match config:
        case SGDConfig():
            return optim.sgd(groups, momentum=config.momentum)
        case AdamWConfig():
            return optim.adamw(groups, betas=config.betas, eps=config.eps)
        case _:
            assert_never(config)


def learning_rate(config: RunConfig, steps: int) -> optim.LearningRate:
    """The learning rate of each of `steps` steps."""
    settings = config.optim
    peak = optim.scaled_lr(
        settings.lr,
        rule=settings.lr_rule,
        batch_size=config.data.batch_size,
        base_batch_size=settings.base_batch_size,
    )
    match settings.schedule:
        case "constant":
            return optim.constant(peak, total_steps=steps, warmup=settings.warmup)
        case "cosine":
            return optim.cosine(peak, total_steps=steps, warmup=settings.warmup)
        case "step":
            return optim.stepwise(
                peak,
                total_steps=steps,
                warmup=settings.warmup,
                milestones=settings.milestones,
                decay=settings.decay,
            )
        case _:
            assert_never(settings.schedule)
