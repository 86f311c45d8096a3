"""ResNet against torchvision's blocks and functional twins."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from bnbench.errors import ArgumentError
from bnbench.models.recipe import Recipe, counts, normalization_layers
from bnbench.models.resnet import ResNet
from tests.models.resnets import (
    PLACEMENTS,
    SETUPS,
    VARIANTS,
    Placement,
    SquaredNorm,
    Variant,
    fill,
    images,
    recipe_of,
    resnet,
)


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


@dataclass
class Twin:
    """The network as functions of its parameters, each of which it takes out of `state`."""

    norm: str
    placement: Placement
    shifts: bool
    state: dict[str, Tensor]

    def shift(self, x: Tensor, name: str) -> Tensor:
        parent, _, layer = name.rpartition(".")
        wanted = self.shifts and name != "stem.conv"
        return x + self.state.pop(f"{parent}.shift_{layer}.bias") if wanted else x

    def conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        x = self.shift(x, name)
        weight, bias = self.state.pop(f"{name}.weight"), self.state.pop(f"{name}.bias", None)
        return F.conv2d(x, weight, bias, stride, padding=weight.shape[-1] // 2)

    def last_conv(self, x: Tensor, at: str) -> Tensor:
        one = torch.ones((), dtype=torch.float64)
        y = self.conv(x, f"{at}.branch.conv2")
        return y * self.state.pop(f"{at}.branch.multiplier.weight", one)

    def normalize(self, x: Tensor, name: str) -> Tensor:
        if self.norm == "none":
            return x
        gamma, beta = self.state.pop(f"{name}.weight"), self.state.pop(f"{name}.bias")
        if self.norm == "batch":
            return F.batch_norm(x, None, None, gamma, beta, training=True)
        return F.group_norm(x, 2, gamma, beta)

    def bend(self, x: Tensor, name: str) -> Tensor:
        x = self.shift(x, name.replace("norm", "activation"))
        if self.placement == "before":
            return self.normalize(x, name).clamp(min=0)
        return self.normalize(x.clamp(min=0), name)

    def post(self, x: Tensor, at: str, stride: int) -> Tensor:
        y = self.bend(self.conv(x, f"{at}.branch.conv1", stride), f"{at}.branch.norm1")
        y = self.last_conv(y, at)
        if stride == 2:
            x = self.normalize(self.conv(x, f"{at}.shortcut.conv", 2), f"{at}.shortcut.norm")
        if self.placement == "before":
            x = self.normalize(y, f"{at}.branch.norm2") + x
            return self.shift(x, f"{at}.exit.activation2").clamp(min=0)
        return self.normalize((y + x).clamp(min=0), f"{at}.exit.norm2")

    def pre(self, x: Tensor, at: str, stride: int) -> Tensor:
        y = self.bend(x, f"{at}.entry.norm1")
        if at.endswith("block1"):
            x = y
        if stride == 2:
            x = self.conv(x, f"{at}.shortcut.conv", 2)
        y = self.bend(self.conv(y, f"{at}.branch.conv1", stride), f"{at}.branch.norm2")
        return x + self.last_conv(y, at)


@pytest.mark.parametrize("fixup", [False, True])
@pytest.mark.parametrize(("norm", "variant", "placement"), SETUPS)
def test_networks_equal_their_functional_twins(
    norm: str, variant: Variant, placement: Placement, fixup: bool
) -> None:
    model = resnet(recipe_of(norm, placement), variant, depth=14, fixup=fixup).double()
    fill(model)
    shifts = fixup and norm == "none"
    twin = Twin(norm, placement, shifts, dict(model.named_parameters()))
    x = twin.conv(images(), "stem.conv")
    if variant == "post":
        x = twin.bend(x, "stem.norm")
    for s in (1, 2, 3):
        for b in (1, 2):
            block = twin.post if variant == "post" else twin.pre
            x = block(x, f"stage{s}.block{b}", 2 if s > 1 and b == 1 else 1)
    if variant == "pre":
        x = twin.bend(x, "final.norm")
    features = x.flatten(2).sum(2) / (x.shape[2] * x.shape[3])
    if shifts:
        features = features + twin.state.pop("shift_head.bias")
    expected = features @ twin.state.pop("head.weight").T + twin.state.pop("head.bias")
    assert not twin.state  # it has used every parameter
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
