"""How much memory a run needs, estimated before any of it is taken.

The network is made on torch's meta device, where no weights are drawn, and a batch of no images
goes through it: shapes alone, whatever the numbers in the configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from math import prod
from typing import Any, TypeAlias

import torch
from rich.filesize import decimal
from torch import Tensor, nn

from bnbench.assemble.inputs import norm_batch_size
from bnbench.assemble.model import make_network, make_recipe
from bnbench.config import datasets, feasible, schema
from bnbench.data.synthetic import DRAWN
from bnbench.machine import LIMIT, fits
from bnbench.models.recipe import counts, normalization_layers

Sets = Callable[[torch.Size], object]

FLOAT = 4  # bytes of a number in fp32


@dataclass(slots=True)
class Shapes:
    """What a network holds, as far as it is known.

    `trained`: of the parameters, those that are trained. `products`: multiplications in a forward
    pass of one image. `kept`: how many numbers the gradient of one image needs, which are the
    inputs of weight and normalization layers; `largest`: of one of them. `sets`: of each norm
    layer, what says which values share statistics, and the shape of an image there.
    """

    parameters: int = 0
    trained: int = 0
    products: int = 0
    kept: int = 0
    largest: int = 0
    sets: list[tuple[Sets, torch.Size]] = field(default_factory=list)


def shapes(config: schema.RunConfig) -> Shapes:
    """The shapes of a network. torchvision's is only made, timm's and a user's own not even that;
    their layers count as nothing.

    Raises ValueError where the network cannot be made.
    """
    return _shapes(config, datasets.facts(config.data))


@lru_cache(maxsize=256)  # all of a plan are checked, then their cost is asked
def _shapes(config: schema.RunConfig, dataset: datasets.DatasetFacts) -> Shapes:
    recipe = make_recipe(config, feasible.planned_steps(config))
    if isinstance(config.model, schema.TimmModel | schema.CustomModel):
        return Shapes()
    image = (dataset.channels, dataset.height, dataset.width)
    opaque = isinstance(config.model, schema.TorchvisionModel)
    if isinstance(config.norm, schema.CustomNormConfig):
        recipe = replace(recipe, make_norm=lambda _: nn.Identity())
    with torch.device("meta"):
        network = make_network(config, recipe, image, dataset.classes)
    number = counts(network)
    found = Shapes(number.parameters, number.trainable)
    if not opaque:
        norms = set(normalization_layers(network).values())
        for layer in network.modules():
            if layer in norms or next(layer.parameters(recurse=False), None) is not None:
                layer.forward = partial(_passed, layer, found, norm=layer in norms)
        network.eval()(torch.empty(0, *image))
    return found


def _passed(layer: Any, found: Shapes, x: Tensor, *, norm: bool) -> Tensor:
    """What a layer makes of no images; its input is counted."""
    shape = x.shape[1:]
    linear, convolves = isinstance(layer, nn.Linear), isinstance(layer, nn.Conv2d)
    if norm or linear or convolves:
        found.kept += prod(shape)
        found.largest = max(found.largest, prod(shape))
    if norm:
        found.sets += [(layer.sets, shape)] if hasattr(layer, "sets") else []
    elif linear:
        found.products += layer.weight.numel()
        return x.new_empty(0, layer.out_features)
    elif convolves:
        strided = zip(shape[1:], layer.padding, layer.kernel_size, layer.stride, strict=True)
        sides = [(side + 2 * pad - size) // step + 1 for side, pad, size, step in strided]
        found.products += layer.weight.numel() * prod(sides)
        return x.new_empty(0, layer.out_channels, *sides)
    return x


Need: TypeAlias = tuple[str, tuple[str, ...], int]
"""What takes memory, the keys that decide how much, and bytes."""


def needs(config: schema.RunConfig, shapes: Shapes) -> list[Need]:
    """What a run has in memory at the same time, at least."""
    data, dataset = config.data, datasets.facts(config.data)
    pixels = dataset.channels * dataset.height * dataset.width
    images = (dataset.train_images + dataset.test_images) * pixels * dataset.bytes
    if isinstance(data, schema.CustomData) and not fits(images):
        images = 0  # they stay on disk
    if isinstance(data, schema.SyntheticData):
        images += FLOAT * pixels * (dataset.classes + min(DRAWN, dataset.train_images))
    # Of each trained weight a gradient, and what the optimizer remembers.
    copies = 3 if isinstance(config.optim, schema.AdamWConfig) else 1 + bool(config.optim.momentum)
    kept = shapes.kept * (2 if config.compute.precision == "bf16" else FLOAT)
    seen = max(data.validation_size, dataset.test_images)
    passed = min(max(data.eval_batch_size, norm_batch_size(config)), seen)
    statistics = 3 if isinstance(config.norm, schema.BatchStatistics) else 1
    logits = 8 * seen * dataset.classes * statistics  # in fp64
    size = "data.image_size", "data.channels"
    counts = "data.train_images", "data.test_images"
    width = "model.widths", "model.width", "model.depth", "model.name", "model.kind"
    return [
        ("images", (*counts, *size, "data.dataset"), images),
        ("weights", width, FLOAT * (shapes.parameters + copies * shapes.trained)),
        max(
            ("a training step", ("data.batch_size", *size, *width),
             data.batch_size * (FLOAT * pixels + kept)),
            ("an evaluation", ("data.eval_batch_size", "data.classes", *size, *width),
             logits + FLOAT * passed * max(pixels, shapes.largest)),
            key=lambda need: need[2],
        ),
    ]  # fmt: skip


def obstacle(config: schema.RunConfig, shapes: Shapes, limit: int) -> feasible.Obstacle | None:
    """What keeps a run from training in so many bytes of memory."""
    parts = needs(config, shapes)
    need = sum(size for *_, size in parts)
    on_gpu = need > limit and config.compute.device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        limit = max(limit, torch.cuda.get_device_properties(0).total_memory)
    if need <= limit:
        return None
    _, decisive, _ = max(parts, key=lambda part: part[2])
    keys = tuple(key for key in decisive if _has(config, *key.split(".")))
    shown = ", ".join(f"{what} {decimal(size)}" for what, _, size in parts)
    return feasible.Obstacle(
        keys,
        f"a run needs {decimal(need)} of memory or more ({shown}); this machine has "
        f"{decimal(limit)}",
        f"{LIMIT}={-(-need // 10**9)} in the environment raises the limit",
    )


def _has(config: schema.RunConfig, block: str, key: str) -> bool:
    return key in type(getattr(config, block)).model_fields
