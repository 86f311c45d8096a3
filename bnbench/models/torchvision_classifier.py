"""torchvision's classifiers with a normalization of choice in the place of their BatchNorm."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from bnbench.errors import ArgumentError
from bnbench.models.recipe import named_norm

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
    make_norm: Callable[[int], nn.Module] | None,
    stem: Stem = "imagenet",
) -> nn.Module:
    """The classifier `name` of torchvision, untrained, e.g. resnet18.

    Legal are the models whose constructor takes a `norm_layer` of (N, C, H, W):
    `torchvision_names()`. Each BatchNorm2d is replaced by what `make_norm` makes for its channels;
    its name gets the ending `.norm`. None: the identity takes its place, and the convolution before
    it gets a bias. The activations are torchvision's and follow the norms. They do not work in
    place here, so that a hook on a layer sees the layer's own output.

    `stem` small, for images of about 32 pixels a side: in the resnet family the first convolution
    is 3×3 with stride 1, without a maximum pooling after it (He et al. 2015,
    https://arxiv.org/abs/1512.03385, section 4.2).

    Raises ArgumentError for other names, and for a small stem outside of the resnet family.
    """
    from torchvision import models

    if name not in torchvision_names():
        raise ArgumentError(
            f'"{name}" is not a classifier of torchvision that takes a norm_layer',
            argument="name",
            hint=f"legal are {', '.join(torchvision_names())}",
        )
    model: nn.Module = models.get_model(name, weights=None, num_classes=classes)
    if stem == "small":
        if not isinstance(model, models.ResNet):
            raise ArgumentError(
                f'"{name}" has no small stem, only torchvision\'s resnets have one',
                argument="stem",
                hint="write stem: imagenet",
            )
        model.conv1 = nn.Conv2d(3, model.conv1.out_channels, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
    if make_norm is None:
        _replace_batch_norms(model, lambda _: nn.Identity(), bias=True)
    else:
        _replace_batch_norms(model, named_norm(make_norm), bias=False)
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
