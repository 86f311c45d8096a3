"""Whether networks can be made and trained: each distinct one once, before the first run.

The rules stand in the layers and networks, which raise ArgumentError; here is found which key of
the configuration they speak of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bnbench.assemble.model import make_network, make_recipe
from bnbench.config import datasets, feasible, schema
from bnbench.config.feasible import last_batch, networks
from bnbench.errors import ArgumentError
from bnbench.models.recipe import Recipe, normalization_layers

Refused = tuple[schema.RunConfig, feasible.Obstacle]
Sets = Callable[[torch.Size], object]


def check(configs: Iterable[schema.RunConfig]) -> list[Refused]:
    """The runs whose networks cannot be made or trained, one of each setup, and why.

    Runs no code of the user's own: what that does, only a step of training shows.
    """
    found: list[Refused] = []
    for same in networks(configs):
        obstacle = _obstacle(same[0])
        if obstacle is not None:
            found += [(config, obstacle) for config in one_of_each_setup(same)]
    return found


def one_of_each_setup(configs: Iterable[schema.RunConfig]) -> list[schema.RunConfig]:
    """The first run of each setup."""
    first: dict[str, schema.RunConfig] = {}
    for config in configs:
        first.setdefault(config.setup, config)
    return list(first.values())


def obstacle_of(config: schema.RunConfig, error: ValueError) -> feasible.Obstacle:
    """What a layer or network has said of its arguments, as a fault of the configuration's keys."""
    argument, hint = "kind", None  # a layer that does not say which argument it is
    if isinstance(error, ArgumentError):
        argument, hint = error.argument, error.hint
    of_model = type(config.model).model_fields
    chosen_by = next(key for key in ("widths", "width", "name", "kind") if key in of_model)
    width, suffix = f"model.{chosen_by}", ""  # the key that decides numbers of channels
    keys: tuple[str, ...]
    if argument == "channels":
        keys = (width, "norm.kind")
    elif argument == "batch_size":
        block = "norm" if getattr(config.norm, "batch_size", None) else "data"
        keys = (f"{block}.batch_size", "norm.kind", "model.kind")
    elif argument in type(config.norm).model_fields:
        keys = (f"norm.{argument}", "norm.kind", "model.kind", width)
        suffix = f" ({width})" if argument == "groups" else ""
    elif argument in type(config.optim).model_fields:
        keys = (f"optim.{argument}", "norm.affine", "norm.kind")
    else:
        keys = (f"model.{argument}", "model.name", "model.kind")
    return feasible.Obstacle(tuple(dict.fromkeys(keys)), f"{keys[0]}: {error}{suffix}", hint)


def _obstacle(config: schema.RunConfig) -> feasible.Obstacle | None:
    try:
        recipe = make_recipe(config, feasible.planned_steps(config))
        if isinstance(config.model, schema.CustomModel) or isinstance(
            config.norm, schema.CustomNormConfig
        ):
            return None
        layers = _layers(config, recipe)
        for sets, shape in layers:
            sets(torch.Size((config.data.batch_size, *shape)))
    except ValueError as error:
        return obstacle_of(config, error)
    last = last_batch(config)
    try:
        for sets, shape in layers:
            sets(torch.Size((last, *shape)))
    except ValueError as error:
        return feasible.Obstacle(
            ("data.drop_last", "data.batch_size"),
            f"data.drop_last: the last batch of an epoch has size {last}: {error}",
            "write data.drop_last: true",
        )
    return None


def _layers(config: schema.RunConfig, recipe: Recipe) -> list[tuple[Sets, torch.Size]]:
    """Of each norm layer, what says which values share statistics, and the shape of an image there.

    The network is made on torch's meta device, where no weights are drawn; one image of zeros then
    goes through it on the CPU. (Arithmetic on the meta device would import torch's compiler, which
    takes seconds.) torchvision's networks are only made.
    """
    dataset = datasets.facts(config.data)
    image = (dataset.channels, dataset.side, dataset.side)
    if isinstance(config.model, schema.TorchvisionModel):
        # The identity as its norm: finding biases for "none" takes arithmetic.
        recipe = replace(recipe, make_norm=recipe.make_norm or (lambda _: nn.Identity()))
    with torch.device("meta"):
        network = make_network(config, recipe, image, dataset.classes)
    if isinstance(config.model, schema.TorchvisionModel):
        return []
    found: list[tuple[Sets, torch.Size]] = []

    def record(layer: Any, x: Tensor) -> Tensor:
        found.append((layer.sets, x.shape[1:]))
        return x

    for layer in normalization_layers(network).values():
        if hasattr(layer, "sets"):
            layer.forward = partial(record, layer)
    zeros = {
        name: torch.zeros(tensor.shape, dtype=tensor.dtype)
        for name, tensor in (*network.named_parameters(), *network.named_buffers())
    }
    with torch.no_grad():
        functional_call(network.eval(), zeros, torch.zeros(1, *image))
    return found
