"""Networks that people use, of torchvision and timm: read as torch runs them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import cast

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import FrozenBatchNorm2d

import bnbench

CLASSES = 10
IMAGES = 24


def of_timm(name: str) -> nn.Module:
    return timm.create_model(name, num_classes=CLASSES)


def of_torchvision(name: str, **more: object) -> nn.Module:
    return cast(nn.Module, torchvision.models.get_model(name, num_classes=CLASSES, **more))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": partial(of_torchvision, "resnet18"),
    "mobilenet_v3_small": partial(of_torchvision, "mobilenet_v3_small"),
    "googlenet": partial(of_torchvision, "googlenet", init_weights=False),
    "efficientnet_b0": partial(of_timm, "efficientnet_b0"),
    "densenet121": partial(of_timm, "densenet121"),
}


def pictures(size: int = 64) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    y = torch.arange(IMAGES) % CLASSES
    colours = torch.randn(CLASSES, 3, 1, 1, generator=random)
    return colours[y] + torch.randn(IMAGES, 3, size, size, generator=random), y


def loss(model: nn.Module, *, training: bool) -> float:
    """By torch alone: BatchNorm as in training or in inference, all else as in inference."""
    x, y = pictures()
    twin = copy.deepcopy(model).eval()
    for module in twin.modules():
        if isinstance(module, _BatchNorm):
            module.training = training
    with torch.no_grad():
        return F.cross_entropy(twin(x).double(), y).item()


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_read_as_torch_runs_it(name: str) -> None:
    """Also the control: with the population's statistics, taken in one batch of the same images,
    inference is what training is."""
    torch.manual_seed(0)
    model = NETWORKS[name]()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                cast(Tensor, module.running_mean).normal_(0, 0.1)
                cast(Tensor, module.running_var).uniform_(0.5, 1.5)
    found = bnbench.diagnose(model, [pictures()])
    assert found.reading("running").loss == pytest.approx(loss(model, training=False), rel=1e-5)
    assert found.reading("batch").loss == pytest.approx(loss(model, training=True), rel=1e-4)
    assert found.reading("population").loss == pytest.approx(
        found.reading("shuffled").loss, rel=1e-5
    )
    assert abs(found.reading("running").loss - found.reading("batch").loss) > 1e-3


@pytest.mark.slow
def test_without_batch_norm_nothing_differs() -> None:
    found = bnbench.diagnose(of_torchvision("convnext_tiny"), [pictures()])
    assert found.layers == ()
    assert len({each.loss for each in found.readings}) == 1


@pytest.mark.slow
def test_frozen_layers_are_seen() -> None:
    """As detectors have them."""
    model = of_torchvision("resnet18", norm_layer=FrozenBatchNorm2d)
    found = bnbench.diagnose(model, [pictures()])
    assert [each.kind for each in found.layers] == ["FrozenBatchNorm2d"] * 20
    assert found.reading("batch").loss == found.reading("running").loss
    assert any("running statistics are used in training, too" in each for each in found.notes)
