"""Every layer against one slow loop, told only which positions share statistics.

The loop works on single numbers, position by position: it shares neither axes nor reshapes nor
formulas with the layers. A new layer adds a row, or a file if its formula is another one; a test
fails until it has.
"""

from __future__ import annotations

import pkgutil
import re
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bnbench import norms
from bnbench.norms import batch, group

NAME = Path(__file__).name
N, C, EPS = 6, 4, 1e-3
SHAPES = [(N, C, 2, 3), (N, C)]


@dataclass(frozen=True)
class Row:
    """A layer for C channels, and the name of the set of values that (n, c) is normalized with."""

    make: Callable[[], nn.Module]
    shares: Callable[[int, int], Hashable]
    of_batch: bool


ROWS = {
    "BatchNorm": Row(
        lambda: batch.BatchNorm(C, eps=EPS),
        lambda _, c: c,
        of_batch=True,
    ),
    "GhostBatchNorm": Row(
        lambda: batch.GhostBatchNorm(C, batch_size=2, eps=EPS),
        lambda n, c: ((0, 0, 1, 1, 2, 2)[n], c),
        of_batch=True,
    ),
    "GroupNorm": Row(
        lambda: group.GroupNorm(C, groups=2, eps=EPS),
        lambda n, c: (n, "first two channels" if c in (0, 1) else "last two"),
        of_batch=False,
    ),
    "LayerNorm": Row(
        lambda: group.LayerNorm(C, eps=EPS),
        lambda n, _: n,
        of_batch=False,
    ),
}
OF_IMAGE = [name for name, row in ROWS.items() if not row.of_batch]


def slow(x: Tensor, gamma: Tensor, beta: Tensor, shares: Callable[[int, int], Hashable]) -> Tensor:
    """The formula of all four papers, one number at a time."""
    sets: defaultdict[Hashable, list[tuple[int, ...]]] = defaultdict(list)
    for place in product(*map(range, x.shape)):
        sets[shares(place[0], place[1])].append(place)
    out: dict[tuple[int, ...], Tensor] = {}
    for places in sets.values():
        values = [x[place] for place in places]
        mean = sum(values, torch.zeros((), dtype=x.dtype)) / len(values)
        squares = [(value - mean) ** 2 for value in values]
        variance = sum(squares, torch.zeros((), dtype=x.dtype)) / len(values)
        for place, value in zip(places, values, strict=True):
            c = place[1]
            out[place] = gamma[c] * (value - mean) / (variance + EPS) ** 0.5 + beta[c]
    return torch.stack([out[place] for place in product(*map(range, x.shape))]).view(x.shape)


