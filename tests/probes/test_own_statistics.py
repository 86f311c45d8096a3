"""Statistics of layers that nobody here wrote."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bnbench.probes.pooled import PooledStatistics
from bnbench.probes.statistics import (
    batch_statistics,
    evaluating,
    given_statistics,
)
from tests.probes.batch_norms import images, network, training_without_dropout


class Activates(nn.BatchNorm2d):
    """Normalizes and activates in one, as in EfficientNet."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class Positional(nn.BatchNorm2d):
    """Calls torch's function itself, not as torch's layer does."""

    def forward(self, x: Tensor) -> Tensor:
        own = (self.running_mean, self.running_var, self.training, 0.1, self.eps, False)
        return torch.batch_norm(x, self.weight, self.bias, *own) * 2


class Scales(nn.BatchNorm2d):
    """Computes inference by hand, and training with torch's function."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return super().forward(x).tanh()
        assert self.running_mean is not None
        assert self.running_var is not None
        gain = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * gain
        return (x * gain.view(-1, 1, 1) + shift.view(-1, 1, 1)).tanh()


class Untracked(nn.BatchNorm2d):
    """Its running statistics are used in inference, and move no more."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.track_running_stats = False


class OfParameters(nn.BatchNorm2d):
    """Keeps its running statistics as parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        for name in ("running_mean", "running_var"):
            kept = self._buffers.pop(name)
            assert kept is not None
            self.register_parameter(name, nn.Parameter(kept, requires_grad=False))


FOREIGN = [Activates, Positional, Scales, Untracked, OfParameters, nn.BatchNorm2d]


@pytest.mark.parametrize("make_norm", FOREIGN)
def test_batch_statistics_are_those_of_its_own_training_mode(
    make_norm: Callable[[int], nn.Module],
) -> None:
    model, x = network(make_norm), images(10)
    parts = x.split([4, 6])  # type: ignore[no-untyped-call]
    expected = torch.cat([training_without_dropout(model)(part) for part in parts])
    with evaluating(model), batch_statistics(model, 4):
        found = model(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make_norm", FOREIGN)
def test_with_the_statistics_of_one_batch_inference_is_training(
    make_norm: Callable[[int], nn.Module],
) -> None:
    """In buffers, and put in: what is measured is what a recalibrated network would give."""
    model, x = network(make_norm), images(16)
    with evaluating(model), batch_statistics(model, 16) as pools:
        batch = model(x)
    with evaluating(model), given_statistics(model, pools):
        population = model(x)
    for name, pool in pools.items():
        model.state_dict()[f"{name}.running_mean"].copy_(pool.mean)
        model.state_dict()[f"{name}.running_var"].copy_(pool.variance)
    with evaluating(model):
        running = model(x)
    torch.testing.assert_close(population, batch, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(running, batch, rtol=1e-5, atol=1e-5)


def test_the_innermost_context_is_asked_where_inference_is_computed_by_hand() -> None:
    model, x = network(Scales), images(8)
    zeros = {name: PooledStatistics() for name in ("1", "4")}
    for name, channels in (("1", 4), ("4", 6)):
        zeros[name].add(torch.zeros(1, channels), torch.ones(1, channels), 1)
    with evaluating(model):
        with given_statistics(model, zeros):
            expected = model(x)
        with batch_statistics(model, 4), given_statistics(model, zeros):
            found = model(x)
    assert torch.equal(found, expected)


def test_users_hooks_see_what_a_layer_gives() -> None:
    model, x = network(Scales), images(8)
    seen: list[Tensor] = []
    model[1].register_forward_hook(lambda _, __, output: seen.append(output))
    with evaluating(model), batch_statistics(model, 8):
        model(x)
    expected = training_without_dropout(model[:2])(x)
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-5)


def test_instance_norm_that_tracks() -> None:
    """In training each image by itself; in inference as torch's own running statistics, which
    average over images."""
    layer, x = nn.InstanceNorm2d(2, affine=True, track_running_stats=True), images(6)
    with evaluating(layer), batch_statistics(layer, 3) as pools:
        found = layer(x)
    with evaluating(layer), given_statistics(layer, pools):
        population = layer(x)
    twin = copy.deepcopy(layer)
    twin.momentum = 1.0
    torch.testing.assert_close(found, twin.train()(x), rtol=1e-4, atol=1e-5)
    assert twin.running_var is not None
    twin.running_var *= 35 / 36  # torch keeps the unbiased variance of the 36 positions
    torch.testing.assert_close(population, twin.eval()(x), rtol=1e-4, atol=1e-5)


class Twice(nn.Module):
    """One layer for two inputs that differ."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.norm(x)
        return first + self.norm(5 * x + 3)  # type: ignore[no-any-return]


def test_each_call_in_a_pass_has_statistics_of_its_own() -> None:
    model, x = Twice(), images(12)
    with evaluating(model), batch_statistics(model, 12) as pools:
        for _ in range(2):
            batch = model(x)
    calls = pools["norm"].calls
    assert [each.count for each in calls] == [2 * 12 * 36] * 2
    for call, inputs in zip(calls, (x, 5 * x + 3), strict=True):
        torch.testing.assert_close(call.mean.float(), inputs.mean((0, 2, 3)))
        variance = inputs.var((0, 2, 3), correction=0)
        torch.testing.assert_close(call.variance.float(), variance)
    with evaluating(model):
        with given_statistics(model, pools, by_call=True):
            torch.testing.assert_close(model(x), batch, rtol=1e-5, atol=1e-5)
        with given_statistics(model, pools):
            assert not torch.allclose(model(x), batch, atol=0.1)


def test_what_a_forward_keeps_can_be_used_in_training() -> None:
    class Keeps(nn.Module):
        kept: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.kept is None:
                self.kept = x * 2
            return x * self.kept

    model, weight = Keeps(), torch.ones(2, requires_grad=True)
    with evaluating(model):
        model(torch.ones(2))
    model(weight).sum().backward()
    assert weight.grad is not None
