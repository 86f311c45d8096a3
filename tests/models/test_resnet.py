"""ResNet against torchvision's blocks and functional twins; Fixup by what it promises."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from math import isfinite, log
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from bnbench.errors import ArgumentError
from bnbench.models.recipe import Recipe, counts, initialize, normalization_layers
from bnbench.models.resnet import ResNet
from bnbench.norms.batch import BatchNorm
from bnbench.norms.group import GroupNorm

Placement = Literal["before", "after"]
Variant = Literal["post", "pre"]
PLACEMENTS: tuple[Placement, ...] = ("before", "after")
VARIANTS: tuple[Variant, ...] = ("post", "pre")


def group(channels: int) -> nn.Module:
    return GroupNorm(channels, groups=2)


class SquaredNorm(nn.Module):
    """A norm that is its own activation, with one parameter a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x.square() * self.weight[:, None, None]


class StandardizedConv(nn.Conv2d):
    """Filters of mean 0 and variance 1/fan_in, whatever the scale of the weights."""

    def forward(self, input: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        fan_in = self.weight[0].numel()
        weight = (self.weight - mean) / (fan_in * (variance + 1e-6)).sqrt()
        return F.conv2d(input, weight, self.bias, self.stride, self.padding)


NORMS: dict[str, Callable[[int], nn.Module] | None] = {
    "none": None,
    "batch": BatchNorm,
    "group": group,
}
SETUPS: list[tuple[str, Variant, Placement]] = [
    (norm, variant, placement)
    for norm in NORMS
    for variant in VARIANTS
    for placement in PLACEMENTS
    if norm != "none" or placement == "before"
]


def recipe_of(norm: str, placement: Placement = "before") -> Recipe:
    return Recipe(NORMS[norm], nn.ReLU, placement)


def resnet(
    recipe: Recipe,
    variant: Variant = "post",
    *,
    depth: int = 8,
    width: int = 4,
    fixup: bool = True,
    zero_init_last_norm: bool = False,
    in_channels: int = 2,
) -> ResNet:
    return ResNet(
        in_channels=in_channels,
        classes=3,
        depth=depth,
        recipe=recipe,
        width=width,
        variant=variant,
        fixup=fixup,
        zero_init_last_norm=zero_init_last_norm,
    )


def initialized(model: ResNet, seed: int = 0) -> ResNet:
    initialize(
        model,
        "he",
        lambda name: torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode())),
    )
    return model


def fill(model: nn.Module) -> None:
    """Values that no tensor starts with; running variances stay positive."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                drawn = torch.randn(tensor.shape, generator=random, dtype=torch.float64)
                tensor.copy_(drawn.abs() + 0.5 if tensor.ndim == 1 else drawn / 4)


def images(n: int = 4, side: int = 9, channels: int = 2) -> Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.randn(n, channels, side, side, generator=random, dtype=torch.float64)


class TorchvisionTwin(nn.Module):
    """The CIFAR network out of torchvision's own blocks."""

    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        layers: list[nn.Module] = []
        channels = width
        for s in range(3):
            for b in range(blocks):
                planes, stride = width * 2**s, 2 if s and not b else 1
                downsample = None
                if stride == 2:
                    downsample = nn.Sequential(
                        nn.Conv2d(channels, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
                    )
                layers.append(BasicBlock(channels, planes, stride, downsample))
                channels = planes
        self.layers = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(F.relu(self.bn1(self.conv1(x))))
        logits: Tensor = self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def torchvision_name(name: str, blocks: int) -> str:
    """The twin's name of one of our tensors."""
    if name.startswith("stage"):
        stage, block, part, rest = name.split(".", 3)
        position = (int(stage[-1]) - 1) * blocks + int(block.removeprefix("block")) - 1
        if part == "shortcut":
            rest = rest.replace("conv", "downsample.0").replace("norm", "downsample.1")
        return f"layers.{position}.{rest.replace('norm', 'bn')}"
    for ours, theirs in (("stem.conv", "conv1"), ("stem.norm", "bn1"), ("head", "fc")):
        name = name.replace(ours, theirs)
    return name


@pytest.mark.parametrize("depth", [8, 20])
def test_post_activation_equals_torchvisions_blocks_with_the_same_weights(depth: int) -> None:
    blocks = (depth - 2) // 6
    model = resnet(recipe_of("batch"), depth=depth).double()
    fill(model)
    twin = TorchvisionTwin(blocks, 4).double()
    twin.load_state_dict(
        {torchvision_name(name, blocks): tensor for name, tensor in model.state_dict().items()}
    )
    x = images()
    for train in (True, False):
        model.train(train)
        twin.train(train)
        y, expected = model(x), twin(x)
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
        model.zero_grad()
        twin.zero_grad()
        y.square().sum().backward()
        expected.square().sum().backward()
        theirs = dict(twin.named_parameters())
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(
                parameter.grad, theirs[torchvision_name(name, blocks)].grad, rtol=1e-8, atol=1e-9
            )
    buffers = dict(twin.named_buffers())
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, buffers[torchvision_name(name, blocks)])


