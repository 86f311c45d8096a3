"""BatchRenorm against a loop over the paper's algorithm, BatchNorm, and ramps by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bnbench.norms.batch import BatchNorm
from bnbench.norms.renorm import BatchRenorm

C, EPS = 3, 1e-3


def draw(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def algorithm(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    running: list[tuple[float, float]],
    limits: tuple[float, float],
    rate: float,
) -> Tensor:
    """The paper's Algorithm 1, channel by channel; moves the (μ, σ) of `running`.

    r and d are Python's numbers: no gradient can flow through them.
    """
    out = torch.empty_like(x)
    r_max, d_max = limits
    for c in range(C):
        values = list(x[:, c].flatten())
        mean = torch.stack(values).sum() / len(values)
        squares = torch.stack([(value - mean) ** 2 for value in values])
        deviation = (squares.sum() / len(values) + EPS) ** 0.5
        mu, sigma = running[c]
        r = clip(deviation.item() / sigma, 1 / r_max, r_max)
        d = clip((mean.item() - mu) / sigma, -d_max, d_max)
        out[:, c] = gamma[c] * ((x[:, c] - mean) / deviation * r + d) + beta[c]
        running[c] = (
            mu + rate * (mean.item() - mu),
            sigma + rate * (deviation.item() - sigma),
        )
    return out


@pytest.mark.parametrize("shape", [(4, C, 2, 2), (4, C)])
@pytest.mark.parametrize("shift", [0.0, 100.0])
@pytest.mark.parametrize("momentum", [0.3, None])
def test_equals_the_papers_algorithm_over_steps(
    shape: tuple[int, ...], shift: float, momentum: float | None
) -> None:
    layer = BatchRenorm(
        C, r_max=1.5, d_max=2.0, r_ramp=(0, 2), d_ramp=(1, 5), momentum=momentum, eps=EPS
    ).double()
    layer.reset_running_stats()  # 1 − ε, rounded to fp32 so far
    with torch.no_grad():
        layer.weight.copy_(draw(C, seed=8) + 1)
        layer.bias.copy_(draw(C, seed=9))
    # r_max 1, 1.25, 1.5, 1.5, …; d_max 0, 0, 0.5, 1, 1.5, 2, …
    limits = [(1.0, 0.0), (1.25, 0.0), (1.5, 0.5), (1.5, 1.0), (1.5, 1.5), (1.5, 2.0), (1.5, 2.0)]
    running = [(0.0, 1.0)] * C
    for step, limit in enumerate(limits):
        assert layer.limits() == pytest.approx(limit)
        x = draw(*shape, seed=step) * (1 + step / 2) + shift
        above = draw(*shape, seed=50 + step)
        theirs = [part.detach().clone().requires_grad_() for part in (x, layer.weight, layer.bias)]
        rate = 1 / (step + 1) if momentum is None else momentum
        expected = algorithm(theirs[0], theirs[1], theirs[2], running, limit, rate)
        torch.autograd.backward(expected, above)
        given = x.clone().requires_grad_()
        layer.zero_grad()
        y = layer(given)
        y.backward(above)
        torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
        for part, twin in zip((given, layer.weight, layer.bias), theirs, strict=True):
            torch.testing.assert_close(part.grad, twin.grad, rtol=1e-8, atol=1e-9)
        means = [mu for mu, _ in running]
        variances = [sigma**2 - EPS for _, sigma in running]
        assert layer.get_buffer("running_mean").tolist() == pytest.approx(means, rel=1e-10)
        assert layer.get_buffer("running_var").tolist() == pytest.approx(variances, rel=1e-9)
        assert layer.get_buffer("num_batches_tracked").item() == step + 1
    x = draw(*shape, seed=70) + shift
    y = layer.eval()(x)
    for c, (mu, sigma) in enumerate(running):
        expected = layer.weight[c] * (x[:, c] - mu) / sigma + layer.bias[c]
        torch.testing.assert_close(y[:, c], expected, rtol=1e-9, atol=1e-9)


def test_without_correction_it_is_batch_norm_but_for_its_averages() -> None:
    layers: list[nn.Module] = [
        BatchRenorm(C, r_max=1.0, d_max=0.0, r_ramp=(0, 0), d_ramp=(0, 0)),
        BatchRenorm(C, r_ramp=(5, 9), d_ramp=(5, 9)),  # before its ramps
        BatchNorm(C, momentum=0.01),
    ]
    results = []
    for layer in layers:
        layer.double()
        for step in range(3):
            given = (draw(6, C, 2, 2, seed=step) * 3 + 100).requires_grad_()
            y = layer(given)
            layer.zero_grad()
            y.backward(draw(6, C, 2, 2, seed=1))
        gradients = [parameter.grad for parameter in layer.parameters()]
        results.append((y, given.grad, *gradients, layer.get_buffer("running_mean")))
    for other in results[:2]:
        for one, twin in zip(other, results[2], strict=True):
            torch.testing.assert_close(one, twin, rtol=1e-10, atol=1e-10)
    # The mean of deviations, not the deviation of a mean variance.
    assert not torch.allclose(
        layers[0].get_buffer("running_var"), layers[2].get_buffer("running_var")
    )


def test_deviations_are_averaged_and_kept_as_a_variance() -> None:
    """(−1, 1) then (−3, 3): σ = 1, then 3. Averaged with rate ½ from 1: 1, then 2."""
    layer = BatchRenorm(1, momentum=0.5, eps=1e-5).double()
    layer.reset_running_stats()
    start = layer.get_buffer("running_var").item()
    assert start + 1e-5 == pytest.approx(1.0, rel=1e-12)
    for size, deviation in ((1.0, 1.0), (3.0, 2.0)):
        layer(torch.tensor([[-size], [size]], dtype=torch.float64))
        kept = layer.get_buffer("running_var").item()
        assert (kept + 1e-5) ** 0.5 == pytest.approx(deviation, rel=1e-5)
    y = layer.eval()(torch.tensor([[6.0]], dtype=torch.float64))
    assert y.item() == pytest.approx(3.0, rel=1e-5)


def test_once_statistics_agree_training_and_inference_agree() -> None:
    """The point of the method: with open limits the output is inference's, whatever the batch."""
    ramps = {"r_ramp": (0, 0), "d_ramp": (0, 0)}
    layer = BatchRenorm(C, r_max=1e6, d_max=1e6, r_ramp=ramps["r_ramp"], d_ramp=ramps["d_ramp"])
    layer.double()
    for step in range(5):
        layer(draw(8, C, 2, 2, seed=step) * 2 + 3)
    x = draw(8, C, 2, 2, seed=9) + 1
    expected = layer.eval()(x)
    torch.testing.assert_close(layer.train()(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("step", "r", "d"),
    [
        (0, 1.0, 0.0),
        (5_000, 1.0, 0.0),
        (15_000, 1.0 + 2 * 10 / 35, 2.5),
        (25_000, 1.0 + 2 * 20 / 35, 5.0),
        (40_000, 3.0, 5.0),
        (90_000, 3.0, 5.0),
    ],
)
def test_the_limits_of_the_paper_at_steps_calculated_by_hand(step: int, r: float, d: float) -> None:
    layer = BatchRenorm(C)
    layer.get_buffer("num_batches_tracked").fill_(step)
    assert layer.limits() == pytest.approx((r, d))


def test_limits_and_ramps_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"r_max must be 1 or more and d_max 0 or more, not 0.5"):
        BatchRenorm(C, r_max=0.5)
    with pytest.raises(ValueError, match=r"not 3.0, -1"):
        BatchRenorm(C, d_max=-1.0)
    with pytest.raises(ValueError, match=r"d_ramp must rise from a step ≥ 0, not from 7 to 3"):
        BatchRenorm(C, d_ramp=(7, 3))
    with pytest.raises(ValueError, match=r"r_ramp must rise from a step ≥ 0, not from -1 to 3"):
        BatchRenorm(C, r_ramp=(-1, 3))
