"""torchvision's classifiers with a normalization of choice in the place of their BatchNorm."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from bnbench.models.normalization import under_the_name_norm
from bnbench.models.recipe import Recipe

Stem = Literal["imagenet", "small"]

NOT_CHANNELS_FIRST = ("convnext", "maxvit", "swin_transformer", "vision_transformer")
"""torchvision's files of networks that normalize channels-last maps or tokens.

Their constructors take a `norm_layer`, but a layer for (N, C, H, W) would see other axes there
(maxvit: it reaches half of the layers).
"""


def torchvision_classifier(
    name: str,
    *,
    in_channels: int,
    classes: int,
    recipe: Recipe,
    stem: Stem = "imagenet",
) -> nn.Module:
    """The classifier `name` of torchvision, untrained, e.g. resnet18.

    Legal are the models whose constructor takes a `norm_layer` of (N, C, H, W):
    `torchvision_names()`. Each BatchNorm2d is replaced by `recipe.make_norm`; its name gets the
    ending `.norm`. Without normalization the identity takes its place, and the convolution in
    front of it gets a bias. Of the recipe only `make_norm` is read: torchvision has fixed its
    activations, and that the norm stands before them. They do not work in place here, so that who
    looks at a layer's output sees what the layer has made.

    `stem` small, for images of about 32 pixels a side: in the resnet family the first convolution
    is 3×3 with stride 1, without a maximum pooling behind it (He et al. 2015,
    https://arxiv.org/abs/1512.03385, section 4.2).

    Raises ValueError for other names, for a small stem elsewhere, and for a recipe that these
    networks cannot follow.
    """
    from torchvision import models

    if name not in torchvision_names():
        raise ValueError(
            f"{name!r} is not a classifier of torchvision that takes a norm_layer; "
            f"legal are {', '.join(torchvision_names())}"
        )
    _check(name, recipe)
    model: nn.Module = models.get_model(name, weights=None, num_classes=classes)
    if stem == "small":
        if not isinstance(model, models.ResNet):
            raise ValueError(
                f"{name} has no small stem; resnet18 and the other models of its family have one"
            )
        model.conv1 = nn.Conv2d(3, model.conv1.out_channels, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
    if recipe.make_norm is None:
        _replace_batch_norms(model, lambda _: nn.Identity(), bias=True)
    else:
        _replace_batch_norms(model, under_the_name_norm(recipe.make_norm), bias=False)
    if in_channels != 3:
        _replace_first_convolution(model, in_channels)
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]
    return model


def torchvision_names() -> list[str]:
    """The models of torchvision that `torchvision_classifier` can make, in alphabetical order."""
    from torchvision import models

    return sorted(
        name
        for name in models.list_models(module=models)
        if _takes_norm_layer(models.get_model_builder(name).__module__)
    )


def _takes_norm_layer(module: str) -> bool:
    """Whether the network of this file of torchvision lets its norm be chosen."""
    return module.rsplit(".", 1)[-1] not in NOT_CHANNELS_FIRST and any(
        {"norm_layer", "num_classes"} <= inspect.signature(network).parameters.keys()
        for _, network in inspect.getmembers(sys.modules[module], inspect.isclass)
        if network.__module__ == module
    )


def _check(name: str, recipe: Recipe) -> None:
    """Raise where the recipe asks for what torchvision's constructors cannot do."""
    if recipe.make_norm is not None and recipe.placement == "after":
        raise ValueError(
            f"torchvision's {name} has its norms before the activations; "
            "placement after needs another network"
        )
    if recipe.activates:
        raise ValueError(
            f"torchvision's {name} has its own activations behind the norms; "
            "a norm that is the activation as well needs another network"
        )
    if recipe.make_conv is not nn.Conv2d or recipe.make_linear is not nn.Linear:
        raise ValueError(
            f"torchvision's {name} makes its own convolutions; "
            "standardized weights need another network"
        )


def _replace_batch_norms(
    model: nn.Module, make_norm: Callable[[int], nn.Module], *, bias: bool
) -> None:
    """Another norm for each BatchNorm2d; `bias`: and a bias for the convolution in front of it.

    The constructors' own `norm_layer` would not do: some builders (efficientnet_b5 to _b7, _v2)
    set it themselves.
    """
    if bias:
        for conv in _convolutions_before_batch_norms(model):
            conv.bias = nn.Parameter(torch.zeros(conv.out_channels))
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, make_norm(child.num_features))


@torch.no_grad()
def _convolutions_before_batch_norms(model: nn.Module) -> list[nn.Conv2d]:
    """The convolutions whose output a BatchNorm2d takes, seen in a forward pass.

    The names and the order of registration do not tell which layer feeds which.
    """
    # The outputs are kept, or a later tensor could have an earlier one's id.
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    found: list[nn.Conv2d] = []

    def remember(conv: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        made[id(output)] = (conv, output)

    def look_up(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made:
            found.append(made[id(inputs[0])][0])

    handles = [
        module.register_forward_hook(remember)
        if isinstance(module, nn.Conv2d)
        else module.register_forward_pre_hook(look_up)
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    model.eval()
    model(torch.zeros(1, 3, 32, 32))
    model.train()
    for handle in handles:
        handle.remove()
    return found


def _replace_first_convolution(model: nn.Module, in_channels: int) -> None:
    """The same convolution for images of another number of channels."""
    name, conv = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    parent, _, attribute = name.rpartition(".")
    replacement = nn.Conv2d(
        in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        stride=conv.stride,  # type: ignore[arg-type]
        padding=conv.padding,  # type: ignore[arg-type]
        bias=conv.bias is not None,
    )
    setattr(model.get_submodule(parent), attribute, replacement)
