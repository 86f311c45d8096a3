"""Whether networks can be made and trained on this machine: each distinct one once, before the
first run.

The rules stand in the layers and networks, which raise ArgumentError; here is found which key of
the configuration they speak of.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from bnbench.assemble import demand
from bnbench.config import feasible, schema
from bnbench.config.feasible import last_batch, networks
from bnbench.errors import ArgumentError, UsageError
from bnbench.machine import memory_limit

Refused = tuple[schema.RunConfig, feasible.Obstacle]


def check(configs: Iterable[schema.RunConfig]) -> list[Refused]:
    """The runs whose networks cannot be made or trained, one of each setup, and why.

    Runs no code of the user's own: what that does, only a step of training shows. Says nothing of
    runs whose images have yet to be prepared.
    """
    try:
        limit = memory_limit()
    except ValueError as error:
        raise UsageError(str(error), do="write a number of gigabytes, such as 64") from None
    found: list[Refused] = []
    for same in networks(filter(feasible.known, configs)):
        shapes, obstacle = _examined(same[0])
        if obstacle is not None:
            found += [(config, obstacle) for config in one_of_each_setup(same)]
        elif limit is not None:
            large = {config.setup: (config, fault) for config in reversed(same)
                     if (fault := demand.obstacle(config, shapes, limit))}  # fmt: skip
            found += large.values()
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


def _examined(config: schema.RunConfig) -> tuple[demand.Shapes, feasible.Obstacle | None]:
    """The shapes of a network, and what keeps it from being made or trained."""
    shapes = demand.Shapes()
    try:
        shapes = demand.shapes(config)
        for sets, shape in shapes.sets:
            sets(torch.Size((config.data.batch_size, *shape)))
    except ValueError as error:
        return shapes, obstacle_of(config, error)
    last = last_batch(config)
    try:
        for sets, shape in shapes.sets:
            sets(torch.Size((last, *shape)))
    except ValueError as error:
        return shapes, feasible.Obstacle(
            ("data.drop_last", "data.batch_size"),
            f"data.drop_last: the last batch of an epoch has size {last}: {error}",
            "write data.drop_last: true",
        )
    return shapes, None