@pytest.mark.parametrize("fixup", [False, True])
@pytest.mark.parametrize(("norm", "variant", "placement"), SETUPS)
def test_networks_equal_their_functional_twins(
    norm: str, variant: Variant, placement: Placement, fixup: bool
) -> None:
    model = resnet(recipe_of(norm, placement), variant, depth=14, fixup=fixup).double()
    fill(model)
    state: dict[str, Tensor] = dict(model.named_parameters())

    def shift(x: Tensor, name: str) -> Tensor:
        parent, _, layer = name.rpartition(".")
        wanted = fixup and norm == "none" and name != "stem.conv"
        return x + state.pop(f"{parent}.shift_{layer}.bias") if wanted else x

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        x = shift(x, name)
        weight, bias = state.pop(f"{name}.weight"), state.pop(f"{name}.bias", None)
        return F.conv2d(x, weight, bias, stride, padding=weight.shape[-1] // 2)

    def normalize(x: Tensor, name: str) -> Tensor:
        if norm == "none":
            return x
        gamma, beta = state.pop(f"{name}.weight"), state.pop(f"{name}.bias")
        if norm == "batch":
            return F.batch_norm(x, None, None, gamma, beta, training=True)
        return F.group_norm(x, 2, gamma, beta)

    def bend(x: Tensor, name: str) -> Tensor:
        x = shift(x, name.replace("norm", "activation"))
        if placement == "before":
            return normalize(x, name).clamp(min=0)
        return normalize(x.clamp(min=0), name)

    one = torch.ones((), dtype=torch.float64)
    x = conv(images(), "stem.conv")
    if variant == "post":
        x = bend(x, "stem.norm")
    for s in (1, 2, 3):
        for b in (1, 2):
            at, stride = f"stage{s}.block{b}", 2 if s > 1 and b == 1 else 1
            if variant == "post":
                y = bend(conv(x, f"{at}.branch.conv1", stride), f"{at}.branch.norm1")
                y = conv(y, f"{at}.branch.conv2") * state.pop(f"{at}.branch.multiplier.weight", one)
                if stride == 2:
                    x = normalize(conv(x, f"{at}.shortcut.conv", 2), f"{at}.shortcut.norm")
                if placement == "before":
                    x = normalize(y, f"{at}.branch.norm2") + x
                    x = shift(x, f"{at}.exit.activation2").clamp(min=0)
                else:
                    x = normalize((y + x).clamp(min=0), f"{at}.exit.norm2")
            else:
                y = bend(x, f"{at}.entry.norm1")
                if b == 1:
                    x = y
                if stride == 2:
                    x = conv(x, f"{at}.shortcut.conv", 2)
                y = bend(conv(y, f"{at}.branch.conv1", stride), f"{at}.branch.norm2")
                y = conv(y, f"{at}.branch.conv2") * state.pop(f"{at}.branch.multiplier.weight", one)
                x = x + y
    if variant == "pre":
        x = bend(x, "final.norm")
    features = x.flatten(2).sum(2) / (x.shape[2] * x.shape[3])
    if fixup and norm == "none":
        features = features + state.pop("shift_head.bias")
    expected = features @ state.pop("head.weight").T + state.pop("head.bias")
    assert not state  # the twin has used every parameter
    torch.testing.assert_close(model(images()), expected, rtol=1e-9, atol=1e-9)


ORDERS: dict[tuple[Variant, str], str] = {
    ("post", "before"): "conv norm conv1 norm1 activation1 conv2 norm2 activation2",
    ("post", "after"): "conv norm conv1 activation1 norm1 conv2 activation2 norm2",
    ("post", "activates"): "conv conv1 norm1 conv2 norm2",
    ("post", "none"): "conv conv1 activation1 conv2 activation2",
    ("post", "fixup"): (
        "shift_conv conv shift_conv1 conv1 shift_activation1 activation1 shift_conv2 conv2 "
        "multiplier shift_activation2 activation2"
    ),
    ("pre", "before"): "norm1 activation1 conv conv1 norm2 activation2 conv2",
    ("pre", "after"): "activation1 norm1 conv conv1 activation2 norm2 conv2",
    ("pre", "activates"): "norm1 conv conv1 norm2 conv2",
    ("pre", "none"): "activation1 conv conv1 activation2 conv2",
    ("pre", "fixup"): (
        "shift_activation1 activation1 shift_conv conv shift_conv1 conv1 "
        "shift_activation2 activation2 shift_conv2 conv2 multiplier"
    ),
}


@pytest.mark.parametrize(("variant", "kind"), ORDERS)
def test_a_block_runs_its_layers_in_the_order_of_its_drawing(variant: Variant, kind: str) -> None:
    assert len(ORDERS) == 10
    recipe = {
        "before": recipe_of("batch", "before"),
        "after": recipe_of("batch", "after"),
        "activates": Recipe(SquaredNorm, nn.ReLU, activates=True),
        "none": recipe_of("none"),
        "fixup": recipe_of("none"),
    }[kind]
    model = resnet(recipe, variant, fixup=kind == "fixup")
    calls: list[str] = []
    for name, module in model.get_submodule("stage2.block1").named_modules():
        if not list(module.children()) and name not in ("entry", "shortcut", "exit"):
            module.register_forward_hook(
                lambda *_, name=name: calls.append(name.rsplit(".", 1)[-1])
            )
    model(images().float())
    assert " ".join(calls) == ORDERS[variant, kind]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("depth", [8, 20, 56])
def test_placements_have_the_same_norms(variant: Variant, norm: str, depth: int) -> None:
    before, after = (
        normalization_layers(resnet(recipe_of(norm, placement), variant, depth=depth))
        for placement in PLACEMENTS
    )
    blocks = (depth - 2) // 6
    assert len(before) == len(after) == 6 * blocks + (3 if variant == "post" else 1)
    sizes = [
        sorted(tuple(p.shape) for layer in layers.values() for p in layer.parameters())
        for layers in (before, after)
    ]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_norm_that_activates_stands_twice_in_each_block(variant: Variant) -> None:
    model = resnet(Recipe(SquaredNorm, nn.ReLU, activates=True), variant, depth=14)
    assert len(normalization_layers(model)) == 1 + 2 * 6
    assert not any(isinstance(module, nn.ReLU) for module in model.modules())
    model(images().float())


@pytest.mark.parametrize(("depth", "million"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)])
def test_sizes_are_those_of_the_paper(depth: int, million: float) -> None:
    """He et al. 2015, Table 6, whose shortcuts have no parameters."""
    model = ResNet(in_channels=3, classes=10, depth=depth, recipe=recipe_of("batch"))
    shortcuts = sum(
        parameter.numel() for name, parameter in model.named_parameters() if "shortcut" in name
    )
    assert shortcuts == (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    assert round((counts(model).parameters - shortcuts) / 1e6, 2) == million


@pytest.mark.parametrize(
    ("norm", "variant", "placement", "biased"),
    [
        ("batch", "post", "before", set()),
        ("batch", "pre", "before", set()),
        ("batch", "post", "after", {"conv", "conv1", "conv2"}),
        ("batch", "pre", "after", {"conv", "conv1", "conv2"}),
        ("none", "post", "before", {"conv", "conv1", "conv2"}),
        ("none", "pre", "before", {"conv", "conv1", "conv2"}),
    ],
)
@pytest.mark.parametrize("fixup", [True, False])
def test_a_convolution_has_a_bias_exactly_where_no_norm_takes_it_away(
    norm: str, variant: Variant, placement: Placement, biased: set[str], fixup: bool
) -> None:
    model = resnet(recipe_of(norm, placement), variant, fixup=fixup)
    found = 0
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            found += 1
            wanted = name.rsplit(".", 1)[-1] in biased and "shortcut" not in name
            assert (module.bias is not None) == wanted, name
    assert found == 1 + 6 + 2


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


@pytest.mark.parametrize("depth", [18, 9, 7, 2, -4])
def test_other_depths_are_refused_with_the_legal_ones(depth: int) -> None:
    with pytest.raises(ArgumentError, match=rf"^{depth} is not 6n \+ 2$") as refused:
        resnet(recipe_of("batch"), depth=depth)
    assert refused.value.hint == "8, 14, 20, 32, 44, 56, 110"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("side", "sides"), [(28, (28, 14, 7)), (9, (9, 5, 3)), (1, (1, 1, 1))])
