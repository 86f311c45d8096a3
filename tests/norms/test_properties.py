"""What holds for every layer: memory format, precision, other images, state, smallest inputs."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from bnbench.assemble.model import normalized
from tests.norms import test_weight_standardization
from tests.norms.rows import (
    KINDS,
    OF_BATCH,
    OF_IMAGE,
    ROWS,
    STEPS,
    C,
    draw,
    example,
    layer,
    settings,
)

IMAGES, FEATURES = (6, C, 2, 3), (6, C)


class Warm(nn.Module):
    """A layer that has trained on its input once, so that it has statistics."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        self.norm.train()(x.detach())
        found: Tensor = self.norm.eval()(x)
        return found


def shuffled(norm: nn.Module) -> nn.Module:
    """With parameters that differ from their start."""
    for seed, parameter in enumerate(norm.parameters()):
        with torch.no_grad():
            parameter.add_(draw(*parameter.shape, seed=seed).to(parameter.dtype) / 4)
    return norm


def test_every_kind_has_a_row_or_layers_that_are_tested() -> None:
    tested = {type(layer(kind)) for kind in ROWS}
    tested |= {type(make()) for make in test_weight_standardization.LAYERS.values()}
    for kind in KINDS.keys() - {"none", "custom"}:
        recipe = normalized(settings(kind), "relu", STEPS)
        made = {type(recipe.make_conv(C, C, 1)), type(recipe.make_linear(C, C))}
        if recipe.make_norm is not None:
            made.add(type(recipe.make_norm(C)))
        missing = made - tested - {nn.Conv2d, nn.Linear}
        assert not missing, f"{kind}: no row in tests/norms/rows.py"


@pytest.mark.parametrize("channels", [1, C, 16])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ROWS)
def test_memory_format_is_kept_and_changes_no_number(
    name: str, training: bool, channels: int
) -> None:
    x = example((6, channels, 2, 3))
    above = draw(*x.shape, seed=1)
    norm = shuffled(layer(name, channels).double()).train(training)
    results = []
    for memory_format in (torch.channels_last, torch.contiguous_format):
        twin = copy.deepcopy(norm)
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


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    "name", sorted(ROWS.keys() - {"frn"})
)  # it keeps its output, as sigmoid does
def test_what_follows_may_work_in_place(name: str, memory_format: torch.memory_format) -> None:
    """As ReLU(inplace=True) and a residual sum do in networks that others have written."""
    x = example(IMAGES).clone(memory_format=memory_format)
    norm, gradients = shuffled(layer(name).double()), []
    for in_place in (True, False):
        given = x.clone(memory_format=memory_format).requires_grad_()
        y = copy.deepcopy(norm)(given)
        y = (y.mul_(given).relu_() if in_place else (y * given).relu()).square()
        (gradient,) = torch.autograd.grad(y.sum(), given)
        gradients.append(gradient)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OF_IMAGE)
def test_an_image_normalized_by_itself_depends_on_no_other_image(name: str) -> None:
    for size in ((2, 3), (7, 7)):
        norm = shuffled(layer(name))
        x = example((6, C, *size)).float().contiguous(memory_format=torch.channels_last)
        together = norm(x)
        assert torch.equal(norm.eval()(x), together)
        for n in range(len(x)):
            assert torch.equal(norm(x[n : n + 1]), together[n : n + 1])


@pytest.mark.parametrize("shape", [IMAGES, FEATURES])
@pytest.mark.parametrize("name", ROWS)
def test_inference_on_an_image_depends_on_no_other_image_and_leaves_the_state(
    name: str, shape: tuple[int, ...]
) -> None:
    if ROWS[name].needs_positions and shape is FEATURES:
        return
    norm = shuffled(layer(name))
    x = example(shape).float()
    norm(x)
    norm.eval()
    kept = copy.deepcopy(norm.state_dict())
    together = norm(x)
    for n in range(len(x)):
        assert torch.equal(norm(x[n : n + 1]), together[n : n + 1])
    for key, value in norm.state_dict().items():
        assert torch.equal(value, kept[key])


@pytest.mark.parametrize("shape", [IMAGES, FEATURES])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ROWS)
def test_gradients_are_those_of_the_function(
    name: str, training: bool, shape: tuple[int, ...]
) -> None:
    if ROWS[name].needs_positions and shape is FEATURES:
        return
    norm = shuffled(layer(name).double()).train(training)
    names = [key for key, _ in norm.named_parameters()]
    buffers = dict(norm.named_buffers())

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        state = dict(zip(names, parameters, strict=True))
        state |= {key: buffer.clone() for key, buffer in buffers.items()}
        found: Tensor = torch.func.functional_call(norm, state, (x,))
        return found

    inputs = [example(shape), *norm.parameters()]
    leaves = tuple(part.detach().clone().requires_grad_() for part in inputs)
    assert torch.autograd.gradcheck(function, leaves, fast_mode=shape is FEATURES)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("shift", [0.0, 100.0])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ROWS)
