"""Layers of the form (x − mean) / √(variance + ε) against one slow loop.

The loop is told only which values share statistics. It works on single numbers, position by
position: it shares neither axes nor reshapes nor formulas with the layers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from tests.norms.rows import ROWS, C, draw, example, layer

EPS = 1e-3
SHAPES = [(6, C, 2, 3), (6, C)]
SHARES = {kind: row.shares for kind, row in ROWS.items() if row.shares is not None}


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


def parameters() -> tuple[Tensor, Tensor]:
    """γ and β."""
    return draw(C, seed=1) + 1, draw(C, seed=2)


def in_double(name: str) -> nn.Module:
    norm = layer(name, eps=EPS).double()
    with torch.no_grad():
        for key, values in zip(("weight", "bias"), parameters(), strict=True):
            norm.get_parameter(key).copy_(values)
    return norm


@pytest.mark.parametrize("shape", SHAPES, ids=["images", "features"])
@pytest.mark.parametrize("name", SHARES)
def test_outputs_and_all_gradients_equal_the_slow_loop(name: str, shape: tuple[int, ...]) -> None:
    if ROWS[name].needs_positions and len(shape) == 2:
        return
    x, above = example(shape), draw(*shape, seed=3)
    norm = in_double(name)
    given = x.clone().requires_grad_()
    y = norm(given)
    y.backward(above)

    theirs = [part.clone().requires_grad_() for part in (x, *parameters())]
    expected = slow(theirs[0], theirs[1], theirs[2], SHARES[name])
    torch.autograd.backward(expected, above)

    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    found = (given.grad, norm.get_parameter("weight").grad, norm.get_parameter("bias").grad)
    for part, twin in zip(found, theirs, strict=True):
        torch.testing.assert_close(part, twin.grad, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", SHARES)
def test_the_slow_loop_tells_the_layers_apart(name: str) -> None:
    x = example(SHAPES[0])
    y = in_double(name)(x)
    fits = [
        kind for kind, shares in SHARES.items() if torch.allclose(y, slow(x, *parameters(), shares))
    ]
    assert fits == [name]
