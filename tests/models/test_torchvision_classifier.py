"""torchvision's classifiers: every norm replaced, biases where they belong, refusals in words."""

from __future__ import annotations

import zlib
from functools import partial
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from bnbench.errors import ArgumentError
from bnbench.models.recipe import counts, initialize, normalization_layers, train_only_norm
from bnbench.models.swap import swap_norms
from bnbench.models.torchvision_classifier import torchvision_classifier, torchvision_names
from bnbench.norms.batch import BatchNorm
from bnbench.norms.group import LayerNorm

SMALL = ["resnet18", "mobilenet_v3_small", "regnet_x_400mf"]
LARGE = [
    "resnet50",
    "resnext50_32x4d",
    "mobilenet_v2",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "regnet_y_400mf",
]
FAMILIES = [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]


def network(name: str, *, in_channels: int, classes: int, make_norm: Any, **more: Any) -> nn.Module:
    """As a run makes it."""
    model = torchvision_classifier(name, in_channels=in_channels, classes=classes, **more)
    return swap_norms(
        model,
        lambda old: make_norm(old.num_features) if make_norm else nn.Identity(),
        example=torch.zeros(1, in_channels, 32, 32),
        biases=make_norm is None,
    )[0]


def layers(model: nn.Module, kind: type[nn.Module]) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if isinstance(module, kind)}


@pytest.fixture(autouse=True)
def own_random_state() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("name", FAMILIES)
def test_every_batch_norm_is_replaced_and_nothing_else(name: str) -> None:
    original = torchvision.models.get_model(name, weights=None, num_classes=5)
    model = network(name, in_channels=1, classes=5, make_norm=LayerNorm)
    replaced = layers(original, nn.BatchNorm2d)
    found = normalization_layers(model)
    assert set(found) == {f"{layer}.norm" for layer in replaced}
    assert all(isinstance(layer, LayerNorm) for layer in found.values())
    assert not layers(model, nn.BatchNorm2d)
    assert layers(model, nn.Conv2d).keys() == layers(original, nn.Conv2d).keys()
    difference = counts(original).parameters - counts(model).parameters
    first = next(iter(layers(original, nn.Conv2d).values()))
    assert difference == first.weight.numel() * 2 // 3
    # Who looks at a layer's output sees what the layer has made.
    assert not any(getattr(module, "inplace", False) for module in model.modules())
    model.eval()
    assert model(torch.randn(2, 1, 32, 40)).shape == (2, 5)


@pytest.mark.parametrize("name", FAMILIES)
def test_without_a_norm_each_convolution_that_had_one_gets_a_bias(name: str) -> None:
    original = torchvision.models.get_model(name, weights=None, num_classes=5)
    model = network(name, in_channels=3, classes=5, make_norm=None)
    assert not normalization_layers(model)
    before, after = layers(original, nn.Conv2d), layers(model, nn.Conv2d)
    gained = [n for n in after if before[n].bias is None and after[n].bias is not None]
    assert len(gained) == len(layers(original, nn.BatchNorm2d))
    assert all(conv.bias is not None for conv in after.values())
    assert all(module.training for module in model.modules())
    model.eval()
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 5)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_with_batch_norm_the_network_is_torchvisions(name: str) -> None:
    original = torchvision.models.get_model(name, weights=None, num_classes=4).double()
    # torchvision's mobilenet_v3 has other defaults than BatchNorm.
    norm = original.get_submodule("bn1" if name == "resnet18" else "features.0.1")
    assert isinstance(norm, nn.BatchNorm2d)
    eps, momentum = norm.eps, norm.momentum
    make_norm = partial(BatchNorm, eps=eps, momentum=momentum)
    model = network(name, in_channels=3, classes=4, make_norm=make_norm).double()
    norms = layers(original, nn.BatchNorm2d)
    model.load_state_dict(
        {
            f"{module}.norm.{tensor}" if module in norms else f"{module}.{tensor}": value
            for key, value in original.state_dict().items()
            for module, _, tensor in [key.rpartition(".")]
        }
    )
    x = torch.randn(4, 3, 48, 48, dtype=torch.float64)
    for train in (False, True):
        original.train(train)
        model.train(train)
        with torch.random.fork_rng():
            expected = original(x)
        torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)
    model(x).sum().backward()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("norm", [BatchNorm, None])
def test_the_small_stem_keeps_the_resolution(channels: int, norm: type[BatchNorm] | None) -> None:
    model = network("resnet18", in_channels=channels, classes=7, make_norm=norm, stem="small")
    found: list[Tensor] = []
    for stage in ("conv1", "layer1", "layer4"):
        model.get_submodule(stage).register_forward_hook(lambda _, __, y: found.append(y))
    assert model(torch.randn(2, channels, 28, 28)).shape == (2, 7)
    assert [tuple(y.shape[1:]) for y in found] == [(64, 28, 28), (64, 28, 28), (512, 4, 4)]
    first = next(iter(layers(model, nn.Conv2d).values()))
    assert first.weight.shape == (64, channels, 3, 3)
    assert (first.bias is not None) == (norm is None)
    assert not layers(model, nn.MaxPool2d)


def test_setups_share_every_weight() -> None:
    def weights(make_norm: type[nn.Module] | None) -> dict[str, Tensor]:
        model = network("resnet18", in_channels=1, classes=3, make_norm=make_norm)
        initialize(
            model, "he", lambda name: torch.Generator().manual_seed(zlib.crc32(name.encode()))
        )
        return {n: m.weight for n, m in layers(model, nn.Conv2d).items()}

    batch, none = weights(BatchNorm), weights(None)
    assert len(batch) == 20
    assert batch.keys() == none.keys()
    for name in batch:
        assert torch.equal(batch[name], none[name])


def test_norms_alone_can_be_trained() -> None:
    model = network("mobilenet_v3_small", in_channels=3, classes=2, make_norm=BatchNorm)
    train_only_norm(model)
    facts, norms = counts(model), normalization_layers(model).values()
    of_norms = sum(each.numel() for norm in norms for each in norm.parameters())
    assert 0 < facts.trainable == of_norms < facts.parameters


def test_legal_names_are_all_that_take_a_norm_layer_for_maps() -> None:
    names = torchvision_names()
    assert {*SMALL, *LARGE} < set(names)
    assert len(names) == len(set(names)) >= 39
    assert all(
        name.startswith(("resne", "wide_resnet", "mobilenet", "efficientnet", "regnet"))
        for name in names
    )


@pytest.mark.parametrize(
    "name", ["densenet121", "vit_b_16", "convnext_tiny", "maxvit_t", "vgg11", "googlenet", "resnet"]
)
def test_other_names_are_refused_with_the_legal_ones(name: str) -> None:
    with pytest.raises(ArgumentError, match=f'"{name}" is not .* norm_layer') as refused:
        network(name, in_channels=3, classes=2, make_norm=BatchNorm)
    assert refused.value.argument == "name"
    assert "resnet18" in (refused.value.hint or "")


def test_a_small_stem_is_refused_where_there_is_none() -> None:
    with pytest.raises(ArgumentError, match=r'"mobilenet_v2" has no small stem, only .* resnets'):
        network(
            "mobilenet_v2",
            in_channels=3,
            classes=2,
            make_norm=BatchNorm,
            stem="small",
        )
