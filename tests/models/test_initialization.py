"""Initial weights: paired across setups, independent across seeds, spread as the schemes say."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from bnbench.models.plain import MLP, Plain
from bnbench.models.recipe import Initialization, Recipe, initialize
from bnbench.norms.batch import BatchNorm
from bnbench.norms.group import GroupNorm


def seeded(seed: int) -> Callable[[str], torch.Generator]:
    """Generators as `initialize` wants them, without the code that makes them in a run."""
    return lambda name: torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))


RECIPES = {
    "none": Recipe(None, nn.ReLU),
    "batch-before": Recipe(BatchNorm, nn.ReLU, "before"),
    "batch-after": Recipe(BatchNorm, nn.ReLU, "after"),
    "group-before": Recipe(lambda channels: GroupNorm(channels, groups=2), nn.Sigmoid, "before"),
}


def plain(recipe: Recipe) -> nn.Module:
    return Plain(in_channels=2, classes=3, widths=(4, 6), blocks=2, recipe=recipe)


def mlp(recipe: Recipe) -> nn.Module:
    return MLP(features=12, classes=3, widths=(8, 4), recipe=recipe)


def weights(
    make: Callable[[Recipe], nn.Module], setup: str, *, seed: int = 0, scheme: Initialization = "he"
) -> dict[str, Tensor]:
    """Weights of convolutions and linear layers by name."""
    model = make(RECIPES[setup])
    initialize(model, scheme, seeded(seed))
    return {
        f"{name}.weight": module.weight.detach()
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


@pytest.mark.parametrize("scheme", get_args(Initialization))
@pytest.mark.parametrize("make", [plain, mlp])
def test_setups_share_every_weight_and_seeds_share_none(
    make: Callable[[Recipe], nn.Module], scheme: Initialization
) -> None:
    assert len(get_args(Initialization)) == 4
    reference = weights(make, "none", scheme=scheme)
    assert len(reference) == (5 if make is plain else 3)
    for setup in RECIPES:
        found = weights(make, setup, scheme=scheme)
        assert found.keys() == reference.keys()
        for name, weight in found.items():
            assert torch.equal(weight, reference[name])
    for name, weight in weights(make, "none", seed=1, scheme=scheme).items():
        assert not (weight == reference[name]).any()


def test_tensors_of_one_shape_differ_from_each_other() -> None:
    found = weights(plain, "none")
    assert found["stage1.block2.conv.weight"].shape == (4, 4, 3, 3)
    model = Plain(in_channels=4, classes=3, widths=(4,), blocks=3, recipe=RECIPES["none"])
    initialize(model, "he", seeded(0))
    blocks = [model.get_parameter(f"stage1.block{b}.conv.weight") for b in (1, 2, 3)]
    assert not (blocks[0] == blocks[1]).any()
    assert not (blocks[1] == blocks[2]).any()


@pytest.mark.parametrize("make", [plain, mlp])
def test_the_global_generator_is_neither_read_nor_moved_by_initialize(
    make: Callable[[Recipe], nn.Module],
) -> None:
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = make(RECIPES["batch-after"])
        before = torch.get_rng_state()
        initialize(model, "he", seeded(0))
        assert torch.equal(torch.get_rng_state(), before)
        found.append(model.state_dict())
    for name in found[0]:
        assert torch.equal(found[0][name], found[1][name])


def test_the_order_of_construction_does_not_matter() -> None:
    def build(*order: str) -> nn.Module:
        sizes = {"a": (3, 5), "b": (5, 4)}
        model = nn.Module()
        for name in order:
            model.add_module(name, nn.Linear(*sizes[name]))
        model.add_module("head", nn.Linear(4, 2))
        initialize(model, "he", seeded(0))
        return model

    one, other = build("a", "b").state_dict(), build("b", "a").state_dict()
    assert set(one) == set(other)
    for name in one:
        assert torch.equal(one[name], other[name])


def test_biases_are_zero_and_norms_stay_as_they_are() -> None:
    for setup, recipe in RECIPES.items():
        model = plain(recipe)
        initialize(model, "he", seeded(0))
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                assert not parameter.any(), (setup, name)
            if name.endswith("norm.weight"):
                assert (parameter == 1).all(), (setup, name)


def wide() -> Iterator[tuple[str, nn.Module, dict[str, tuple[int, int]]]]:
    """Networks with tens of thousands of weights a layer, and fan-in, fan-out by hand."""
    recipe = Recipe(None, nn.ReLU)
    yield (
        "plain",
        Plain(in_channels=32, classes=500, widths=(48, 96), blocks=1, recipe=recipe),
        {
            "stage1.block1.conv": (32 * 9, 48 * 9),
            "stage2.block1.conv": (48 * 9, 96 * 9),
            "head": (96, 500),
        },
    )
    yield (
        "mlp",
        MLP(features=100, classes=300, widths=(200, 150), recipe=recipe),
        {"layer1.linear": (100, 200), "layer2.linear": (200, 150), "head": (150, 300)},
    )


@pytest.mark.parametrize("scheme", get_args(Initialization))
@pytest.mark.parametrize(("model", "fans"), [(m, f) for _, m, f in wide()], ids=["plain", "mlp"])
def test_weights_are_normal_with_the_variance_of_the_scheme(
    model: nn.Module, fans: dict[str, tuple[int, int]], scheme: Initialization
) -> None:
    initialize(model, scheme, seeded(0))
    for name, (fan_in, fan_out) in fans.items():
        variance = {
            "he": (1 if name == "head" else 2) / fan_in,
            "xavier": 2 / (fan_in + fan_out),
            "lecun": 1 / fan_in,
            "small-gaussian": 1e-4,
        }[scheme]
        z = model.get_parameter(f"{name}.weight").detach().double() / variance**0.5
        n = z.numel()
        assert n > 10_000
        # Four standard errors of each estimate, for independent normal draws.
        assert abs(z.mean().item()) < 4 / n**0.5
        assert abs(z.square().mean().item() - 1) < 4 * (2 / n) ** 0.5
        # Φ(−2)·2 = 4.55 % lie outside two deviations; of uniform draws none do.
        assert abs((z.abs() > 2).double().mean().item() - 0.0455) < 4 * (0.0455 / n) ** 0.5


def test_signals_keep_their_size_through_a_deep_rectifier_network_with_he() -> None:
    """What the 2 in 2/fan_in is for: without it twelve layers would shrink by 2⁻⁶."""
    model = MLP(features=256, classes=4, widths=(256,) * 12, recipe=Recipe(None, nn.ReLU))
    initialize(model, "he", seeded(0))
    x = torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        spread = model(x).std().item()
    assert 0.3 < spread < 3
