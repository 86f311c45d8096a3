"""Plain and MLP against functional twins; order, biases, resolutions, dropout by behaviour."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnbench.models.plain import MLP, Plain
from bnbench.models.recipe import Recipe
from bnbench.norms.batch import BatchNorm
from bnbench.norms.group import GroupNorm

Placement = Literal["before", "after"]
Norm = Callable[[int], nn.Module]


def group(channels: int) -> nn.Module:
    return GroupNorm(channels, groups=2)


NORMS: dict[str, Norm | None] = {"none": None, "batch": BatchNorm, "group": group}
SETUPS: list[tuple[str, Placement]] = [
    ("none", "before"),
    ("none", "after"),
    ("batch", "before"),
    ("batch", "after"),
    ("group", "before"),
    ("group", "after"),
]
ACTIVATIONS: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor]]] = {
    "relu": (nn.ReLU, lambda x: x.clamp(min=0)),
    "sigmoid": (nn.Sigmoid, lambda x: 1 / (1 + (-x).exp())),
}


def plain(
    norm: str, placement: Placement, activation: str = "relu", dropout: float = 0.0
) -> nn.Module:
    recipe = Recipe(NORMS[norm], ACTIVATIONS[activation][0], placement)
    return Plain(
        in_channels=2, classes=3, widths=(4, 6), blocks=2, recipe=recipe, dropout=dropout
    ).double()


def mlp(
    norm: str, placement: Placement, activation: str = "relu", dropout: float = 0.0
) -> nn.Module:
    recipe = Recipe(NORMS[norm], ACTIVATIONS[activation][0], placement)
    return MLP(features=50, classes=3, widths=(8, 6), recipe=recipe, dropout=dropout).double()


def shuffle_parameters(model: nn.Module) -> None:
    """Values that no layer starts with, so that a tensor left out or swapped shows."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random, dtype=torch.float64))


def images(n: int = 5) -> Tensor:
    return torch.randn(n, 2, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def follow_up(
    x: Tensor, state: dict[str, Any], unit: str, norm: str, placement: Placement, activation: str
) -> Tensor:
    """Norm and activation, written out for one unit."""

    def normalize(x: Tensor) -> Tensor:
        if norm == "none":
            return x
        gamma, beta = state[f"{unit}.norm.weight"], state[f"{unit}.norm.bias"]
        if norm == "batch":
            return F.batch_norm(x, None, None, gamma, beta, training=True)
        return F.group_norm(x, 2, gamma, beta)

    act = ACTIVATIONS[activation][1]
    return act(normalize(x)) if placement == "before" else normalize(act(x))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("norm", "placement"), SETUPS)
def test_plain_equals_its_functional_twin(norm: str, placement: Placement, activation: str) -> None:
    model = plain(norm, placement, activation)
    shuffle_parameters(model)
    state = dict(model.named_parameters())
    x = images()
    for unit, stride in (
        ("stage1.block1", 1),
        ("stage1.block2", 1),
        ("stage2.block1", 2),
        ("stage2.block2", 1),
    ):
        bias = state.pop(f"{unit}.conv.bias", None)
        x = F.conv2d(F.pad(x, (1, 1, 1, 1)), state.pop(f"{unit}.conv.weight"), bias, stride)
        x = follow_up(x, state, unit, norm, placement, activation)
        state.pop(f"{unit}.norm.weight", None)
        state.pop(f"{unit}.norm.bias", None)
    x = x.flatten(2).sum(2) / 9  # 5 → 3 pixels a side
    expected = x @ state.pop("head.weight").T + state.pop("head.bias")
    assert not state  # the twin has used every parameter
    torch.testing.assert_close(model(images()), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("norm", "placement"), SETUPS)
def test_mlp_equals_its_functional_twin(norm: str, placement: Placement, activation: str) -> None:
    model = mlp(norm, placement, activation)
    shuffle_parameters(model)
    state = dict(model.named_parameters())
    x = images().reshape(5, 50)
    for unit in ("layer1", "layer2"):
        x = x @ state[f"{unit}.linear.weight"].T
        if (bias := state.get(f"{unit}.linear.bias")) is not None:
            x = x + bias
        x = follow_up(x, state, unit, norm, placement, activation)
    expected = x @ state["head.weight"].T + state["head.bias"]
    torch.testing.assert_close(model(images()), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [plain, mlp])
