"""Networks that are written elsewhere: built, given their weights, their norms exchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_never

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from bnbench.assemble import checkpoints
from bnbench.assemble.custom import load_class, load_function
from bnbench.assemble.inputs import Announce, derived
from bnbench.config import custom, schema
from bnbench.errors import ArgumentError
from bnbench.models.recipe import Recipe, named_norm
from bnbench.models.swap import swap_norms
from bnbench.models.timm_classifier import timm_classifier
from bnbench.models.torchvision_classifier import torchvision_classifier
from bnbench.wording import PATH_LENGTH, counted, cut, shortened, sizes


def foreign_network(
    config: schema.TorchvisionModel | schema.TimmModel | schema.CustomModel,
    seed: int,
    recipe: Recipe,
    image_shape: tuple[int, ...],
    classes: int,
) -> nn.Module:
    """The network with the norms of the recipe. Raises ValueError where they do not fit together.

    Weights that are not drawn by name come from torch's own generator: the same in every setup, as
    long as normalization layers draw nothing when they are made.
    """
    torch.default_generator.manual_seed(derived(seed, "init", "custom"))
    named = {"in_channels": image_shape[0], "classes": classes}
    swapped = True
    match config:
        case schema.TimmModel():
            network = timm_classifier(config.name, options=config.options, **named)
        case schema.TorchvisionModel():
            swapped = config.norm == "swap"
            network = torchvision_classifier(
                config.name, stem=config.stem, any_name=swapped, **named
            )
        case schema.CustomModel() if config.norm == "swap":
            built = load_function(config.target, "model.target")(**named, **config.options)
            if not isinstance(built, nn.Module):
                raise ArgumentError(
                    f"it returns a {type(built).__name__}, not a torch.nn.Module",
                    argument="target",
                )
            network = built
        case schema.CustomModel():
            make_norm = named_norm(recipe.make_norm or (lambda _: nn.Identity()))
            made = load_class(config.target, "model.target")
            return _with_copies(made(**named, make_norm=make_norm, **config.options))
        case _:
            assert_never(config)
    on_meta = any(each.is_meta for each in network.parameters())
    if config.pretrained is not None and not on_meta:
        load_pretrained(network, config.pretrained, classes, image_shape[0])
    make, example = recipe.make_norm, None if on_meta else torch.zeros(1, *image_shape)
    try:
        network, _ = swap_norms(
            network,
            lambda old: nn.Identity() if make is None else make(old.num_features),
            example=example,
            # torchvision's own norm_layer makes no bias, whatever the norm.
            biases=swapped or make is None,
        )
    except (AssertionError, RuntimeError) as error:
        if isinstance(config, schema.CustomModel):
            raise
        raise _too_small(config.name, image_shape, error) from error
    return _with_copies(network) if isinstance(config, schema.CustomModel) else network


def _too_small(name: str, image_shape: tuple[int, ...], error: Exception) -> ArgumentError:
    """What to say where an image does not go through a network of a library."""
    size, why = "×".join(map(str, image_shape[1:])), shortened(str(error), PATH_LENGTH)
    return ArgumentError(
        f"images of {size} do not go through {name}: {why}",
        argument="name",
        hint="give larger images (Inception v3: 75×75 at least), or take another network",
    )


def load_pretrained(network: nn.Module, file: str, classes: int, channels: int) -> None:
    """Put the weights in a file into the network, which takes images of so many channels.

    The last layer with one output a class stays as it is, where the file has it for other classes.
    Raises ArgumentError where the file is of another network; DataError, StorageError where it
    cannot be read.
    """
    name = shortened(file, PATH_LENGTH)
    _, found = checkpoints.with_state_dict(name, custom.content(Path(file)))
    own = network.state_dict()
    saved, _, left = checkpoints.part_for(name, own, found)
    if left:
        hint = "save the part that is meant alone"
        raise ArgumentError(left, argument="pretrained", hint=hint)
    differ = checkpoints.other_shapes(saved, own)
    weighted = [
        each for each in network.named_modules() if isinstance(each[1], _ConvNd | nn.Linear)
    ]
    heads = [layer for layer, module in weighted if len(module.weight) == classes]
    head = {f"{heads[-1]}.weight", f"{heads[-1]}.bias"} if heads else set()
    head = head if head & differ.keys() else set()
    said = {key: words for key, words in differ.items() if key not in head}
    if wrong := checkpoints.other_names(saved, own):
        raise ArgumentError(
            f"{name} is of another network: {cut([wrong, *said.values()], '; ')}",
            argument="pretrained",
            hint="it must fit the network as it is built, before its norms are exchanged",
        )
    if said:
        hint = _hint([(saved[key], own[key]) for key in said], channels)
        raise ArgumentError(f"{name}: {cut([*said.values()])}", argument="pretrained", hint=hint)
    network.load_state_dict(
        {key: saved[key] for key in own.keys() & saved if key not in head}, False
    )


def _hint(differ: list[tuple[Any, Tensor]], channels: int) -> str:
    """What to do about weights of other shapes than the network's."""
    (theirs, ours), *others = differ
    if isinstance(theirs, Tensor) and theirs.ndim == ours.ndim == 4 and not others:
        sides = theirs.shape[::2] + theirs.shape[3:]
        if sides == ours.shape[::2] + ours.shape[3:] and ours.shape[1] == channels:
            return (
                f"it is for images of {counted(theirs.shape[1], 'channel')}, and these have "
                f"{channels}: give such images (data.dataset: custom), or leave pretrained out"
            )
    return "it must fit the network as it is built (torchvision's resnets: with stem: imagenet)"


def require_logits(network: nn.Module, classes: int, announce: Announce) -> None:
    """From now on, what the network returns is a row of outputs for each image, one a class or
    more; else it raises ArgumentError. `announce` is told, once, of outputs without a class, and of
    those of a softmax."""
    told = False

    def check(_: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> None:
        nonlocal told
        images = len(inputs[0])
        said, hint = "", f"return ({images}, {classes}): a row for each image, an output a class"
        if not isinstance(outputs, Tensor):
            said = f"a {type(outputs).__name__}"
        elif not outputs.is_floating_point() or outputs.ndim != 2 or len(outputs) != images:
            said = f"{sizes(outputs.shape)} of {outputs.dtype}".replace("torch.", "")
            if outputs.ndim > 2:
                hint += "; of a map, for example y.mean((2, 3))"
        elif outputs.shape[1] < classes:
            said = f"{counted(outputs.shape[1], 'output')} an image, for {classes} classes"
        if said:
            raise ArgumentError(f"the network returns {said}", argument="target", hint=hint)
        if told or outputs.is_meta:
            return
        told = True
        if outputs.shape[1] > classes:
            many = f"{counted(outputs.shape[1], 'output')} for {classes} classes"
            announce(f"warning: the network has {many}: the others are never right")
        sums = outputs.detach().double().sum(1)
        if bool((outputs >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-2):
            announce("warning: the network ends in a softmax, and so does the loss: leave it out")

    network.register_forward_hook(check)


def _with_copies(network: nn.Module) -> nn.Module:
    # It may change its inputs in place, and a probe passes the same images several times.
    network.register_forward_pre_hook(lambda _, x: tuple(each.clone() for each in x))
    return network
