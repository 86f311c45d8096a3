"""InstanceNorm, RMSNorm, FilterResponseNorm, EvoNormS0 against loops, torch and timm, in fp64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from timm.layers.evo_norm import EvoNorm2dS0
from timm.layers.filter_response_norm import FilterResponseNormTlu2d
from torch import Tensor, nn
from torch.nn import functional as F

from bnbench.norms.activated import EvoNormS0, FilterResponseNorm
from bnbench.norms.group import InstanceNorm, RMSNorm

N, C, EPS = 3, 4, 1e-3


def draw(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum() / len(values)


def instance(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    out = torch.empty_like(x)
    for n in range(N):
        for c in range(C):
            values = list(x[n, c].flatten())
            mu = mean(values)
            variance = mean([(value - mu) ** 2 for value in values])
            out[n, c] = gamma[c] * (x[n, c] - mu) / (variance + EPS) ** 0.5 + beta[c]
    return out


def rms(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    out = torch.empty_like(x)
    for n in range(N):
        size = (mean([value**2 for value in x[n].flatten()]) + EPS) ** 0.5
        for c in range(C):
            out[n, c] = gamma[c] * x[n, c] / size + beta[c]
    return out


def frn(x: Tensor, gamma: Tensor, beta: Tensor, tau: Tensor) -> Tensor:
    out = torch.empty_like(x)
    for n in range(N):
        for c in range(C):
            square = mean([value**2 for value in x[n, c].flatten()])
            y = gamma[c] * x[n, c] / (square + EPS) ** 0.5 + beta[c]
            out[n, c] = torch.where(y > tau[c], y, tau[c])
    return out


def evonorm(x: Tensor, gamma: Tensor, beta: Tensor, v: Tensor) -> Tensor:
    out = torch.empty_like(x)
    for n in range(N):
        for first in (0, 2):  # two groups of two channels
            values = [*x[n, first].flatten(), *x[n, first + 1].flatten()]
            mu = mean(values)
            deviation = (mean([(value - mu) ** 2 for value in values]) + EPS) ** 0.5
            for c in (first, first + 1):
                gated = x[n, c] / (1 + torch.exp(-v[c] * x[n, c]))
                out[n, c] = gamma[c] * gated / deviation + beta[c]
    return out


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[..., Tensor]]] = {
    "instance": (lambda: InstanceNorm(C, eps=EPS), instance),
    "rms": (lambda: RMSNorm(C, eps=EPS), rms),
    "frn": (lambda: FilterResponseNorm(C, eps=EPS), frn),
    "evonorm-s0": (lambda: EvoNormS0(C, groups=2, eps=EPS), evonorm),
}


@pytest.mark.parametrize("shape", [(N, C, 2, 3), (N, C)])
@pytest.mark.parametrize("shift", [0.0, 100.0])
@pytest.mark.parametrize("name", CASES)
def test_equals_a_loop_over_the_formula(name: str, shift: float, shape: tuple[int, ...]) -> None:
    if shape == (N, C) and name in ("instance", "frn"):
        return
    make, formula = CASES[name]
    layer = make().double()
    scale = torch.tensor([0.5, 1.0, 2.0, 4.0]).view(1, C, *[1] * (len(shape) - 2))
    x, above = draw(*shape) * scale + shift, draw(*shape, seed=1)
    with torch.no_grad():
        for seed, parameter in enumerate(layer.parameters(), start=2):
            parameter.copy_(draw(C, seed=seed) + 0.5)
        if name == "frn" and shift:
            x[:, 0] -= 200  # y is then below −1 in this channel and above 0 in others
            layer.get_parameter("threshold").fill_(-0.3)
    theirs = [part.detach().clone().requires_grad_() for part in (x, *layer.parameters())]
    expected = formula(*theirs)
    torch.autograd.backward(expected, above)
    given = x.clone().requires_grad_()
    y = layer(given)
    y.backward(above)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    for part, twin in zip((given, *layer.parameters()), theirs, strict=True):
        torch.testing.assert_close(part.grad, twin.grad, rtol=1e-8, atol=1e-9)


def both(
    ours: nn.Module, theirs: nn.Module, names: dict[str, str], x: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Output and gradients of two layers; `names`: our parameter → theirs."""
    with torch.no_grad():
        for seed, (name, twin) in enumerate(names.items(), start=5):
            ours.get_parameter(name).copy_(draw(x.shape[1], seed=seed) + 0.5)
            theirs.get_parameter(twin).copy_(ours.get_parameter(name))
    found: list[list[Tensor]] = []
    for layer, parameters in ((ours, names.keys()), (theirs, names.values())):
        given = x.clone().requires_grad_()
        y = layer(given)
        y.backward(draw(*x.shape, seed=1))
        assert given.grad is not None
        gradients = [layer.get_parameter(name).grad for name in parameters]
        found.append([y, given.grad, *(part for part in gradients if part is not None)])
    assert len(found[0]) == len(found[1]) == len(names) + 2
    return found[0], found[1]


