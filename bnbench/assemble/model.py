"""Networks, their optimizer and its learning rate."""

from __future__ import annotations

from functools import partial
from typing import assert_never

import torch
from torch import nn

from bnbench import models, optim
from bnbench.assemble.custom import load_class
from bnbench.assemble.random import derived, generator
from bnbench.assemble.recipe import make_recipe
from bnbench.config import schema


def make_model(
    config: schema.RunConfig, *, image_shape: tuple[int, int, int], classes: int, steps: int
) -> nn.Module:
    """The network for images of `image_shape` (C, H, W), initialized, channels-last.

    `steps`: how many the run has; some normalizations change on the way. Raises ValueError where
    normalization and network do not fit together.
    """
    channels, height, width = image_shape
    recipe = make_recipe(config.norm, config.model, steps)
    model: nn.Module
    match config.model:
        case schema.PlainModel():
            model = models.Plain(
                in_channels=channels,
                classes=classes,
                widths=config.model.widths,
                blocks=config.model.blocks,
                recipe=recipe,
                dropout=config.model.dropout,
            )
        case schema.MLPModel():
            model = models.MLP(
                features=channels * height * width,
                classes=classes,
                widths=config.model.widths,
                recipe=recipe,
                dropout=config.model.dropout,
            )
        case schema.ResNetModel():
            model = models.ResNet(
                in_channels=channels,
                classes=classes,
                depth=config.model.depth,
                width=config.model.width,
                variant=config.model.variant,
                zero_init_last_norm=config.model.zero_init_last_norm,
                fixup=config.model.fixup,
                recipe=recipe,
                dropout=config.model.dropout,
            )
        case schema.TorchvisionModel():
            model = models.torchvision_classifier(
                config.model.name,
                in_channels=channels,
                classes=classes,
                recipe=recipe,
                stem=config.model.stem,
            )
        case schema.CustomModel():
            model = _custom_model(config.model, config.seed, recipe, channels, classes)
        case _:
            assert_never(config.model)
    if config.model.init != "own":
        models.initialize(model, config.model.init, partial(generator, config.seed, "init"))
    if config.optim.train_only == "norm":
        models.train_only_norm(model)
    return model.to(memory_format=torch.channels_last)


def _custom_model(
    config: schema.CustomModel, seed: int, recipe: models.Recipe, channels: int, classes: int
) -> nn.Module:
    make_norm = recipe.make_norm or (lambda _: nn.Identity())
    # Its own initial weights come from torch's own generator: the same in every setup, as long as
    # normalization layers draw nothing when they are made.
    torch.default_generator.manual_seed(derived(seed, "init", "custom"))
    return load_class(config.target, "model.target")(
        in_channels=channels,
        classes=classes,
        make_norm=models.under_the_name_norm(make_norm),
        **config.options,
    )


def make_optimizer(config: schema.OptimConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over all of a model's parameters."""
    groups = optim.parameter_groups(
        model,
        weight_decay=config.weight_decay,
        decay_norm_and_bias=config.decay_norm_and_bias,
    )
    match config:
        case schema.SGDConfig():
            return optim.sgd(groups, momentum=config.momentum)
        case schema.AdamWConfig():
            return optim.adamw(groups, betas=config.betas, eps=config.eps)
        case _:
            assert_never(config)


def learning_rate(config: schema.RunConfig, steps: int) -> optim.LearningRate:
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
