"""Which layers are norms, what they weigh, and that they can be trained alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from bnbench.models.plain import MLP, Plain
from bnbench.models.recipe import (
    Counts,
    Recipe,
    counts,
    named_norm,
    normalization_layers,
    train_only_norm,
)
from bnbench.models.resnet import ResNet
from bnbench.norms.batch import BatchNorm
from bnbench.norms.group import GroupNorm


class OwnScale(nn.Module):
    """A normalization that no list of types knows, with a layer and a parameter of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.tau = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(self.norm(x), self.tau[:, None, None])


def plain(recipe: Recipe) -> nn.Module:
    return Plain(in_channels=1, classes=3, widths=(4, 6), blocks=2, recipe=recipe)


def mlp(recipe: Recipe) -> nn.Module:
    return MLP(features=64, classes=3, widths=(8, 6), recipe=recipe)


def resnet(recipe: Recipe) -> nn.Module:
    return ResNet(in_channels=1, classes=3, depth=8, width=4, recipe=recipe)


def two_groups(channels: int) -> nn.Module:
    return GroupNorm(channels, groups=2)


PLACEMENTS: tuple[Literal["before", "after"], ...] = ("before", "after")
NETWORKS = {"plain": (plain, 4), "mlp": (mlp, 2), "resnet": (resnet, 9)}


@pytest.mark.parametrize(("make", "norms"), NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("norm", [BatchNorm, two_groups])
def test_a_step_moves_the_norms_and_nothing_else(
    make: Callable[[Recipe], nn.Module],
    norms: int,
    placement: Literal["before", "after"],
    norm: Callable[[int], nn.Module],
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make(Recipe(norm, nn.ReLU, placement))
    train_only_norm(model)
    layers = normalization_layers(model)
    assert len(layers) == norms
    wanted = {f"{name}.{part}" for name in layers for part in ("weight", "bias")}
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    x = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    loss = nn.functional.cross_entropy(model(x), torch.arange(8) % 3)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (name in wanted), name
        assert torch.equal(parameter, before[name]) == (name not in wanted), name


def test_what_a_norm_learns_beside_its_scale_is_trained_too() -> None:
    model = plain(Recipe(OwnScale, nn.ReLU, activates=True))
    train_only_norm(model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert "stage1.block1.norm.tau" in trained
    assert len(trained) == 4 * 3


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (Recipe(None, nn.ReLU), "the network has no norms to train"),
        (
            Recipe(lambda channels: BatchNorm(channels, affine=False), nn.ReLU),
            "the norm layers of the network have no γ and β to train",
        ),
    ],
)
@pytest.mark.parametrize("make", [plain, mlp, resnet])
def test_nothing_to_train_is_refused(
    make: Callable[[Recipe], nn.Module], recipe: Recipe, said: str
) -> None:
    model = make(recipe)
    with pytest.raises(ValueError, match=f"^{said}$"):
        train_only_norm(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_description_by_hand() -> None:
    # Filters 1·4·9 + 4·4·9 + 4·6·9 + 6·6·9; γ and β of 4, 4, 6, 6 channels; head 6·3 + 3.
    size = 36 + 144 + 216 + 324 + 40 + 21
    model = plain(Recipe(BatchNorm, nn.ReLU))
    assert counts(model) == Counts(size, size, 4)
    train_only_norm(model)
    assert counts(model) == Counts(size, 40, 4)
    # Without norms the four units have biases.
    assert counts(plain(Recipe(None, nn.ReLU))) == Counts(size - 20, size - 20, 0)


def test_layers_inside_a_norm_do_not_count() -> None:
    layers = normalization_layers(plain(Recipe(OwnScale, nn.ReLU, activates=True)))
    assert list(layers) == [f"stage{s}.block{b}.norm" for s in (1, 2) for b in (1, 2)]


def test_strange_networks_are_read_by_name_or_by_type() -> None:
    """What a user's own file may hold."""
    model = nn.ModuleDict(
        {
            "normal_cell": nn.Conv2d(1, 2, 3),
            "bn": nn.BatchNorm2d(2),
            "ln": nn.LayerNorm(2),
            "norm2": OwnScale(2),
            "first": named_norm(OwnScale)(2),
        }
    )
    assert list(normalization_layers(model)) == ["bn", "ln", "norm2", "first.norm"]