def test_rounding_error_is_at_most_twice_the_nearest_layers(
    name: str, training: bool, shift: float, layout: torch.memory_format
) -> None:
    """Of outputs and of input gradients; against our norm in fp64 (timm's rounds there too)."""
    row = ROWS[name]
    N, size = (2 if name == "ghost" else 16), 7
    x = (draw(N, C, size, size) + shift).float().contiguous(memory_format=layout)
    above = draw(*x.shape, seed=1).float().contiguous(memory_format=layout)

    def numbers(norm: nn.Module, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        norm = (norm if training else Warm(norm)).to(dtype)
        given = x.to(dtype).clone(memory_format=layout).requires_grad_()
        y = norm(given)
        y.backward(above.to(dtype))
        assert given.grad is not None
        return y.detach().double(), given.grad.double()

    exact = numbers(layer(name), torch.float64)
    ours = numbers(layer(name), torch.float32)
    theirs = numbers(row.nearest(C), torch.float32)
    for right, one, other in zip(exact, ours, theirs, strict=True):
        error, bound = ((part - right).abs().max().item() for part in (one, other))
        # Not below a few roundings of the result: at shift 0 the nearest norm may be lucky.
        assert error <= max(2 * bound, 8 * 2**-24 * right.abs().max().item())


@pytest.mark.parametrize("shape", [(6, C, 5, 5), FEATURES])
@pytest.mark.parametrize("name", ROWS)
def test_autocast_keeps_statistics_in_full_precision(name: str, shape: tuple[int, ...]) -> None:
    """What a convolution hands over under autocast: bf16 input, fp32 parameters."""
    if ROWS[name].needs_positions and shape is FEATURES:
        return
    half = example(shape).to(torch.bfloat16)
    norm = shuffled(layer(name))
    exact = copy.deepcopy(norm).double()
    given = half.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = norm(given)
    y.backward(draw(*shape, seed=1).to(y.dtype))
    assert y.dtype == torch.bfloat16
    expected = exact(half.double())
    largest = expected.abs().max().item()
    # bf16 has 8 bits: one or two roundings of the result, next to statistics around 100.
    torch.testing.assert_close(y.double(), expected, rtol=2**-7, atol=2**-8 * largest)
    assert given.grad is not None
    assert given.grad.dtype == torch.bfloat16
    assert given.grad.isfinite().all()
    for ours, theirs in zip(norm.buffers(), exact.buffers(), strict=True):
        if ours.is_floating_point():
            assert ours.dtype == torch.float32
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=0)
    for parameter in norm.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("name", ROWS)
def test_state_returns_bit_by_bit_counters_included(name: str) -> None:
    norm, other = shuffled(layer(name)), layer(name)
    for _ in range(3):
        norm(example(IMAGES).float())
    other.load_state_dict(norm.state_dict())
    for twin in (norm, other):
        twin(example(IMAGES).float())
    for key, value in norm.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)
    x = example(IMAGES).float()
    assert torch.equal(norm.eval()(x), other.eval()(x))


@pytest.mark.parametrize("name", ROWS)
def test_a_single_value_is_refused(name: str) -> None:
    norm = layer(name, 1)
    x = torch.full((1, 1, 1, 1), 3.0)
    with pytest.raises(ValueError, match=f"^{ROWS[name].alone}$"):
        norm(x)


@pytest.mark.parametrize("name", [kind for kind, row in ROWS.items() if row.needs_positions])
@pytest.mark.parametrize("shape", [(5, C), (5, C, 1, 1)])
def test_one_position_per_channel_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one value per statistic"):
        layer(name)(torch.zeros(shape))


@pytest.mark.parametrize("name", [kind for kind, row in ROWS.items() if not row.needs_positions])
@pytest.mark.parametrize("shape", [(6, C, 1, 1), (6, C)])
def test_one_position_is_enough_for_the_others(name: str, shape: tuple[int, ...]) -> None:
    norm = shuffled(layer(name))
    x = example(shape).float()
    y = norm(x)
    assert y.isfinite().all()
    assert torch.equal(y.flatten(), shuffled(layer(name))(x.view(6, C)).flatten())


@pytest.mark.parametrize("name", [kind for kind in OF_IMAGE if kind not in ("group", "layer")])
def test_other_ranks_and_other_channels_are_refused(name: str) -> None:
    norm = layer(name)
    with pytest.raises(ValueError, match=r"expected \(N, C\) or \(N, C, H, W\), not \(2, 4, 3\)"):
        norm(torch.zeros(2, C, 3))
    with pytest.raises(ValueError, match=r"expected 4 channels, not 5: \(2, 5, 3, 3\)"):
        norm(torch.zeros(2, 5, 3, 3))


@pytest.mark.parametrize("name", [kind for kind in ROWS if "affine" in KINDS[kind].model_fields])
def test_without_affine_only_a_threshold_is_learned(name: str) -> None:
    layers = [layer(name, affine=affine) for affine in (True, False)]
    assert {key for key, _ in layers[0].named_parameters()} >= {"weight"}
    assert {key for key, _ in layers[1].named_parameters()} <= {"threshold"}
    x = example(IMAGES).float()
    results = []
    for made in layers:
        torch.default_generator.manual_seed(0)  # one of them draws noise
        given = x.clone().requires_grad_()
        y = made(given)
        y.backward(draw(*IMAGES, seed=1).float())
        results.append((y, given.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OF_BATCH)
def test_other_images_matter_in_training(name: str) -> None:
    norm = layer(name)
    x = example(IMAGES).float()
    other = x.clone()
    other[1] += 1.0
    assert not torch.equal(norm(x)[0], norm(other)[0])


@pytest.mark.parametrize("name", ROWS)
def test_scale_and_shift_start_at_1_and_0(name: str) -> None:
    norm = layer(name)
    assert torch.equal(norm.get_parameter("weight"), torch.ones(C))
    assert torch.equal(norm.get_parameter("bias"), torch.zeros(C))
