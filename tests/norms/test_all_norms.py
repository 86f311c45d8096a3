"""What holds for every layer: memory format, precision, companions, state, the smallest inputs."""

from __future__ import annotations

import copy
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import pytest
import torch
from timm.layers.evo_norm import EvoNorm2dS0
from timm.layers.filter_response_norm import FilterResponseNormTlu2d
from torch import Tensor, nn
from torch.nn import functional as F

from bnbench import norms
from bnbench.norms import activated, batch, frozen, group, noisy, renorm

C = 4
IMAGES, FEATURES = (6, C, 2, 3), (6, C)


@dataclass(frozen=True)
class Row:
    """A layer for a number of channels, and torch's (else timm's) nearest, to compare rounding."""

    make: Callable[[int], nn.Module]
    nearest: Callable[[int], nn.Module]
    needs_positions: bool = False  # refuses one value per channel of an image


class ImageRMSNorm(nn.Module):
    """torch's rms_norm over whole images."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[1:], eps=1e-5)


class Warm(nn.Module):
    """A layer that has trained on the input of `rounding` once, so that it has statistics."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        self.layer.train()(x.detach())
        found: Tensor = self.layer.eval()(x)
        return found


ROWS = {
    "BatchNorm": Row(batch.BatchNorm, nn.BatchNorm2d),
    "GhostBatchNorm": Row(lambda c: batch.GhostBatchNorm(c, batch_size=2), nn.BatchNorm2d),
    "BatchRenorm": Row(lambda c: renorm.BatchRenorm(c), nn.BatchNorm2d),
    "FrozenBatchNorm": Row(lambda c: frozen.FrozenBatchNorm(c, freeze_after=9), nn.BatchNorm2d),
    "NoisyBatchNorm": Row(
        lambda c: noisy.NoisyBatchNorm(
            c, mean_range=0.0, std_range=1.0, mean_jitter=0.0, std_jitter=0.0
        ),
        nn.BatchNorm2d,
    ),
    "GroupNorm": Row(
        lambda c: group.GroupNorm(c, groups=1 if c == 1 else 2),
        lambda c: nn.GroupNorm(1 if c == 1 else 2, c),
    ),
    "LayerNorm": Row(group.LayerNorm, lambda c: nn.GroupNorm(1, c)),
    "InstanceNorm": Row(group.InstanceNorm, nn.InstanceNorm2d, needs_positions=True),
    "RMSNorm": Row(group.RMSNorm, lambda _: ImageRMSNorm()),
    "FilterResponseNorm": Row(
        activated.FilterResponseNorm,
        lambda c: FilterResponseNormTlu2d(c, eps=1e-6),
        needs_positions=True,
    ),
    "EvoNormS0": Row(
        lambda c: activated.EvoNormS0(c, groups=1 if c == 1 else 2),
        lambda c: EvoNorm2dS0(c, groups=1 if c == 1 else 2),
    ),
}
OF_IMAGE = [
    "GroupNorm",
    "LayerNorm",
    "InstanceNorm",
    "RMSNorm",
    "FilterResponseNorm",
    "EvoNormS0",
]


def draw(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def example(shape: tuple[int, ...]) -> Tensor:
    """Around 100, with channels of different scales."""
    scale = torch.arange(1, shape[1] + 1, dtype=torch.float64)
    return draw(*shape) * scale.view(1, -1, *[1] * (len(shape) - 2)) + 100


def shuffled(layer: nn.Module) -> nn.Module:
    """With parameters that differ from their start."""
    for seed, parameter in enumerate(layer.parameters()):
        with torch.no_grad():
            parameter.add_(draw(*parameter.shape, seed=seed).to(parameter.dtype) / 4)
    return layer


def test_every_activation_normalization_has_a_row() -> None:
    layers = {
        name
        for found in pkgutil.iter_modules(norms.__path__, "bnbench.norms.")
        for name, layer in vars(import_module(found.name)).items()
        if isinstance(layer, type) and issubclass(layer, nn.Module) and name[0] != "_"
    }
    assert layers - set(ROWS) == {name for name in layers if "Standardized" in name}
    assert len(ROWS) == 11


@pytest.mark.parametrize("channels", [1, C, 16])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ROWS)
def test_memory_format_is_kept_and_changes_no_number(
    name: str, training: bool, channels: int
) -> None:
    x = example((6, channels, 2, 3))
    above = draw(*x.shape, seed=1)
    layer = shuffled(ROWS[name].make(channels).double()).train(training)
    results = []
    for memory_format in (torch.channels_last, torch.contiguous_format):
        twin = copy.deepcopy(layer)
        given = x.clone(memory_format=memory_format).requires_grad_()
        y = twin(given)
        assert y.is_contiguous(memory_format=memory_format)
        assert y.shape == x.shape
        assert channels == 1 or y.stride() == given.stride()
        y.backward(above.clone(memory_format=memory_format))
        assert given.grad is not None
        assert given.grad.is_contiguous(memory_format=memory_format)
        gradients = [parameter.grad for parameter in twin.parameters()]
        results.append((y, given.grad, *gradients, *twin.buffers()))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", OF_IMAGE)
