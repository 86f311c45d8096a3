"""Networks that people use, of torchvision and timm, most of them narrow: trained a little at
64 × 64, and faults to plant in them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import (
    convnext,
    densenet,
    efficientnet,
    get_model,
    regnet,
    resnet,
    swin_transformer,
    vgg,
    vision_transformer,
)

import bnbench
from bnbench.diagnosis import Diagnosis
from tests.diagnosis.patients import norms, pictures
from tests.diagnosis.zoo import Batch

STEPS, SIZE = 50, 32

Network = Callable[[], nn.Module]


def of_torchvision(name: str, **options: Any) -> Network:
    return lambda: cast(nn.Module, get_model(name, num_classes=10, **options))


def of_timm(name: str, **options: Any) -> Network:
    return lambda: timm.create_model(name, num_classes=10, **options)


def designed(squeezed: float | None = None) -> nn.Module:
    blocks = regnet.BlockParams.from_init_params(
        8, 16, 12, 2.2, 8, bottleneck_multiplier=0.25, se_ratio=squeezed
    )
    return cast(nn.Module, regnet.RegNet(blocks, 10))


def as_efficientnet_b0(drop: float) -> nn.Module:
    """Half as wide; a block is left out with a probability that rises to `drop`."""
    blocks, last = efficientnet._efficientnet_conf("efficientnet_b0", width_mult=0.5, depth_mult=1)
    net = efficientnet.EfficientNet(blocks, 0.0, drop, num_classes=10, last_channel=last)
    return cast(nn.Module, net)


def as_vgg() -> nn.Module:
    widths = [8, "M", 16, "M", 32, 32, "M", 64, 64, "M"]
    features = vgg.make_layers(cast(list[str | int], widths), batch_norm=True)
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def as_convnext(drop: float) -> nn.Module:
    widths = [(24, 48, 2), (48, 96, 2), (96, None, 2)]
    blocks = [convnext.CNBlockConfig(*each) for each in widths]
    net = convnext.ConvNeXt(blocks, stochastic_depth_prob=drop, num_classes=10)
    return cast(nn.Module, net)


NETWORKS: dict[str, Network] = {
    "ResNet-18": of_torchvision("resnet18"),
    "ResNet-50, a quarter as wide inside": lambda: resnet.ResNet(
        resnet.Bottleneck, [3, 4, 6, 3], 10, width_per_group=16
    ),
    "ResNeXt, narrow": lambda: resnet.ResNet(
        resnet.Bottleneck, [1, 2, 2, 1], 10, groups=4, width_per_group=8
    ),
    "ResNet-10t (timm)": of_timm("resnet10t"),
    "DenseNet-121, growth 8": lambda: densenet.DenseNet(8, (6, 12, 24, 16), 16, num_classes=10),
    "GoogLeNet, auxiliary heads": of_torchvision("googlenet", aux_logits=True, init_weights=False),
    "VGG with BatchNorm, narrow": as_vgg,
    "MobileNetV2 × 0.35": of_torchvision("mobilenet_v2", width_mult=0.35),
    "MobileNetV3-small": of_torchvision("mobilenet_v3_small"),
    "MobileNetV3-small × 0.5 (timm)": of_timm("mobilenetv3_small_050"),
    "ShuffleNetV2 × 0.5": of_torchvision("shufflenet_v2_x0_5"),
    "MNASNet × 0.5": of_torchvision("mnasnet0_5"),
    "GhostNet × 0.5 (timm)": of_timm("ghostnet_050"),
    "EfficientNet-B0 × 0.5": partial(as_efficientnet_b0, 0.0),
    "EfficientNet-B0 × 0.5, stochastic depth": partial(as_efficientnet_b0, 0.2),
    "RegNetX, narrow": designed,
    "RegNetY, narrow": partial(designed, 0.25),
    "RegNetX-200MF (timm)": of_timm("regnetx_002"),
}
WITHOUT: dict[str, Network] = {
    "SqueezeNet 1.1": of_torchvision("squeezenet1_1"),
    "ConvNeXt, narrow, stochastic depth": partial(as_convnext, 0.2),
    "ViT, narrow": lambda: vision_transformer.VisionTransformer(
        64, 8, 4, 4, 64, 128, num_classes=10
    ),
    "Swin, narrow": lambda: swin_transformer.SwinTransformer(
        [4, 4], 24, [2, 2], [2, 4], [4, 4], 10
    ),
}
"""Without BatchNorm."""

FULL: dict[str, Network] = {
    "ResNet-50": of_torchvision("resnet50"),
    "DenseNet-121": of_torchvision("densenet121"),
    "EfficientNet-B0": of_torchvision("efficientnet_b0"),
}
"""As they are published; not trained here."""


def large(x: Tensor) -> Tensor:
    """64 × 64, three colours."""
    return F.interpolate(x, size=(64, 64), mode="bilinear").expand(-1, 3, -1, -1).contiguous()


def batches(first: int, count: int) -> list[Batch]:
    x, y, *_ = pictures()
    parts = (slice(k, k + SIZE) for k in range(first, first + count * SIZE, SIZE))
    return [(large(x[part]), y[part]) for part in parts]


def logits(output: object) -> list[Tensor]:
    """GoogLeNet gives three in training."""
    return [output] if isinstance(output, Tensor) else list(cast(tuple[Tensor, ...], output))


def trained(make: Network) -> nn.Module:
    """Its running statistics are averages over 20 batches, under its last weights."""
    torch.manual_seed(0)
    model = make().train()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for k, (x, y) in enumerate(batches(0, STEPS)):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (k + 1) / 8) * (1 - k / STEPS)
        optimizer.zero_grad()
        losses = [F.cross_entropy(each, y) for each in logits(model(x))]
        sum(losses[1:], start=losses[0]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    updated(model, 20, momentum=None)
    for layer in norms(model).values():
        cast(Tensor, layer.num_batches_tracked).add_(STEPS)
    return model


@torch.no_grad()
def updated(model: nn.Module, count: int, momentum: float | None) -> nn.Module:
    """Its running statistics begin again, and are updated so often."""
    for layer in norms(model).values():
        layer.reset_running_stats()
        layer.momentum = momentum
    model.train()
    for x, _ in batches(0, count):
        model(x)
    for layer in norms(model).values():
        layer.momentum = 0.1
    return model


def stale(model: nn.Module) -> nn.Module:
    return updated(copy.deepcopy(model), 5, 0.1)


def first(model: nn.Module) -> str:
    """Residual networks hardly depend on one in the middle."""
    return next(iter(norms(model)))


def corrupted(model: nn.Module) -> nn.Module:
    """In the statistics of one layer."""
    model = copy.deepcopy(model)
    layer = norms(model)[first(model)]
    variance = cast(Tensor, layer.running_var).mul_(0.03)
    cast(Tensor, layer.running_mean).add_(2 * variance.sqrt())
    return model


class Again(nn.Module):
    """The same layer on its own output, at another scale: that changes little in train()."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(5 * self.norm(x) + 3)  # type: ignore[no-any-return]


def reused(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    name = first(model)
    model.set_submodule(name, Again(model.get_submodule(name)))
    return updated(model, 20, momentum=None)


FAULTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "stale": stale,
    "mismatched": corrupted,
    "reused-layer": reused,
}
"""By the name of the finding that each must be."""


def unseen(count: int) -> list[Batch]:
    """Images that none was trained on."""
    return batches(4000, count)


def diagnosed(model: nn.Module) -> Diagnosis:
    return bnbench.diagnose(model, unseen(8), batches(6000, 8))
