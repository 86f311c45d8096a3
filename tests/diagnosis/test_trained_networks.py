"""Networks that people use, trained a little at 64 × 64: healthy ones have no finding, and a fault
planted in them gets its name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import (
    convnext,
    get_model,
    regnet,
    resnet,
    swin_transformer,
    vision_transformer,
)

import bnbench
from bnbench.diagnosis import Diagnosis
from tests.diagnosis.patients import norms, pictures
from tests.diagnosis.zoo import Batch

STEPS, SIZE = 50, 32


def designed() -> nn.Module:
    blocks = regnet.BlockParams.from_init_params(8, 16, 12, 2.2, 8, bottleneck_multiplier=0.25)
    return regnet.RegNet(blocks, 10)


def next_to_convolutions() -> nn.Module:
    widths = [(24, 48, 2), (48, 96, 2), (96, None, 2)]
    return convnext.ConvNeXt([convnext.CNBlockConfig(*each) for each in widths], num_classes=10)


Network = Callable[[], nn.Module]
NETWORKS: dict[str, Network] = {
    "resnext": lambda: resnet.ResNet(
        resnet.Bottleneck, [1, 2, 2, 1], 10, groups=4, width_per_group=8
    ),
    "mobilenet_v2": lambda: get_model("mobilenet_v2", num_classes=10, width_mult=0.35),
    "shufflenet_v2_x0_5": lambda: get_model("shufflenet_v2_x0_5", num_classes=10),
    "mnasnet0_5": lambda: get_model("mnasnet0_5", num_classes=10),
    "regnet": designed,
}
WITHOUT: dict[str, Network] = {
    "squeezenet1_1": lambda: get_model("squeezenet1_1", num_classes=10),
    "convnext": next_to_convolutions,
    "vit": lambda: vision_transformer.VisionTransformer(64, 8, 4, 4, 64, 128, num_classes=10),
    "swin": lambda: swin_transformer.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [4, 4], 10),
}
"""Without BatchNorm."""


def large(x: Tensor) -> Tensor:
    """64 × 64, three colours."""
    return F.interpolate(x, size=(64, 64), mode="bilinear").expand(-1, 3, -1, -1).contiguous()


def batches(first: int, count: int) -> list[Batch]:
    x, y, *_ = pictures()
    parts = (slice(k, k + SIZE) for k in range(first, first + count * SIZE, SIZE))
    return [(large(x[part]), y[part]) for part in parts]


def trained(make: Network) -> nn.Module:
    """Its running statistics are averages over 20 batches, under its last weights."""
    torch.manual_seed(0)
    model = make().train()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for k, (x, y) in enumerate(batches(0, STEPS)):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (k + 1) / 8) * (1 - k / STEPS)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return updated(model, 20, momentum=None)


@torch.no_grad()
def updated(model: nn.Module, count: int, momentum: float | None) -> nn.Module:
    """Its running statistics begin anew, and are updated so often."""
    for layer in norms(model).values():
        layer.reset_running_stats()
        layer.momentum = momentum
    model.train()
    for x, _ in batches(0, count):
        model(x)
    for layer in norms(model).values():
        layer.momentum = 0.1
    return model


def diagnosed(model: nn.Module) -> Diagnosis:
    return bnbench.diagnose(model, batches(4000, 5))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_healthy_one_is_healthy_and_a_fault_gets_its_name(name: str) -> None:
    model = trained(NETWORKS[name])
    for layer in norms(model).values():
        cast(Tensor, layer.num_batches_tracked).add_(STEPS)
    assert bnbench.diagnose(model, batches(4000, 8), batches(6000, 8)).findings == ()

    (stale,) = diagnosed(updated(copy.deepcopy(model), 5, 0.1)).findings
    assert (stale.name, stale.harmful) == ("stale", True)

    layers = norms(model)
    middle = [*layers][len(layers) // 2]
    variance = cast(Tensor, layers[middle].running_var).mul_(0.03)
    cast(Tensor, layers[middle].running_mean).add_(2 * variance.sqrt())
    (other,) = diagnosed(model).findings
    assert (other.name, other.harmful, other.layers) == ("mismatched", True, (middle,))


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT)
def test_one_without_batch_norm_is_healthy(name: str) -> None:
    found = bnbench.diagnose(trained(WITHOUT[name]), batches(4000, 8), batches(6000, 8))
    assert found.findings == ()
    assert found.layers == ()
