"""FrozenBatchNorm to the bit around its freeze; the distribution of NoisyBatchNorm's noise."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from bnbench.norms.batch import BatchNorm, GhostBatchNorm
from bnbench.norms.frozen import FrozenBatchNorm
from bnbench.norms.noisy import NoiseAlone, NoisyBatchNorm
from bnbench.probes.statistics import batch_norm_layers


def draw(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize("shape", [(6, 3, 2, 2), (6, 3)])
@pytest.mark.parametrize("size", [None, 2])
def test_frozen_is_batch_norm_and_then_its_inference_with_learned_scale(
    shape: tuple[int, ...], momentum: float | None, size: int | None
) -> None:
    frozen = FrozenBatchNorm(3, freeze_after=2, momentum=momentum, batch_size=size)
    plain = GhostBatchNorm(3, momentum=momentum, batch_size=size)
    for step in range(2):
        x = (draw(*shape, seed=step) * 2 + 100).float()
        assert torch.equal(frozen(x), plain(x))
    kept = {key: value.clone() for key, value in frozen.named_buffers()}
    for key, value in plain.named_buffers():
        assert torch.equal(value, kept[key])
    optimizer = torch.optim.SGD(frozen.parameters(), lr=0.1)
    plain.eval()
    for step in range(2, 5):
        x = (draw(*shape, seed=step) * 2 + 100).float()
        plain.load_state_dict(frozen.state_dict())
        given, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        y = frozen(given)
        expected = plain(other)
        assert torch.equal(y, expected)
        assert torch.equal(copy.deepcopy(frozen).eval()(x), y)
        frozen.zero_grad()
        for output in (y, expected):
            output.backward(draw(*shape, seed=9).float())
        assert torch.equal(given.grad, other.grad)  # type: ignore[arg-type]
        before = frozen.weight.detach().clone()
        optimizer.step()
        assert not torch.equal(frozen.weight, before)
    for key, value in frozen.named_buffers():
        assert torch.equal(value, kept[key])
    assert kept["num_batches_tracked"].item() == 2


def test_frozen_from_the_start_and_a_resumed_freeze() -> None:
    x = torch.full((1, 2), 3.0)  # one value per channel: no statistics are taken
    layer = FrozenBatchNorm(2, freeze_after=0)
    torch.testing.assert_close(layer(x), x / (1 + 1e-5) ** 0.5)
    trained, resumed = (FrozenBatchNorm(2, freeze_after=1) for _ in range(2))
    trained(torch.tensor([[1.0, 2.0], [3.0, 8.0]]))
    resumed.load_state_dict(trained.state_dict())
    assert torch.equal(resumed(x), trained.eval()(x))
    with pytest.raises(ValueError, match="freeze_after must be 0 steps or more, not -1"):
        FrozenBatchNorm(2, freeze_after=-1)
    with pytest.raises(ValueError, match=r"expected \(N, C\) or \(N, C, H, W\)"):
        resumed(torch.zeros(2, 2, 2))


def noise(layer: NoisyBatchNorm, N: int, C: int) -> tuple[Tensor, Tensor]:
    """m and s of one step, (N, C), solved from outputs at y = −1 and y = 1."""
    x = torch.tensor([-1.0, 1.0], dtype=torch.float64).expand(N, C, 1, 2)
    z = layer.double()(x)
    return (z[..., 1] + z[..., 0])[:, :, 0] / 2, (z[..., 1] - z[..., 0])[:, :, 0] / 2


def test_noise_has_the_distribution_of_the_paper() -> None:
    """Over 4000 channels with 100 examples each; bounds of five standard errors."""
    torch.manual_seed(3)
    N, C = 100, 4000
    shift, scale = noise(NoisyBatchNorm(C, eps=1e-12), N, C)
    for values, low, high, jitter in (
        (shift, -0.5, 0.5, 0.1 / 3**0.5),  # Uniform(±0.1)
        (scale, 1.0, 1.25, 0.1),  # Normal(0, 0.1²)
    ):
        centers = values.mean(0)
        spread = (high - low) / 12**0.5
        assert abs(centers.mean().item() - (low + high) / 2) < 5 * spread / C**0.5
        assert centers.std().item() == pytest.approx(
            (spread**2 + jitter**2 / N) ** 0.5, rel=5 / (2 * C) ** 0.5
        )
        around = values - centers
        assert around.std().item() == pytest.approx(
            jitter * (1 - 1 / N) ** 0.5, rel=5 / (N * C) ** 0.5
        )
        room = 5 * jitter / N**0.5
        assert low - room < centers.min().item() < centers.max().item() < high + room
    # Uniform jitter ends where it should; normal jitter does not end.
    assert (shift - shift.mean(0)).abs().max().item() < 0.1 + 5 * 0.1 / N**0.5
    assert (scale - scale.mean(0)).abs().max().item() > 0.3
    # Shift and scale, and channels, are independent.
    for one, other in ((shift, scale), (shift[:, :-1], shift[:, 1:])):
        pair = torch.stack((one.mean(0), other.mean(0)))
        assert abs(torch.corrcoef(pair)[0, 1].item()) < 5 / C**0.5


def test_noise_is_new_at_each_step_and_repeats_under_a_seed() -> None:
    layer = NoisyBatchNorm(3)
    x = draw(8, 3, 2, 2).float()
    torch.manual_seed(5)
    first, second = layer(x), layer(x)
    torch.manual_seed(5)
    assert torch.equal(layer(x), first)
    assert not torch.equal(second, first)


@pytest.mark.parametrize("shape", [(8, 3, 2, 2), (8, 3)])
def test_the_control_has_the_same_noise_and_normalizes_nothing(shape: tuple[int, ...]) -> None:
    alone, noisy = NoiseAlone(3).double(), NoisyBatchNorm(3).double()
    with torch.no_grad():
        alone.weight.copy_(draw(3, seed=2))
        alone.bias.copy_(draw(3, seed=3))
    x = draw(*shape) * 2 + 100
    last = [1] * (len(shape) - 2)
    y = alone.weight.view(1, 3, *last) * x + alone.bias.view(1, 3, *last)
    torch.manual_seed(0)
    shift, scale = (part.view(8, 3, *last) for part in noisy.draw(x))
    torch.manual_seed(0)
    torch.testing.assert_close(alone(x), scale * y + shift, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(alone.eval()(x), y, rtol=1e-12, atol=1e-12)
    assert not batch_norm_layers(alone)
    for wrong in ((8, 2, 2, 2), (8, 3, 2)):
        with pytest.raises(ValueError, match="expected"):
            alone(draw(*wrong))
    with pytest.raises(TypeError, match="eps"):
        NoiseAlone(3, eps=1e-3)  # type: ignore[call-arg]


@pytest.mark.parametrize("shape", [(8, 3, 2, 2), (8, 3)])
def test_noise_goes_over_batch_norms_output_and_stays_out_of_its_state(
    shape: tuple[int, ...],
) -> None:
    noisy, plain = NoisyBatchNorm(3).double(), BatchNorm(3).double()
    with torch.no_grad():
        for layer in (noisy, plain):
            layer.weight.copy_(draw(3, seed=2))
            layer.bias.copy_(draw(3, seed=3))
    x, above = draw(*shape) * 2 + 100, draw(*shape, seed=1)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    torch.manual_seed(0)
    z = noisy(ours)
    torch.manual_seed(0)
    shift, scale = (
        part.view(8, 3, *[1] * (len(shape) - 2)) for part in NoisyBatchNorm(3).double().draw(x)
    )
    expected = scale * plain(theirs) + shift
    torch.testing.assert_close(z, expected, rtol=1e-12, atol=1e-12)
    for output in (z, expected):
        output.backward(above)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)
    for one, other in zip(noisy.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-12)
    for key, value in noisy.state_dict().items():
        assert torch.equal(value, plain.state_dict()[key])
    state = torch.get_rng_state()
    assert torch.equal(noisy.eval()(x), plain.eval()(x))
    assert torch.equal(torch.get_rng_state(), state)
