"""GhostBatchNorm against torch's layer on each chunk in turn."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from bnbench.norms.batch import BatchNorm, GhostBatchNorm


def draw(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chunk_by_chunk(x: Tensor, size: int, eps: float, weight: Tensor, bias: Tensor) -> Tensor:
    """torch's layer, handed one chunk at a time."""
    outputs = []
    for start in range(0, len(x), size):
        layer = nn.BatchNorm2d(x.shape[1], eps=eps, dtype=x.dtype)
        chunk = x[start : start + size]
        outputs.append(torch.func.functional_call(layer, {"weight": weight, "bias": bias}, chunk))
    return torch.cat(outputs)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 12])
def test_equals_torch_on_each_chunk(size: int) -> None:
    x, above, eps = draw(12, 3, 2, 2) + 100, draw(12, 3, 2, 2, seed=1), 1e-3
    ours = GhostBatchNorm(3, batch_size=size, eps=eps).double()
    with torch.no_grad():
        ours.weight.copy_(draw(3, seed=2))
        ours.bias.copy_(draw(3, seed=3))
    theirs = [part.detach().clone().requires_grad_() for part in (x, ours.weight, ours.bias)]
    given = x.clone().requires_grad_()
    y = ours(given)
    y.backward(above)
    expected = chunk_by_chunk(theirs[0], size, eps, theirs[1], theirs[2])
    torch.autograd.backward(expected, above)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    for part, twin in zip((given, ours.weight, ours.bias), theirs, strict=True):
        torch.testing.assert_close(part.grad, twin.grad, rtol=1e-9, atol=1e-9)


def test_buffers_move_once_a_step_by_the_mean_over_chunks() -> None:
    """Chunks (1, 3) and (5, 9): means 2 and 7, unbiased variances 2 and 8."""
    layer = GhostBatchNorm(1, batch_size=2, momentum=0.1)
    layer(torch.tensor([[1.0], [3.0], [5.0], [9.0]]))
    assert layer.get_buffer("running_mean").item() == pytest.approx(0.1 * 4.5)
    # One after the other would leave 0.9·(0.1·2) + 0.1·7 = 0.88.
    assert layer.get_buffer("running_var").item() == pytest.approx(0.9 + 0.1 * 5)
    assert layer.get_buffer("num_batches_tracked").item() == 1


@pytest.mark.parametrize("size", [2, 4])
def test_buffers_equal_a_loop_over_chunks_after_several_steps(size: int) -> None:
    layer = GhostBatchNorm(3, batch_size=size, momentum=0.3).double()
    mean = torch.zeros(3, dtype=torch.float64)
    variance = torch.ones(3, dtype=torch.float64)
    for step in range(3):
        x = draw(8, 3, 2, 1, seed=step) * (step + 1) + 100
        layer(x)
        parts = [x[start : start + size].transpose(0, 1).flatten(1) for start in range(0, 8, size)]
        mean = 0.7 * mean + 0.3 * sum(part.mean(1) for part in parts) / len(parts)
        variances = [part.var(1, correction=1) for part in parts]
        variance = 0.7 * variance + 0.3 * sum(variances) / len(parts)
    torch.testing.assert_close(layer.get_buffer("running_mean"), mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(layer.get_buffer("running_var"), variance, rtol=1e-11, atol=0)


@pytest.mark.parametrize("shape", [(16, 5, 3, 3), (16, 5)])
def test_one_chunk_is_batch_norm(shape: tuple[int, ...]) -> None:
    """Sanity check 10 of science.md, in the precision that runs use."""
    x = draw(*shape).float()
    layers = GhostBatchNorm(5, batch_size=16), BatchNorm(5)
    results = []
    for layer in layers:
        given = x.clone().requires_grad_()
        y = layer(given)
        y.backward(draw(*shape, seed=1).float())
        results.append((y, given.grad, layer.weight.grad, layer.bias.grad, *layer.buffers()))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    whole, plain = GhostBatchNorm(5, batch_size=None), BatchNorm(5)
    assert torch.equal(whole(x), plain(x))
    assert torch.equal(whole.get_buffer("running_var"), plain.get_buffer("running_var"))


def test_inference_is_batch_norms() -> None:
    ghost, plain = GhostBatchNorm(3, batch_size=2), BatchNorm(3)
    ghost(draw(4, 3, 2, 2).float() + 5)
    plain.load_state_dict(ghost.state_dict())
    x = draw(5, 3, 2, 2, seed=1).float()  # 5 does not split into twos, and need not
    assert torch.equal(ghost.eval()(x), plain.eval()(x))


def test_chunks_that_do_not_fill_the_batch_are_refused_and_leave_the_buffers() -> None:
    layer = GhostBatchNorm(3, batch_size=4)
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(ValueError, match=r"^10 examples do not split into chunks of 4$"):
        layer(torch.zeros(10, 3, 2, 2))
    with pytest.raises(ValueError, match=r"^2 examples do not split into chunks of 4$"):
        layer(torch.zeros(2, 3, 2, 2))
    for name, buffer in layer.state_dict().items():
        assert torch.equal(buffer, before[name])


def test_a_single_image_per_chunk_trains_where_it_has_several_pixels() -> None:
    layer = GhostBatchNorm(2, batch_size=1)
    x = draw(4, 2, 3, 3).float()
    expected = nn.functional.instance_norm(x, eps=layer.eps)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="one value per statistic"):
        layer(torch.zeros(4, 2, 1, 1))


@pytest.mark.parametrize("size", [(5, 5), (1, 1)])
@pytest.mark.parametrize("shift", [0.0, 100.0, 1000.0])
def test_rounding_error_is_of_torchs_size(shift: float, size: tuple[int, int]) -> None:
    """In channels-last, the format of runs. E[x²] − E[x]² would be off by a third at 1000."""
    exact = draw(64, 4, *size) + shift
    x = exact.float().contiguous(memory_format=torch.channels_last)
    one, zero = torch.ones(4), torch.zeros(4)
    reference = chunk_by_chunk(x.double(), 16, 1e-5, one.double(), zero.double())
    theirs = (chunk_by_chunk(x, 16, 1e-5, one, zero) - reference).abs().max().item()
    layer = GhostBatchNorm(4, batch_size=16)
    ours = (layer(x).detach() - reference).abs().max().item()
    assert 0 < ours <= 8 * theirs  # on any processor
    variance = sum(part.double().transpose(0, 1).flatten(1).var(1) for part in x.chunk(4)) / 4
    torch.testing.assert_close(
        layer.get_buffer("running_var").double(), 0.9 + 0.1 * variance, rtol=1e-5, atol=0
    )
