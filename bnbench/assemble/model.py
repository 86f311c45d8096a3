"""Networks with their normalization, their optimizer and its learning rate.

A new normalization is one `case` in `make_norm`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any, Literal, assert_never

import torch
from torch import nn

from bnbench import optim
from bnbench.assemble.custom import load_class
from bnbench.assemble.foreign import foreign_network
from bnbench.assemble.inputs import generator
from bnbench.config import schema
from bnbench.errors import ArgumentError
from bnbench.models import plain, resnet
from bnbench.models import recipe as recipes
from bnbench.models.recipe import Recipe
from bnbench.norms import activated, batch, frozen, group, noisy, renorm, weight

MakeNorm = Callable[[int], nn.Module]
Activation = Literal["relu", "leaky-relu", "gelu", "silu", "tanh", "sigmoid", "selu"]

ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "selu": nn.SELU,
}


def make_model(
    config: schema.RunConfig, image_shape: tuple[int, ...], classes: int, steps: int
) -> nn.Module:
    """The network for images of `image_shape` (C, H, W), initialized, channels-last.

    `steps`: how many the run has; some normalizations change on the way. Raises ValueError where
    normalization and network do not fit together.
    """
    recipe = make_recipe(config, steps)
    model = make_network(config, recipe, image_shape, classes)
    if config.model.init != "own" and not getattr(config.model, "pretrained", None):
        recipes.initialize(model, config.model.init, partial(generator, config.seed, "init"))
    return model.to(memory_format=torch.channels_last)


def make_network(
    config: schema.RunConfig, recipe: Recipe, image_shape: tuple[int, ...], classes: int
) -> nn.Module:
    """The network before its weights are drawn. Raises ValueError where it cannot be made.

    A key of a network is an argument of its class, of the same name.
    """
    channels = image_shape[0]
    keys: dict[str, Any] = config.model.model_dump(exclude={"kind", "init", "activation"})
    model: nn.Module
    match config.model:
        case schema.PlainModel():
            model = plain.Plain(
                in_channels=channels,
                image_size=image_shape[1:],
                classes=classes,
                recipe=recipe,
                **keys,
            )
        case schema.MLPModel():
            features = prod(image_shape)
            model = plain.MLP(features=features, classes=classes, recipe=recipe, **keys)
        case schema.ResNetModel():
            model = resnet.ResNet(in_channels=channels, classes=classes, recipe=recipe, **keys)
        case schema.TorchvisionModel() | schema.TimmModel() | schema.CustomModel():
            model = foreign_network(config.model, config.seed, recipe, image_shape, classes)
        case _:
            assert_never(config.model)
    if config.optim.train_only == "norm":
        recipes.train_only_norm(model)
    return model


def make_recipe(config: schema.RunConfig, steps: int) -> Recipe:
    """How the weight layers of a network are made and followed up, in a run of so many steps.

    Runs no code of the user's own. Raises ArgumentError where network and normalization do not go
    together.
    """
    norm, model = config.norm, config.model
    makes_layers = isinstance(model, schema.ForeignModel)
    recipe = normalized(norm, getattr(model, "activation", "relu"), steps)
    if makes_layers and (recipe.activates or recipe.make_conv is not nn.Conv2d):
        raise ArgumentError(
            f"{norm.kind} changes more than the norm layers, which is all that a {model.kind} "
            "network lets others choose",
            argument="kind",
            hint="model.kind: plain, mlp and resnet take it",
        )
    if makes_layers and recipe.placement == "after":
        raise ArgumentError(
            f"a {model.kind} network decides itself where its norms stand",
            argument="placement",
            hint="leave norm.placement at before",
        )
    if isinstance(norm, schema.InstanceNormConfig) and recipe.placement == "after":
        raise ArgumentError(
            "after the last activation instance norm makes the mean of each channel β, whatever "
            "the image: the head would see no image at all",
            argument="placement",
            hint="write norm.placement: before",
        )
    return recipe


def normalized(norm: schema.NormConfig, activation: Activation, steps: int) -> Recipe:
    """Weight layers, normalization and activation of one kind, in a run of so many steps."""
    recipe = Recipe(
        make_norm=make_norm(norm, steps),
        make_activation=ACTIVATIONS[activation],
        placement=getattr(norm, "placement", "before"),
        activates=isinstance(norm, schema.InsteadOfActivation),
    )
    if isinstance(norm, schema.GroupWSConfig):
        return replace(
            recipe, make_conv=weight.StandardizedConv2d, make_linear=weight.StandardizedLinear
        )
    if isinstance(norm, schema.ScaledWSConfig):
        gain = weight.ACTIVATION_GAINS[activation]
        return replace(
            recipe,
            make_conv=partial(weight.ScaledStandardizedConv2d, activation_gain=gain),
            make_linear=partial(weight.ScaledStandardizedLinear, activation_gain=gain),
        )
    return recipe


def make_norm(norm: schema.NormConfig, steps: int) -> MakeNorm | None:
    """What makes the layers of a kind for a number of channels; None: there are none.

    A key of a normalization is an argument of its layer, of the same name. Fractions of the budget
    become numbers of training steps, of which a run has `steps`.
    """
    keys: dict[str, Any] = norm.model_dump(exclude={"kind", "placement"})
    match norm:
        case schema.NoNorm() | schema.ScaledWSConfig():
            return None
        case schema.BatchNormConfig() | schema.GhostNormConfig():
            if keys["batch_size"] is not None:
                return partial(batch.GhostBatchNorm, **keys)
            del keys["batch_size"]
            return partial(batch.BatchNorm, **keys)
        case schema.BatchRenormConfig():
            fractions = [keys.pop(key) for key in ("correct_from", "r_open", "d_open")]
            first, r_last, d_last = (round(each * steps) for each in fractions)
            keys |= {"r_ramp": (first, r_last), "d_ramp": (first, d_last)}
            return partial(renorm.BatchRenorm, **keys)
        case schema.FrozenNormConfig():
            keys["freeze_after"] = round(norm.freeze_after * steps)
            return partial(frozen.FrozenBatchNorm, **keys)
        case schema.NoisyNormConfig():
            if keys.pop("normalize"):
                return partial(noisy.NoisyBatchNorm, **keys)
            return partial(
                noisy.NoiseAlone, **{key: keys[key] for key in noisy.NoisyBatchNorm.shown}
            )
        case schema.GroupNormConfig() | schema.GroupWSConfig():
            return partial(group.GroupNorm, **keys)
        case schema.LayerNormConfig():
            return partial(group.LayerNorm, **keys)
        case schema.InstanceNormConfig():
            return partial(group.InstanceNorm, **keys)
        case schema.RMSNormConfig():
            return partial(group.RMSNorm, **keys)
        case schema.FRNConfig():
            return partial(activated.FilterResponseNorm, **keys)
        case schema.EvoNormS0Config():
            return partial(activated.EvoNormS0, **keys)
        case schema.CustomNormConfig():
            return partial(_custom_norm, norm)
        case _:
            assert_never(norm)


def _custom_norm(norm: schema.CustomNormConfig, channels: int) -> nn.Module:
    return load_class(norm.target, "norm.target")(channels, **norm.options)


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
