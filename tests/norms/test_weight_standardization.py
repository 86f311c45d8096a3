"""Standardized convolutions and linear layers against loops, timm and quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import integrate, special
from timm.layers.std_conv import ScaledStdConv2d, StdConv2d
from torch import Tensor, nn
from torch.nn import functional as F

from bnbench.norms.weight import (
    ACTIVATION_GAINS,
    ScaledStandardizedConv2d,
    ScaledStandardizedLinear,
    StandardizedConv2d,
    StandardizedLinear,
)

EPS = 1e-3
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: StandardizedConv2d(4, 6, 3, padding=1, eps=EPS),
    "grouped conv": lambda: StandardizedConv2d(4, 6, 3, stride=2, groups=2, eps=EPS),
    "linear": lambda: StandardizedLinear(4, 6, eps=EPS),
    "scaled conv": lambda: ScaledStandardizedConv2d(4, 6, 3, bias=False, eps=EPS),
    "scaled linear": lambda: ScaledStandardizedLinear(4, 6, activation_gain=1.3, eps=EPS),
}


def draw(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def filters(weight: Tensor, scales: list[Tensor]) -> Tensor:
    """Each filter by itself, number by number."""
    done = []
    for filter_, scale in zip(weight, scales, strict=True):
        values = list(filter_.flatten())
        mean = torch.stack(values).sum() / len(values)
        variance = torch.stack([(value - mean) ** 2 for value in values]).sum() / len(values)
        done.append(scale * (filter_ - mean) / (variance + EPS) ** 0.5)
    return torch.stack(done)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", LAYERS)
def test_equals_a_loop_over_the_formula(name: str, layout: torch.memory_format) -> None:
    layer = LAYERS[name]().double()
    with torch.no_grad():
        for seed, (key, parameter) in enumerate(layer.named_parameters(), start=2):
            parameter.copy_(draw(*parameter.shape, seed=seed) + (100 if key == "weight" else 1))
    if isinstance(layer, nn.Conv2d):
        layer = layer.to(memory_format=layout)
    shape = (3, 4, 5, 5) if isinstance(layer, nn.Conv2d) else (3, 4)
    x = draw(*shape)
    parts = [x, *layer.parameters()]
    twins = [part.detach().clone().requires_grad_() for part in parts]
    named = dict(zip(("x", *(key for key, _ in layer.named_parameters())), twins, strict=True))
    weight, bias = named["weight"], named.get("bias")
    fan_in = weight[0].numel()
    scales = [torch.ones((), dtype=torch.float64)] * 6
    if "gain" in named:
        c = 1.3 if name == "scaled linear" else (2 / (1 - 1 / math.pi)) ** 0.5
        scales = [gain * c / fan_in**0.5 for gain in named["gain"]]
    used = filters(weight, scales)
    if isinstance(layer, nn.Conv2d):
        expected = F.conv2d(
            named["x"], used, bias, layer.stride, layer.padding, groups=layer.groups
        )
    else:
        expected = F.linear(named["x"], used, bias)
    given = x.clone().requires_grad_()
    y = layer(given)
    above = draw(*y.shape, seed=1)
    torch.autograd.backward([y, expected], [above, above])
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    for part, twin in zip((given, *layer.parameters()), twins, strict=True):
        torch.testing.assert_close(part.grad, twin.grad, rtol=1e-7, atol=1e-8)
    found = layer.normalized_weight()  # type: ignore[operator]
    if layout is torch.channels_last and isinstance(layer, nn.Conv2d):
        assert layer.weight.is_contiguous(memory_format=torch.channels_last)
        assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_of_the_function(name: str) -> None:
    layer = LAYERS[name]().double()
    names = [key for key, _ in layer.named_parameters()]

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        state = dict(zip(names, parameters, strict=True))
        found: Tensor = torch.func.functional_call(layer, state, (x,))
        return found

    x = draw(2, 4, 4, 4) if isinstance(layer, nn.Conv2d) else draw(2, 4)
    leaves = [part.detach().clone().requires_grad_() for part in (x, *layer.parameters())]
    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("scaled", [False, True])
def test_convolutions_are_timms(scaled: bool) -> None:
    """timm's `gamma` is our activation_gain; its gain is (C_out, 1, 1, 1); its ε is 1e-6."""
    ours: nn.Module
    theirs: nn.Module
    if scaled:
        ours = ScaledStandardizedConv2d(4, 6, 3, padding=1, activation_gain=1.7)
        theirs = ScaledStdConv2d(4, 6, 3, padding=1, gamma=1.7)
    else:
        ours = StandardizedConv2d(4, 6, 3, padding=1)
        theirs = StdConv2d(4, 6, 3, padding=1, bias=True)
    ours, theirs = ours.double(), theirs.double()
    with torch.no_grad():
        for seed, (key, parameter) in enumerate(ours.named_parameters()):
            parameter.copy_(draw(*parameter.shape, seed=seed) / 5 + 1)
            other = theirs.get_parameter(key)
            other.copy_(parameter.view_as(other))
    x = draw(2, 4, 5, 5)
    y, expected = ours(x), theirs(x)
    torch.autograd.backward([y, expected], [draw(*y.shape, seed=1)] * 2)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    for key, parameter in ours.named_parameters():
        other = theirs.get_parameter(key)
        assert other.grad is not None
        torch.testing.assert_close(
            parameter.grad, other.grad.view_as(parameter), rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("name", LAYERS)
def test_rounding_error_at_weights_around_100_is_that_of_a_sum(name: str) -> None:
    """Of n terms, in any order: n·2⁻²⁴·|mean| in the mean. E[w²] − μ² is further off."""
    layer = LAYERS[name]()
    with torch.no_grad():
        layer.get_parameter("weight").add_(100)
    weight = layer.get_parameter("weight").detach()
    filters = weight.double().flatten(1)
    exact = F.layer_norm(filters, filters.shape[1:], eps=EPS)
    found = layer.normalized_weight().detach().flatten(1)  # type: ignore[operator]
    found = found / found.std() * exact.std()
    std = (filters.var(1, unbiased=False) + EPS).sqrt()
    bound = filters.shape[1] * 2**-24 * filters.mean(1) / std
    assert ((found - exact).abs().amax(1) <= bound).all()
    filters = weight.flatten(1)
    mean = filters.mean(1, keepdim=True)
    naive = (filters - mean) / (filters.square().mean(1, keepdim=True) - mean**2 + EPS).sqrt()
    assert not ((naive - exact).abs().amax(1) <= bound).all()


@pytest.mark.parametrize("name", LAYERS)
def test_autocast_standardizes_in_full_precision(name: str) -> None:
    layer = LAYERS[name]()
    with torch.no_grad():
        layer.get_parameter("weight").add_(100)
    x = draw(3, 4, 5, 5).float() if isinstance(layer, nn.Conv2d) else draw(3, 4).float()
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    # Weights rounded to bf16 before would all be 100 or 100.5.
    largest = expected.abs().max().item()
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.02 * largest)
    y.sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_a_filter_of_one_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="after 1 channel a filter has one weight"):
        StandardizedConv2d(4, 4, 1, groups=4)
    with pytest.raises(ValueError, match="after 1 channel a filter has one weight"):
        ScaledStandardizedLinear(1, 3)