def test_an_image_normalized_by_itself_knows_no_companions(name: str) -> None:
    for size in ((2, 3), (7, 7)):
        layer = shuffled(ROWS[name].make(C))
        x = example((6, C, *size)).float().contiguous(memory_format=torch.channels_last)
        together = layer(x)
        assert torch.equal(layer.eval()(x), together)
        for n in range(len(x)):
            assert torch.equal(layer(x[n : n + 1]), together[n : n + 1])


@pytest.mark.parametrize("shape", [IMAGES, FEATURES])
@pytest.mark.parametrize("name", ROWS)
def test_inference_on_an_image_knows_no_companions_and_leaves_the_state(
    name: str, shape: tuple[int, ...]
) -> None:
    if ROWS[name].needs_positions and shape is FEATURES:
        return
    layer = shuffled(ROWS[name].make(C))
    x = example(shape).float()
    layer(x)
    layer.eval()
    kept = copy.deepcopy(layer.state_dict())
    together = layer(x)
    for n in range(len(x)):
        assert torch.equal(layer(x[n : n + 1]), together[n : n + 1])
    for key, value in layer.state_dict().items():
        assert torch.equal(value, kept[key])


@pytest.mark.parametrize("shape", [IMAGES, FEATURES])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ROWS)
def test_gradients_are_those_of_the_function(
    name: str, training: bool, shape: tuple[int, ...]
) -> None:
    if ROWS[name].needs_positions and shape is FEATURES:
        return
    layer = shuffled(ROWS[name].make(C).double()).train(training)
    names = [key for key, _ in layer.named_parameters()]
    buffers = dict(layer.named_buffers())

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        state = dict(zip(names, parameters, strict=True))
        state |= {key: buffer.clone() for key, buffer in buffers.items()}
        found: Tensor = torch.func.functional_call(layer, state, (x,))
        return found

    inputs = [example(shape), *layer.parameters()]
    leaves = tuple(part.detach().clone().requires_grad_() for part in inputs)
    assert torch.autograd.gradcheck(function, leaves, fast_mode=shape is FEATURES)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("shift", [0.0, 100.0])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ROWS)
def test_rounding_error_is_at_most_twice_the_nearest_layers(
    name: str, training: bool, shift: float, layout: torch.memory_format
) -> None:
    """Of outputs and of input gradients; against our layer in fp64 (timm's rounds there too)."""
    row = ROWS[name]
    N, size = (2 if name == "GhostBatchNorm" else 16), 7
    x = (draw(N, C, size, size) + shift).float().contiguous(memory_format=layout)
    above = draw(*x.shape, seed=1).float().contiguous(memory_format=layout)

    def numbers(layer: nn.Module, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        layer = (layer if training else Warm(layer)).to(dtype)
        given = x.to(dtype).clone(memory_format=layout).requires_grad_()
        y = layer(given)
        y.backward(above.to(dtype))
        assert given.grad is not None
        return y.detach().double(), given.grad.double()

    exact = numbers(row.make(C), torch.float64)
    ours = numbers(row.make(C), torch.float32)
    theirs = numbers(row.nearest(C), torch.float32)
    for right, one, other in zip(exact, ours, theirs, strict=True):
        error, bound = ((part - right).abs().max().item() for part in (one, other))
        # Not below a few roundings of the result: at shift 0 the nearest layer may be lucky.
        assert error <= max(2 * bound, 8 * 2**-24 * right.abs().max().item())


@pytest.mark.parametrize("shape", [(6, C, 5, 5), FEATURES])
@pytest.mark.parametrize("name", ROWS)
def test_autocast_keeps_statistics_in_full_precision(name: str, shape: tuple[int, ...]) -> None:
    """What a convolution hands over under autocast: bf16 input, fp32 parameters."""
    if ROWS[name].needs_positions and shape is FEATURES:
        return
    half = example(shape).to(torch.bfloat16)
    layer = shuffled(ROWS[name].make(C))
    exact = copy.deepcopy(layer).double()
    given = half.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(given)
    y.backward(draw(*shape, seed=1).to(y.dtype))
    assert y.dtype == torch.bfloat16
    expected = exact(half.double())
    largest = expected.abs().max().item()
    # bf16 has 8 bits: one or two roundings of the result, next to statistics around 100.
    torch.testing.assert_close(y.double(), expected, rtol=2**-7, atol=2**-8 * largest)
    assert given.grad is not None
    assert given.grad.dtype == torch.bfloat16
    assert given.grad.isfinite().all()
    for ours, theirs in zip(layer.buffers(), exact.buffers(), strict=True):
        if ours.is_floating_point():
            assert ours.dtype == torch.float32
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=0)
    for parameter in layer.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("name", ROWS)
