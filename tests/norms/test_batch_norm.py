"""BatchNorm against torch's own layers, and its running statistics by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bnbench.norms.batch import BatchNorm, GhostBatchNorm


def draw(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch_or_ghost_norm(ghost: int | None, momentum: float | None = 0.1) -> BatchNorm:
    if ghost is None:
        return BatchNorm(1, momentum=momentum)
    return GhostBatchNorm(1, batch_size=ghost, momentum=momentum)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@pytest.mark.parametrize(
    ("shape", "theirs"), [((5, 3, 2, 4), nn.BatchNorm2d), ((5, 3), nn.BatchNorm1d)]
)
def test_equals_torch_in_outputs_gradients_and_buffers_over_steps(
    shape: tuple[int, ...],
    theirs: Callable[..., nn.Module],
    momentum: float | None,
    affine: bool,
) -> None:
    ours = BatchNorm(3, momentum=momentum, eps=1e-4, affine=affine).double()
    twin = theirs(3, momentum=momentum, eps=1e-4, affine=affine).double()
    if affine:
        for layer in (ours, twin):
            nn.init.normal_(layer.get_parameter("weight"), generator=torch.Generator())
            nn.init.normal_(layer.get_parameter("bias"), generator=torch.Generator())
    for step in range(3):
        x = draw(*shape, seed=step) * (step + 1) + 100
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        outputs = [layer(given) for layer, given in zip((ours, twin), inputs, strict=True)]
        for y in outputs:
            y.backward(draw(*shape, seed=9))
        torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-10, atol=1e-10)
    found, expected = ours.state_dict(), twin.state_dict()
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-12, atol=0)
    for parameter, other in zip(ours.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-10, atol=1e-10)
    x = draw(*shape, seed=7) + 100
    torch.testing.assert_close(ours.eval()(x), twin.eval()(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 4), (3,), (2, 3, 1, 1, 1)])
def test_other_ranks_are_refused(shape: tuple[int, ...]) -> None:
    layers = BatchNorm(3), GhostBatchNorm(3, batch_size=1), GhostBatchNorm(3, batch_size=1).eval()
    for layer in layers:
        with pytest.raises(ValueError, match=r"expected \(N, C\) or \(N, C, H, W\), not \("):
            layer(torch.zeros(shape))


def test_the_running_variance_is_the_unbiased_one() -> None:
    """Values 1 and 3: mean 2, biased variance 1, unbiased 1·2/(2 − 1) = 2."""
    layer = BatchNorm(1, momentum=0.1)
    y = layer(torch.tensor([[1.0], [3.0]]))
    assert layer.running_mean is not None
    assert layer.running_var is not None
    assert layer.running_mean.item() == pytest.approx(0.9 * 0 + 0.1 * 2)
    assert layer.running_var.item() == pytest.approx(0.9 * 1 + 0.1 * 2)
    # … while the batch itself was divided by the root of the biased one.
    assert y.flatten().tolist() == pytest.approx([-1, 1], abs=1e-5)


@pytest.mark.parametrize("ghost", [None, 2])
def test_after_k_steps_the_initial_value_still_weighs_nine_tenths_to_the_k(
    ghost: int | None,
) -> None:
    """35 % at 10 steps, 10 % at 22, 1 % at 44 (science.md, section 2)."""
    layer = batch_or_ghost_norm(ghost)
    x = torch.tensor([[6.0], [8.0], [6.0], [8.0]])  # mean 7, unbiased variance 4/3; in pairs 2
    unbiased = 4 / 3 if ghost is None else 2.0
    for step in range(1, 45):
        layer(x)
        if step in (10, 22, 44):
            left = {10: 0.35, 22: 0.10, 44: 0.01}[step]
            mean = layer.get_buffer("running_mean").item()
            variance = layer.get_buffer("running_var").item()
            assert 1 - mean / 7 == pytest.approx(left, abs=0.005)
            assert 1 - mean / 7 == pytest.approx(0.9**step, rel=1e-4)
            expected = 0.9**step * 1 + (1 - 0.9**step) * unbiased
            assert variance == pytest.approx(expected, rel=1e-5)
    assert layer.get_buffer("num_batches_tracked").item() == 44


@pytest.mark.parametrize("ghost", [None, 2])
def test_momentum_none_is_the_average_of_all_batches(ghost: int | None) -> None:
    layer = (
        GhostBatchNorm(1, batch_size=ghost, momentum=None) if ghost else BatchNorm(1, momentum=None)
    )
    for mean in (10.0, 20.0, 60.0):
        layer(torch.tensor([[mean - 1], [mean + 1]]))
    assert layer.get_buffer("running_mean").item() == pytest.approx(30.0)
    assert layer.get_buffer("running_var").item() == pytest.approx(2.0)  # the initial 1 is gone


def test_one_value_per_channel_is_refused_in_training_only() -> None:
    for layer in (BatchNorm(2), GhostBatchNorm(2, batch_size=1)):
        with pytest.raises(ValueError, match="one value per statistic"):
            layer(torch.zeros(1, 2))
        assert layer.eval()(torch.zeros(1, 2)).shape == (1, 2)
