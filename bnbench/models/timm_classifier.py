"""timm's classifiers, as they are built, for another normalization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from bnbench.errors import ArgumentError
from bnbench.models.torchvision_classifier import unknown_name


def timm_classifier(
    name: str, *, in_channels: int, classes: int, options: Mapping[str, Any]
) -> nn.Module:
    """The classifier `name` of timm (Wightman 2019), untrained, e.g. resnet18, with its BatchNorms.

    `options` are further arguments of timm.create_model. Nothing is downloaded. Raises
    ArgumentError where timm is not installed, and for other names.
    """
    try:
        import timm
    except ImportError:
        raise ArgumentError(
            "timm is not installed", argument="kind", hint="pip install 'bnbench[timm]', or timm"
        ) from None
    if not timm.is_model(name):
        raise unknown_name(f'"{name}" is not a model of timm', name, timm.list_models())
    model: nn.Module = timm.create_model(
        name, pretrained=False, num_classes=classes, in_chans=in_channels, **options
    )
    return model