def test_state_returns_bit_by_bit_counters_included(name: str) -> None:
    layer, other = shuffled(ROWS[name].make(C)), ROWS[name].make(C)
    for _ in range(3):
        layer(example(IMAGES).float())
    other.load_state_dict(layer.state_dict())
    for twin in (layer, other):
        twin(example(IMAGES).float())
    for key, value in layer.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)
    x = example(IMAGES).float()
    assert torch.equal(layer.eval()(x), other.eval()(x))


# One example, one channel, one position: what comes of it in training mode.
BATCH = "1 image on a 1×1 map leaves batch norm one value per channel"
SMALLEST = {
    "BatchNorm": BATCH,
    "GhostBatchNorm": "1 examples do not split into chunks of 2",
    "BatchRenorm": BATCH,
    "FrozenBatchNorm": BATCH,
    "NoisyBatchNorm": BATCH,
    "GroupNorm": "1 channel in 1 group on a 1×1 map leave one value per group",
    "LayerNorm": "1 channel on a 1×1 map leaves layer norm one value",
    "InstanceNorm": "on a 1×1 map instance norm has one value per channel",
    "RMSNorm": "1 channel on a 1×1 map leaves rms norm one value",
    "FilterResponseNorm": "on a 1×1 map frn norm has one value per channel",
    "EvoNormS0": "1 channel in 1 group on a 1×1 map leave one value per group",
}


@pytest.mark.parametrize("name", ROWS)
def test_a_single_value_is_refused(name: str) -> None:
    layer = ROWS[name].make(1)
    x = torch.full((1, 1, 1, 1), 3.0)
    with pytest.raises(ValueError, match=f"^{SMALLEST[name]}$"):
        layer(x)


@pytest.mark.parametrize("name", ["InstanceNorm", "FilterResponseNorm"])
@pytest.mark.parametrize("shape", [(5, C), (5, C, 1, 1)])
def test_one_position_per_channel_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="norm has one value per channel"):
        ROWS[name].make(C)(torch.zeros(shape))


@pytest.mark.parametrize("name", sorted(set(ROWS) - {"InstanceNorm", "FilterResponseNorm"}))
@pytest.mark.parametrize("shape", [(6, C, 1, 1), (6, C)])
def test_one_position_is_enough_for_the_others(name: str, shape: tuple[int, ...]) -> None:
    layer = shuffled(ROWS[name].make(C))
    x = example(shape).float()
    y = layer(x)
    assert y.isfinite().all()
    assert torch.equal(y.flatten(), shuffled(ROWS[name].make(C))(x.view(6, C)).flatten())


@pytest.mark.parametrize("name", OF_IMAGE[2:])
def test_other_ranks_and_other_channels_are_refused(name: str) -> None:
    layer = ROWS[name].make(C)
    with pytest.raises(ValueError, match=r"expected \(N, C\) or \(N, C, H, W\), not \(2, 4, 3\)"):
        layer(torch.zeros(2, C, 3))
    with pytest.raises(ValueError, match=r"expected 4 channels, not 5: \(2, 5, 3, 3\)"):
        layer(torch.zeros(2, 5, 3, 3))


@pytest.mark.parametrize("name", sorted(set(ROWS) - {"EvoNormS0"}))
def test_without_affine_only_a_threshold_is_learned(name: str) -> None:
    keywords: dict[str, dict[str, int]] = {
        "GhostBatchNorm": {"batch_size": 2},
        "FrozenBatchNorm": {"freeze_after": 9},
        "GroupNorm": {"groups": 2},
    }
    layers = [
        type(ROWS[name].make(C))(C, affine=affine, **keywords.get(name, {}))
        for affine in (True, False)
    ]
    parameters = [key for key, _ in layers[1].named_parameters()]
    assert parameters == (["threshold"] if name == "FilterResponseNorm" else [])
    x = example(IMAGES).float()
    results = []
    for layer in layers:
        torch.manual_seed(0)
        given = x.clone().requires_grad_()
        y = layer(given)
        y.backward(draw(*IMAGES, seed=1).float())
        results.append((y, given.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