@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_instance_norm_is_torchs(shift: float) -> None:
    names = {"weight": "weight", "bias": "bias"}
    x = draw(3, 5, 4, 4) + shift
    twin = nn.InstanceNorm2d(5, affine=True).double()
    for one, other in zip(*both(InstanceNorm(5).double(), twin, names, x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


def test_rms_norm_is_torchs_over_whole_images() -> None:
    x = draw(3, 5, 4, 4) + 100
    expected = F.rms_norm(x, (5, 4, 4), eps=1e-5)
    torch.testing.assert_close(RMSNorm(5).double()(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_frn_is_timms(shift: float) -> None:
    """timm's ε is 1e-5 unless told; it takes means in fp32 in all but fp64."""
    names = {"weight": "weight", "bias": "bias", "threshold": "tau"}
    x = draw(3, 5, 4, 4) + shift
    # timm rounds x² to fp32 even in fp64: hence 1e-6 and not 1e-10.
    twin = FilterResponseNormTlu2d(5, eps=1e-6).double()
    for one, other in zip(*both(FilterResponseNorm(5).double(), twin, names, x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_evonorm_s0_is_timms(shift: float) -> None:
    """timm's variance is biased too, and rounded to fp32 even in fp64."""
    names = {"weight": "weight", "bias": "bias", "gate": "v"}
    x = draw(3, 6, 4, 4) + shift
    twin = EvoNorm2dS0(6, groups=2, eps=1e-5).double()
    for one, other in zip(*both(EvoNormS0(6, groups=2).double(), twin, names, x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_frn_by_hand() -> None:
    """x = (3, 4) in one channel: mean square 12.5. In another −x, cut off at τ."""
    layer = FilterResponseNorm(2, eps=0.0)
    x = torch.tensor([[[[3.0, 4.0]], [[-3.0, -4.0]]]])
    root = 12.5**0.5
    assert layer(x).flatten().tolist() == pytest.approx([3 / root, 4 / root, 0, 0])
    with torch.no_grad():
        layer.threshold.fill_(-1.0)
    expected = [3 / root, 4 / root, -3 / root, -1.0]
    assert layer(x).flatten().tolist() == pytest.approx(expected)


def test_frn_gives_the_gradient_at_a_tie_to_the_threshold() -> None:
    layer = FilterResponseNorm(1)
    x = torch.zeros(1, 1, 2, 2, requires_grad=True)  # y = β = 0 = τ
    layer(x).sum().backward()
    assert x.grad is not None
    assert layer.bias is not None
    assert x.grad.abs().max().item() == 0
    assert layer.threshold.grad is not None
    assert layer.threshold.grad.item() == 4
    assert layer.bias.grad is not None
    assert layer.bias.grad.item() == 0


@pytest.mark.parametrize("threshold", [0.7, 0.71])  # 0.69921875 and 0.7109375 in bf16
def test_frn_knows_what_it_cut_off_where_bf16_rounds_the_threshold(threshold: float) -> None:
    layer = FilterResponseNorm(1)
    nn.init.constant_(layer.threshold, threshold)
    x = torch.full((1, 1, 2, 2), -1.0, dtype=torch.bfloat16)
    layer(x).sum().backward()
    assert layer.threshold.grad is not None
    assert layer.threshold.grad.item() == 4


def test_evonorm_starts_as_a_scaled_swish_and_refuses_other_groups() -> None:
    x = draw(3, 4, 5, 5).float()
    deviation = (x.view(3, 2, -1).var(2, correction=0) + 1e-5).sqrt()
    expected = F.silu(x) / deviation.repeat_interleave(2, 1).view(3, 4, 1, 1)
    torch.testing.assert_close(EvoNormS0(4, groups=2)(x), expected)
    with pytest.raises(ValueError, match=r"^10 channels do not split into 4 groups$"):
        EvoNormS0(10, groups=4)
    with pytest.raises(ValueError, match="one value per statistic"):
        EvoNormS0(4, groups=4)(torch.zeros(3, 4))


def test_rms_norm_keeps_what_layer_norm_takes_away() -> None:
    """A constant image: its root mean square is its size, its variance 0."""
    x = torch.full((2, 3, 2, 2), 7.0)
    torch.testing.assert_close(RMSNorm(3)(x), torch.ones_like(x))


@pytest.mark.parametrize("name", CASES)
def test_second_derivatives_are_refused_rather_than_wrong(name: str) -> None:
    x = draw(N, C, 2, 3).float().requires_grad_()
    layer = CASES[name][0]()
    (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.backward(first.sum())
