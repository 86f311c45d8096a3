"""Fixup by what it promises, and blocks that start as their shortcuts."""

from __future__ import annotations

from math import isfinite, log

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnbench.errors import ArgumentError
from bnbench.models.recipe import Recipe, normalization_layers
from bnbench.models.resnet import ResNet
from bnbench.norms.batch import BatchNorm
from tests.models.resnets import (
    SETUPS,
    VARIANTS,
    SquaredNorm,
    StandardizedConv,
    Variant,
    images,
    initialized,
    recipe_of,
    resnet,
)


def test_setups_share_every_weight_up_to_the_factors_of_fixup() -> None:
    def weights(recipe: Recipe, variant: Variant, fixup: bool, seed: int = 0) -> dict[str, Tensor]:
        model = initialized(resnet(recipe, variant, depth=14, fixup=fixup), seed)
        return {
            name: module.get_parameter("weight").detach()
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear)
        }

    reference = weights(recipe_of("batch"), "post", True)
    assert len(reference) == 1 + 12 + 2 + 1
    for norm, variant, placement in SETUPS:
        for fixup in (True, False):
            found = weights(recipe_of(norm, placement), variant, fixup)
            assert found.keys() == reference.keys()
            for name, weight in found.items():
                factor = 1.0
                if norm == "none" and fixup:
                    if name.endswith("conv1"):
                        factor = 6**-0.5  # six branches of two convolutions
                    elif name.endswith("conv2") or name == "head":
                        factor = 0.0
                torch.testing.assert_close(weight, factor * reference[name], rtol=1e-6, atol=0)
    for name, weight in weights(recipe_of("batch"), "post", True, seed=1).items():
        assert not (weight == reference[name]).any()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("standardized", [False, True])
def test_fixup_starts_with_silent_branches_and_a_silent_head(
    variant: Variant, standardized: bool
) -> None:
    make_conv = StandardizedConv if standardized else nn.Conv2d
    model = initialized(
        resnet(Recipe(None, nn.ReLU, make_conv=make_conv), variant, depth=14)
    ).double()
    outputs: list[Tensor] = []
    for name, module in model.named_modules():
        if name.endswith("branch"):
            module.register_forward_hook(lambda _, __, y: outputs.append(y))
    logits = model(images())
    assert len(outputs) == 6
    assert not any(y.any() for y in outputs)
    assert not logits.any()
    # And yet everything can begin to move: no gradient is stuck once the head has moved.
    with torch.no_grad():
        model.head.weight.fill_(0.1)
    model(images()).square().sum().backward()
    for name, parameter in model.named_parameters():
        last = "multiplier" if standardized else "conv2"
        if f"branch.{last}.weight" in name:
            assert parameter.grad is not None
            assert parameter.grad.any(), name


def spread(model: ResNet) -> float:
    found: list[Tensor] = []
    model.get_submodule("final").register_forward_hook(lambda _, __, y: found.append(y))
    with torch.no_grad():
        model(images(8, 8).to(next(model.parameters()).dtype))
    return found[0].std().item()


@pytest.mark.parametrize("variant", VARIANTS)
def test_fixup_keeps_activations_bounded_in_a_deep_network(variant: Variant) -> None:
    without = initialized(resnet(recipe_of("none"), variant, depth=56, width=8, fixup=False))
    model = initialized(resnet(recipe_of("none"), variant, depth=56, width=8))
    # Without, each of the 27 branches adds its variance to what has come in.
    assert spread(without) > 50
    assert 0.1 < spread(model) < 10
    # Branches stay small when they speak: L^(−1/2) each.
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("conv2.weight"):
                parameter.normal_(std=(2 / parameter[0].numel()) ** 0.5, generator=random)
    assert 0.1 < spread(model) < 10


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_deep_network_without_norms_learns_with_fixup_where_it_diverges_without(
    variant: Variant,
) -> None:
    with_, without = (
        losses(initialized(resnet(recipe_of("none"), variant, depth=56, width=8, fixup=fixup)))
        for fixup in (True, False)
    )
    assert with_[0] == pytest.approx(log(3))
    assert with_[-1] < 0.3
    assert not isfinite(without[-1])


def losses(model: nn.Module) -> list[float]:
    """Of 12 steps on 12 images of noise, which a network can only learn by heart."""
    x, labels = images(12, 8).float(), torch.arange(12) % 3
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    found: list[float] = []
    for _ in range(12):
        loss = F.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        found.append(loss.item())
    return found


def test_with_a_norm_fixup_changes_nothing() -> None:
    with_, without = (
        initialized(resnet(recipe_of("group"), fixup=fixup)).state_dict() for fixup in (True, False)
    )
    assert with_.keys() == without.keys()
    for name in with_:
        assert torch.equal(with_[name], without[name])


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_with_zeroed_last_norms_a_block_starts_as_its_shortcut(norm: str) -> None:
    model = initialized(resnet(recipe_of(norm), depth=14, zero_init_last_norm=True))
    ones = {n: layer for n, layer in normalization_layers(model).items() if "norm2" not in n}
    assert len(ones) == 1 + 6 + 2
    for layer in ones.values():
        assert (layer.get_parameter("weight") == 1).all()
    x = images().float()
    for name, block in model.named_modules():
        if name.endswith("block2"):
            channels = int(block.get_parameter("branch.conv1.weight").shape[1])
            x = images(channels=channels).float()
            torch.testing.assert_close(block(x), x.clamp(min=0), rtol=0, atol=0)


def test_without_a_norm_there_is_no_last_norm_to_zero() -> None:
    resnet(recipe_of("none"), zero_init_last_norm=True)


@pytest.mark.parametrize(
    ("recipe", "variant", "found"),
    [
        (recipe_of("batch", "after"), "post", "with placement after a branch ends in a conv"),
        (recipe_of("batch"), "pre", "in variant pre a branch ends in a conv"),
        (recipe_of("batch", "after"), "pre", "in variant pre a branch"),
        (
            Recipe(SquaredNorm, nn.ReLU, activates=True),
            "post",
            "a norm that is the activation as well cannot end",
        ),
        (
            Recipe(lambda channels: BatchNorm(channels, affine=False), nn.ReLU),
            "post",
            "the norms have no γ",
        ),
    ],
)
def test_a_last_norm_that_does_not_end_its_branch_cannot_start_at_zero(
    recipe: Recipe, variant: Variant, found: str
) -> None:
    with pytest.raises(ArgumentError, match=f"^{found}") as refused:
        resnet(recipe, variant, zero_init_last_norm=True)
    assert refused.value.argument == "zero_init_last_norm"