def test_gain_is_one_number_a_channel_and_starts_at_one() -> None:
    """One axis: optim.parameter_groups spares such parameters from weight decay."""
    for layer in (ScaledStandardizedConv2d(4, 6, 3), ScaledStandardizedLinear(4, 6)):
        assert torch.equal(layer.gain, torch.ones(6))
        assert set(dict(layer.named_parameters())) == {"weight", "bias", "gain"}


def test_a_scaled_layer_keeps_the_variance_of_activations() -> None:
    """z ~ Normal(0, 1), y = Ŵ·relu(z): variance 1, which is what the constants are for."""
    layer = ScaledStandardizedLinear(256, 512, bias=False)
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    y = layer(F.relu(draw(2000, 256)).float())
    assert y.detach().var().item() == pytest.approx(1.0, rel=0.02)


def sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(special.expit(z))


def selu(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Klambauer et al. 2017, https://arxiv.org/abs/1706.02515, Eq. 14."""
    scale, alpha = 1.0507009873554804934, 1.6732632423543772848
    return scale * np.where(z > 0, z, alpha * np.expm1(z))


ACTIVATIONS: dict[str, tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], nn.Module]] = {
    "relu": (lambda z: np.maximum(z, 0), nn.ReLU()),
    "leaky-relu": (lambda z: np.where(z > 0, z, 0.01 * z), nn.LeakyReLU()),
    "gelu": (lambda z: z * special.ndtr(z), nn.GELU()),
    "silu": (lambda z: z * sigmoid(z), nn.SiLU()),
    "tanh": (np.tanh, nn.Tanh()),
    "sigmoid": (sigmoid, nn.Sigmoid()),
    "selu": (selu, nn.SELU()),
}


@pytest.mark.parametrize("name", ACTIVATION_GAINS)
def test_gains_by_quadrature(name: str) -> None:
    activation, layer = ACTIVATIONS[name]
    z = np.linspace(-3, 3, 7)
    np.testing.assert_allclose(activation(z), layer(torch.from_numpy(z)).numpy(), rtol=1e-12)

    def moment(power: int) -> float:
        def integrand(z: float) -> float:
            density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
            return float(activation(np.asarray(z)) ** power) * density

        parts = [
            integrate.quad(integrand, low, high, epsabs=1e-14, epsrel=1e-13)[0]
            for low, high in ((-12, 0), (0, 12))
        ]
        return float(sum(parts))

    gain = 1 / math.sqrt(moment(2) - moment(1) ** 2)
    assert ACTIVATION_GAINS[name] == pytest.approx(gain, rel=1e-12)
    assert len(ACTIVATION_GAINS) == 7
