"""torchvision's classifiers, as they are built, for another normalization."""

from __future__ import annotations

import difflib
import inspect
import sys
from typing import Literal

from torch import nn

from bnbench.errors import ArgumentError

Stem = Literal["imagenet", "small"]

NOT_CHANNELS_FIRST = ("convnext", "maxvit", "swin_transformer", "vision_transformer")
"""torchvision's files of networks that normalize channels-last maps or tokens.

Their constructors take a `norm_layer`, but a layer for (N, C, H, W) would see other axes there
(maxvit: it reaches half of the layers).
"""

AUXILIARY = ("googlenet", "inception_v3")
"""With auxiliary heads these return several outputs in training; their own initialization, which is
not used, takes half a minute."""


def torchvision_classifier(
    name: str, *, in_channels: int, classes: int, stem: Stem = "imagenet", any_name: bool = False
) -> nn.Module:
    """The classifier `name` of torchvision, untrained, e.g. resnet18, with its BatchNorms.

    Legal are the models whose constructor takes a `norm_layer` of (N, C, H, W):
    `torchvision_names()`; with `any_name` all. The activations do not work in place here, so that a
    hook on a layer sees the layer's own output. For another number of channels than 3 the first
    convolution is drawn again.

    `stem` small, for images of about 32 pixels a side: in the resnet family the first convolution
    is 3×3 with stride 1, without a maximum pooling after it (He et al. 2015,
    https://arxiv.org/abs/1512.03385, section 4.2).

    Raises ArgumentError for other names, and for a small stem outside of the resnet family.
    """
    from torchvision import models

    if any_name and name not in (known := models.list_models(module=models)):
        raise unknown_name(f'"{name}" is not a classifier of torchvision', name, known)
    if not any_name and name not in torchvision_names():
        raise ArgumentError(
            f'"{name}" is not a classifier of torchvision that takes a norm_layer',
            argument="name",
            hint=f"legal are {', '.join(torchvision_names())}; others with norm: swap",
        )
    keys = {"aux_logits": False, "init_weights": False} if name in AUXILIARY else {}
    model: nn.Module = models.get_model(name, weights=None, num_classes=classes, **keys)
    if stem == "small":
        if not isinstance(model, models.ResNet):
            raise ArgumentError(
                f'"{name}" has no small stem, only torchvision\'s resnets have one',
                argument="stem",
                hint="write stem: imagenet",
            )
        model.conv1 = nn.Conv2d(3, model.conv1.out_channels, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
    if in_channels != 3:
        conv = next(each for each in model.modules() if isinstance(each, nn.Conv2d))
        conv.in_channels = in_channels
        shape = (conv.out_channels, in_channels, *conv.kernel_size)
        conv.weight = nn.Parameter(conv.weight.new_empty(shape))
        conv.reset_parameters()
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]
    return model


def unknown_name(message: str, name: str, known: list[str]) -> ArgumentError:
    """The error for a network that a library does not have, with the one that was meant."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else None
    return ArgumentError(message, argument="name", hint=hint)


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