@pytest.mark.parametrize(("norm", "placement"), SETUPS)
def test_each_layer_is_handed_what_the_one_before_it_made(
    make: Callable[[str, Placement], nn.Module], norm: str, placement: Placement
) -> None:
    """The order in which layers really run, each on the output of the last."""
    model = make(norm, placement)
    calls: list[str] = []
    passed: list[tuple[Tensor, Tensor]] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):
            calls.append("weights")
        elif isinstance(module, BatchNorm | GroupNorm):
            calls.append("norm")
        elif isinstance(module, nn.ReLU):
            calls.append("act")
        if not isinstance(module, nn.Dropout):
            passed.append((inputs[0], output))

    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(record)
    model(images())
    unit = {"before": ["weights", "norm", "act"], "after": ["weights", "act", "norm"]}[placement]
    if norm == "none":
        unit.remove("norm")
    units = 4 if make is plain else 2
    assert calls == unit * units + ["weights"]
    inner = passed[: len(unit) * units]
    for (_, made), (taken, _) in pairwise(inner):
        assert taken is made


@pytest.mark.parametrize("make", [plain, mlp])
def test_placement_shows_in_what_a_unit_puts_out(
    make: Callable[[str, Placement], nn.Module],
) -> None:
    placements: tuple[Placement, ...] = ("before", "after")
    for placement in placements:
        model = make("batch", placement)
        name = "stage1.block1" if make is plain else "layer1"
        found: list[Tensor] = []
        model.get_submodule(name).register_forward_hook(lambda _, __, y, kept=found: kept.append(y))
        model(images())
        means = found[0].transpose(0, 1).flatten(1).mean(1)
        if placement == "before":
            assert (found[0] >= 0).all()
            assert (means > 0.1).all()
        else:
            torch.testing.assert_close(means, torch.zeros_like(means), rtol=0, atol=1e-9)
            assert (found[0] < 0).any()


@pytest.mark.parametrize("make", [plain, mlp])
@pytest.mark.parametrize(("norm", "placement"), SETUPS)
def test_a_weight_layer_has_a_bias_exactly_where_no_norm_follows_it(
    make: Callable[[str, Placement], nn.Module], norm: str, placement: Placement
) -> None:
    model = make(norm, placement)
    wanted = norm == "none" or placement == "after"
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert (module.bias is not None) == (wanted or name == "head"), name


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_numbers_of_parameters_by_hand() -> None:
    # Plain: filters 2·4·9 + 4·4·9 + 4·6·9 + 6·6·9; units of 4, 4, 6, 6 channels; head 6·3 + 3.
    filters, channels, head = 72 + 144 + 216 + 324, 20, 21
    assert size(plain("batch", "before")) == filters + 2 * channels + head
    assert size(plain("batch", "after")) == filters + channels + 2 * channels + head
    assert size(plain("none", "before")) == filters + channels + head
    # MLP: 50·8 + 8·6; units of 8 and 6; head 6·3 + 3.
    assert size(mlp("group", "before")) == 448 + 2 * 14 + 21
    assert size(mlp("group", "after")) == 448 + 14 + 2 * 14 + 21
    assert size(mlp("none", "before")) == 448 + 14 + 21