def example(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Input shifted by 100, γ, β, and the gradient that arrives from above; fp64."""
    random = torch.Generator().manual_seed(seed)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=random, dtype=torch.float64)

    # Channels differ in scale, so that statistics taken over the wrong ones show.
    scale = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    x = draw(*shape) * scale.view(1, C, *[1] * (len(shape) - 2)) + 100
    return x, draw(C) + 1, draw(C), draw(*shape)


def in_double(row: Row, gamma: Tensor, beta: Tensor) -> nn.Module:
    layer = row.make().double()
    with torch.no_grad():
        layer.get_parameter("weight").copy_(gamma)
        layer.get_parameter("bias").copy_(beta)
    return layer


def test_every_layer_has_a_row_or_a_file_that_tests_it() -> None:
    layers = {
        name
        for found in pkgutil.iter_modules(norms.__path__, "bnbench.norms.")
        for name, layer in vars(import_module(found.name)).items()
        if isinstance(layer, type) and issubclass(layer, nn.Module) and name[0] != "_"
    }
    assert set(ROWS) <= layers
    others = [path for path in Path(__file__).parent.glob("test_*.py") if path.name != NAME]
    assert len(others) >= 3
    text = "\n".join(path.read_text(encoding="utf-8") for path in others)
    missing = {name for name in layers - set(ROWS) if not re.search(rf"\b{name}\(", text)}
    assert not missing, f"neither a row here nor a test of its own: {sorted(missing)}"


@pytest.mark.parametrize("shape", SHAPES, ids=["images", "features"])
@pytest.mark.parametrize("name", ROWS)
def test_outputs_and_all_gradients_equal_the_slow_loop(name: str, shape: tuple[int, ...]) -> None:
    x, gamma, beta, above = example(shape)
    layer = in_double(ROWS[name], gamma, beta)
    ours = x.clone().requires_grad_()
    y = layer(ours)
    y.backward(above)

    theirs = tuple(part.clone().requires_grad_() for part in (x, gamma, beta))
    expected = slow(theirs[0], theirs[1], theirs[2], ROWS[name].shares)
    torch.autograd.backward(expected, above)

    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    found = (ours.grad, layer.get_parameter("weight").grad, layer.get_parameter("bias").grad)
    for part, twin in zip(found, theirs, strict=True):
        torch.testing.assert_close(part, twin.grad, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ROWS)
def test_the_slow_loop_tells_the_layers_apart(name: str) -> None:
    x, gamma, beta, _ = example(SHAPES[0])
    y = in_double(ROWS[name], gamma, beta)(x)
    fits = [
        other for other, row in ROWS.items() if torch.allclose(y, slow(x, gamma, beta, row.shares))
    ]
    assert fits == [name]


@pytest.mark.parametrize("shape", SHAPES, ids=["images", "features"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ROWS)
def test_gradients_are_those_of_the_function(
    name: str, training: bool, shape: tuple[int, ...]
) -> None:
    x, gamma, beta, _ = example(shape)
    layer = in_double(ROWS[name], gamma, beta).train(training)
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")

    def function(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(layer, {"weight": gamma, "bias": beta}, (x,))
        return found

    inputs = tuple(part.detach().clone().requires_grad_() for part in (x, weight, bias))
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ROWS)
def test_channels_last_stays_channels_last_and_changes_no_number(name: str, training: bool) -> None:
    x, gamma, beta, above = example(SHAPES[0])
    numbers = []
    for memory_format in (torch.channels_last, torch.contiguous_format):
        layer = in_double(ROWS[name], gamma, beta).train(training)
        given = x.clone(memory_format=memory_format).requires_grad_()
        y = layer(given)
        if memory_format is torch.channels_last:
            assert y.is_contiguous(memory_format=torch.channels_last)
            assert not y.is_contiguous()  # else the line above says nothing
        y.backward(above)
        numbers.append((y, given.grad, *layer.buffers()))
    for one, other in zip(*numbers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=["images", "features"])
@pytest.mark.parametrize("name", ROWS)
def test_half_precision_input_keeps_statistics_in_full_precision(
    name: str, shape: tuple[int, ...]
) -> None:
    """What a convolution hands over under autocast: bf16 input, fp32 parameters."""
    x, gamma, beta, above = example(shape)
    half = x.to(torch.bfloat16)
    layer = in_double(ROWS[name], gamma, beta).float()
    given = half.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(given)
    y.backward(above.to(y.dtype))

    expected = slow(half.double(), gamma, beta, ROWS[name].shares)
    # bf16 has 8 bits: one rounding of the result. Statistics in bf16 would be off by 0.5 already
    # in the mean of values around 100.
    torch.testing.assert_close(y.double(), expected, rtol=2**-8, atol=2**-7)
    assert given.grad is not None
    assert given.grad.isfinite().all()
    twin = in_double(ROWS[name], gamma, beta)
    twin(half.double())
    for ours, theirs in zip(layer.buffers(), twin.buffers(), strict=True):
        if ours.is_floating_point():
            assert ours.dtype == torch.float32
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", OF_IMAGE)
def test_an_image_normalized_by_itself_knows_no_companions(name: str, training: bool) -> None:
    x, gamma, beta, _ = example(SHAPES[0])
    layer = in_double(ROWS[name], gamma, beta).float().train(training)
    x = x.float().contiguous(memory_format=torch.channels_last)
    together = layer(x)
    for n in range(N):
        assert torch.equal(layer(x[n : n + 1]), together[n : n + 1])


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.of_batch])
def test_companions_matter_in_training_and_not_in_inference(name: str) -> None:
    x, gamma, beta, _ = example(SHAPES[0])
    layer = in_double(ROWS[name], gamma, beta).float()
    x = x.float()
    other = x.clone()
    other[1] += 1.0
    assert not torch.equal(layer(x)[0], layer(other)[0])
    layer.eval()
    kept = [buffer.clone() for buffer in layer.buffers()]
    together = layer(x)
    for n in range(N):
        assert torch.equal(layer(x[n : n + 1]), together[n : n + 1])
    for before, after in zip(kept, layer.buffers(), strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("name", ROWS)
def test_without_affine_there_are_no_parameters_and_no_scale(name: str) -> None:
    makes: dict[str, Callable[[], nn.Module]] = {
        "BatchNorm": lambda: batch.BatchNorm(C, eps=EPS, affine=False),
        "GhostBatchNorm": lambda: batch.GhostBatchNorm(C, batch_size=2, eps=EPS, affine=False),
        "GroupNorm": lambda: group.GroupNorm(C, groups=2, eps=EPS, affine=False),
        "LayerNorm": lambda: group.LayerNorm(C, eps=EPS, affine=False),
    }
    x, *_ = example(SHAPES[0])
    layer = makes[name]().double()
    assert not list(layer.parameters())
    ones, zeros = torch.ones(C, dtype=torch.float64), torch.zeros(C, dtype=torch.float64)
    torch.testing.assert_close(layer(x), slow(x, ones, zeros, ROWS[name].shares))


@pytest.mark.parametrize("name", ROWS)
def test_affine_starts_as_the_identity(name: str) -> None:
    layer = ROWS[name].make()
    assert torch.equal(layer.get_parameter("weight"), torch.ones(C))
    assert torch.equal(layer.get_parameter("bias"), torch.zeros(C))