def test_stages_halve_any_resolution(
    variant: Variant, side: int, sides: tuple[int, int, int]
) -> None:
    model = resnet(recipe_of("batch"), variant, depth=14, in_channels=1)
    found: list[tuple[int, ...]] = []
    for s in (1, 2, 3):
        model.get_submodule(f"stage{s}").register_forward_hook(
            lambda _, __, y: found.append(tuple(y.shape))
        )
    # Sides may differ: height as asked, width 1 more.
    assert model(torch.randn(2, 1, side, side + 1)).shape == (2, 3)
    assert [shape[2] for shape in found] == list(sides)
    assert [shape[1] for shape in found] == [4, 8, 16]


def test_dropout_stands_before_the_head() -> None:
    model = ResNet(
        in_channels=1, classes=2, depth=8, recipe=recipe_of("group"), width=8, dropout=0.5
    )
    found: list[Tensor] = []
    model.head.register_forward_pre_hook(lambda _, args: found.append(args[0]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model(torch.randn(64, 1, 4, 4))
    model.eval()
    model(torch.randn(64, 1, 4, 4))
    kept, whole = ((features != 0).double().mean().item() for features in found)
    assert abs(kept / whole - 0.5) < 0.1


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_residual_network_keeps_channels_last(variant: Variant) -> None:
    model = resnet(recipe_of("none"), variant).to(memory_format=torch.channels_last)
    seen: list[bool] = []
    for name, module in model.named_modules():
        if "block" in name:
            module.register_forward_hook(
                lambda _, __, y: seen.append(y.is_contiguous(memory_format=torch.channels_last))
            )
    model(images().float().contiguous(memory_format=torch.channels_last))
    assert len(seen) > 20
    assert all(seen)