@pytest.mark.parametrize(
    ("side", "sides"),
    [
        (28, [28, 28, 14, 14, 7, 7, 4, 4]),
        (7, [7, 7, 4, 4, 2, 2, 1, 1]),
        (5, [5, 5, 3, 3, 2, 2, 1, 1]),
        (1, [1] * 8),
    ],
)
def test_each_stage_but_the_first_halves_the_resolution(side: int, sides: list[int]) -> None:
    recipe = Recipe(None, nn.ReLU)
    model = Plain(in_channels=1, classes=2, widths=(2, 3, 4, 5), blocks=2, recipe=recipe)
    found: list[tuple[int, ...]] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, __, y: found.append(tuple(y.shape)))
    # Sides may differ: height as asked, width 1 more.
    model(torch.zeros(1, 1, side, side + 1))
    assert [shape[2] for shape in found] == sides
    assert [shape[1] for shape in found] == [2, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.parametrize("make", [plain, mlp])
def test_dropout_drops_features_before_the_head_in_training_only(
    make: Callable[..., nn.Module],
) -> None:
    model = make("none", "before", "sigmoid", dropout=0.25)
    undropped = make("none", "before", "sigmoid")
    undropped.load_state_dict(model.state_dict())
    found: list[Tensor] = []
    model.get_submodule("head").register_forward_pre_hook(lambda _, args: found.append(args[0]))
    expected: list[Tensor] = []
    undropped.get_submodule("head").register_forward_pre_hook(
        lambda _, args: expected.append(args[0])
    )
    x = images(400)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model(x)
    model.eval()
    torch.testing.assert_close(model(x), undropped(x), rtol=0, atol=0)
    trained, kept = found[0], found[0] != 0
    share = kept.double().mean().item()
    n = kept.numel()
    assert abs(share - 0.75) < 4 * (0.75 * 0.25 / n) ** 0.5
    torch.testing.assert_close(trained[kept], expected[0][kept] / 0.75)
    assert torch.equal(found[1], expected[0])


def test_lenet_is_torch_layers_in_a_row() -> None:
    """LeNet with BatchNorm, as https://d2l.ai/chapter_convolutional-modern/batch-norm.html has it,
    but for the biases before a norm."""
    recipe = Recipe(NORMS["batch"], nn.Sigmoid)
    model = Plain(
        in_channels=1, classes=10, widths=(6, 16), blocks=1, recipe=recipe, image_size=(28, 28),
        kernel=5, padding=(0, 0), halving="average", features="all", hidden=(120, 84),
    ).double()  # fmt: skip
    shuffle_parameters(model)
    stages = [
        [nn.Conv2d(i, o, 5, bias=False), nn.BatchNorm2d(o), nn.Sigmoid(), nn.AvgPool2d(2)]
        for i, o in ((1, 6), (6, 16))
    ]
    dense = [
        [nn.Linear(i, o, bias=False), nn.BatchNorm1d(o), nn.Sigmoid()]
        for i, o in ((256, 120), (120, 84))
    ]
    parts = [*stages[0], *stages[1], nn.Flatten(), *dense[0], *dense[1], nn.Linear(84, 10)]
    reference = nn.Sequential(*parts).double()
    own, theirs = list(model.parameters()), list(reference.parameters())
    assert [p.shape for p in own] == [p.shape for p in theirs]
    with torch.no_grad():
        for mine, other in zip(own, theirs, strict=True):
            other.copy_(mine)
    x = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(model(x), reference(x))


def test_what_leaves_nothing_of_an_image_is_refused() -> None:
    keys: dict[str, Any] = {"in_channels": 1, "classes": 2, "recipe": Recipe(None, nn.ReLU)}
    keys |= {"widths": (2, 2), "blocks": 1, "image_size": (6, 6)}
    with pytest.raises(ValueError, match="2 stages leave nothing of images of 6×6"):
        Plain(**keys, kernel=5, padding=(0, 0), halving="max")
    with pytest.raises(ValueError, match="padding is of 1 stages, the network has 2"):
        Plain(**keys, padding=(1,))


def test_depth_repeats_the_last_width_and_inputs_may_be_normalized() -> None:
    keys: dict[str, Any] = {"features": 50, "classes": 3, "recipe": Recipe(NORMS["batch"], nn.ReLU)}
    deep = MLP(widths=(8, 6), depth=4, norm_inputs=True, **keys).double()
    plain = MLP(widths=(8, 6, 6, 6), **keys).double()
    shuffle_parameters(plain)
    left = deep.load_state_dict(plain.state_dict(), strict=False)
    assert left.missing_keys[:2] == ["norm.weight", "norm.bias"]
    x = images(40)
    inputs = x.flatten(1)
    spread = inputs.std(0, correction=0)
    expected = (inputs - inputs.mean(0)) / (spread.square() + 1e-5).sqrt()
    torch.testing.assert_close(deep(x), plain(expected.view_as(x)))
    with pytest.raises(ValueError, match="2 widths are more than 1 layers"):
        MLP(widths=(8, 6), depth=1, **keys)


def test_a_plain_network_keeps_channels_last() -> None:
    model = Plain(
        in_channels=2,
        classes=3,
        widths=(4, 6),
        blocks=1,
        recipe=Recipe(group, nn.ReLU, "after"),
    ).to(memory_format=torch.channels_last)
    seen = 0

    def check(_: nn.Module, __: object, y: Tensor) -> None:
        nonlocal seen
        seen += 1
        assert y.is_contiguous(memory_format=torch.channels_last)

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ReLU | GroupNorm):
            module.register_forward_hook(check)
    model(torch.randn(3, 2, 6, 6).contiguous(memory_format=torch.channels_last))
    assert seen == 6
