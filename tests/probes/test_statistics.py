"""Batch and population statistics against torch's own training mode, and no trace of either."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from math import sqrt

import numpy as np
import pytest
import torch
from torch import nn

from bnbench.norms.batch import BatchNorm, GhostBatchNorm
from bnbench.norms.frozen import FrozenBatchNorm
from bnbench.norms.group import GroupNorm
from bnbench.norms.renorm import BatchRenorm
from bnbench.probes.pooled import PooledStatistics
from bnbench.probes.statistics import (
    batch_norm_layers,
    batch_statistics,
    evaluating,
    given_statistics,
)
from tests.probes.batch_norms import images, network, training_without_dropout

CHUNKS = {
    # images in a pass, images that share statistics → the chunks, by hand
    (8, 4): [4, 4],
    (10, 4): [4, 6],
    (11, 4): [4, 7],
    (3, 4): [3],
    (4, 4): [4],
    (7, 7): [7],
    (9, 8): [9],
    (17, 8): [8, 9],
    (6, 2): [2, 2, 2],
    (7, 2): [2, 2, 3],
}


@pytest.mark.parametrize(("sizes", "chunks"), CHUNKS.items(), ids=map(str, CHUNKS))
def test_batch_statistics_are_those_of_training_chunk_by_chunk(
    sizes: tuple[int, int], chunks: list[int]
) -> None:
    n, norm_batch_size = sizes
    model, x = network(), images(n)
    twin = training_without_dropout(model)
    expected = torch.cat([twin(part) for part in x.split(chunks)])  # type: ignore[no-untyped-call]
    with evaluating(model), batch_statistics(model, norm_batch_size):
        found = model(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    whole = training_without_dropout(model)(x)
    assert (len(chunks) == 1) == torch.allclose(found, whole, rtol=1e-4, atol=1e-5)


def test_chunks_of_one_image_are_instance_norm() -> None:
    layer, x = BatchNorm(2), images(5)
    with evaluating(layer), batch_statistics(layer, 1):
        found = layer(x)
    torch.testing.assert_close(found, nn.functional.instance_norm(x), rtol=1e-4, atol=1e-5)


def test_ghost_batch_norm_is_measured_as_it_trains() -> None:
    model = network(lambda channels: GhostBatchNorm(channels, batch_size=4))
    x = images(12)
    with evaluating(model), batch_statistics(model, 4):
        found = model(x)
    torch.testing.assert_close(found, training_without_dropout(model)(x), rtol=1e-4, atol=1e-5)


def test_layers_without_affine_and_torchs_own_layers_are_measured_too() -> None:
    x = images(8)
    for layer in (BatchNorm(2, affine=False), nn.BatchNorm2d(2), nn.SyncBatchNorm(2)):
        with evaluating(layer), batch_statistics(layer, 8):
            found = layer(x)
        torch.testing.assert_close(found, nn.BatchNorm2d(2, affine=False)(x), rtol=1e-4, atol=1e-5)


def test_only_layers_that_keep_running_statistics_count() -> None:
    model = nn.Sequential(
        BatchNorm(4),
        nn.BatchNorm2d(4, track_running_stats=False),
        GroupNorm(4, groups=2),
        nn.InstanceNorm2d(4),
        nn.Sequential(GhostBatchNorm(4, batch_size=2)),
    )
    assert list(batch_norm_layers(model)) == ["0", "4.0"]


@pytest.mark.parametrize("shift", [0.0, 100.0, 1000.0])
def test_rounding_error_of_batch_statistics_is_of_torchs_size(shift: float) -> None:
    x = images(64, shift=shift)
    layer = nn.BatchNorm2d(2)
    exact = nn.functional.batch_norm(x.double(), None, None, training=True)
    theirs = (nn.functional.batch_norm(x, None, None, training=True) - exact).abs().max().item()
    with evaluating(layer), batch_statistics(layer, 64):
        ours = (layer(x) - exact).abs().max().item()
    assert 0 < ours <= 8 * theirs  # on any processor


@pytest.mark.parametrize("splits", [[48], [16, 16, 16], [24, 24], [16, 8, 24], [20, 28], [13, 35]])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_population_statistics_do_not_depend_on_how_images_are_split(
    splits: list[int], shift: float
) -> None:
    """For the first norm, whose input no statistics touch, they are those of all images at once."""
    model, x = network(), images(48, shift=shift)
    with evaluating(model), batch_statistics(model, 8) as pools:
        for part in x.split(splits):  # type: ignore[no-untyped-call]
            model(part)
    first = copy.deepcopy(model[0]).double()(x.double())
    values = first.detach().transpose(0, 1).flatten(1).numpy()
    assert pools["1"].count == values.shape[1]
    np.testing.assert_allclose(pools["1"].mean.numpy(), values.mean(1), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(pools["1"].variance.numpy(), values.var(1), rtol=2e-6)
    assert set(pools) == {"1", "4", "9"}
    assert pools["9"].count == 48


def test_pooling_equals_numpy_over_everything_at_once() -> None:
    random = np.random.default_rng(0)
    pool, everything = PooledStatistics(), []
    for count, batches in ((50, 3), (7, 1), (200, 2), (1, 4)):
        values = random.normal(1000 + 5 * count, [1.0, 30.0, 0.01], (batches, count, 3))
        everything.append(values.reshape(-1, 3))
        mean, variance = torch.tensor(values.mean(1)), torch.tensor(values.var(1))
        pool.add(mean, variance, count)
    together = np.concatenate(everything)
    assert pool.count == len(together)
    np.testing.assert_allclose(pool.mean.numpy(), together.mean(0), rtol=1e-13)
    np.testing.assert_allclose(pool.variance.numpy(), together.var(0), rtol=1e-11)


def test_pooling_by_hand() -> None:
    """{1, 3} and {8}: mean 4, variance (9 + 1 + 16)/3."""
    pool = PooledStatistics()
    pool.add(torch.tensor([[2.0]]), torch.tensor([[1.0]]), 2)
    pool.add(torch.tensor([[8.0]]), torch.tensor([[0.0]]), 1)
    assert pool.count == 3
    assert pool.mean.item() == pytest.approx(4.0)
    assert pool.variance.item() == pytest.approx(26 / 3)
    assert pool.mean.dtype == pool.variance.dtype == torch.float64


def test_the_error_of_a_mean_is_that_of_the_means_of_batches() -> None:
    values = torch.randn(24, 8, 3, dtype=torch.float64)  # batches, values, channels
    pool = PooledStatistics()
    assert pool.error.isinf().all()
    for part in values.split((5, 1, 18)):  # type: ignore[no-untyped-call]
        pool.add(part.mean(1), part.var(1, correction=0), 8)
    torch.testing.assert_close(pool.error, values.mean(1).std(0, correction=1) / sqrt(24))


def test_given_statistics_replace_the_running_ones() -> None:
    model, x = network(), images(8)
    with evaluating(model), batch_statistics(model, 4) as pools:
        model(images(16, seed=2))
    twin = copy.deepcopy(model).eval()
    for name, pool in pools.items():
        layer = twin.get_submodule(name)
        layer.get_buffer("running_mean").copy_(pool.mean)
        layer.get_buffer("running_var").copy_(pool.variance)
    with evaluating(model):
        running = model(x)
        with given_statistics(model, pools):
            found = model(x)
    torch.testing.assert_close(found, twin(x), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found, running, atol=1e-2)


# --- no trace -----------------------------------------------------------------------------


@contextmanager
def _statistics_in(model: nn.Module, name: str) -> Iterator[None]:
    pools = {
        layer: PooledStatistics(
            1, torch.zeros(module.num_features), torch.ones(module.num_features)
        )
        for layer, module in batch_norm_layers(model).items()
    }
    with ExitStack() as stack:
        contexts: dict[str, Callable[[], AbstractContextManager[object]]] = {
            "evaluating": lambda: evaluating(model),
            "batch": lambda: batch_statistics(model, 4),
            "given": lambda: given_statistics(model, pools),
        }
        for word in name.split("+"):
            stack.enter_context(contexts[word]())
        yield


NESTED = [
    "evaluating",
    "batch",
    "given",
    "evaluating+batch",
    "evaluating+given",
    "evaluating+batch+given+evaluating+batch",
]


class BrokenError(Exception):
    pass


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", NESTED)
def test_no_trace_is_left(name: str, fails: bool) -> None:
    model = network()
    # Flags as a user may have set them: dropout and one norm in eval mode, the rest in training.
    model[10].eval()
    model[4].eval()
    calls: list[int] = []
    model[1].register_forward_hook(lambda *_: calls.append(1))
    model(images(8)).sum().backward()
    state = copy.deepcopy(model.state_dict())
    flags = {module: module.training for module in model.modules()}
    gradients = [parameter.grad.clone() for parameter in model.parameters()]  # type: ignore[union-attr]
    attributes = {module: set(vars(module)) for module in model.modules()}
    torch.manual_seed(3)
    rng = torch.get_rng_state()

    try:
        with _statistics_in(model, name):
            if name == "evaluating":
                assert not any(module.training for module in model.modules())
            if "evaluating" in name:
                model(images(8))
            if fails:
                raise BrokenError
    except BrokenError:
        assert fails

    assert {module: module.training for module in model.modules()} == flags
    assert len(set(flags.values())) == 2
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert parameter.requires_grad
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, gradient)
    for module, before in attributes.items():
        assert set(vars(module)) == before
        assert "forward" not in vars(module)
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert len(calls) == (2 if "evaluating" in name else 1)  # the user's hook is still asked


def test_an_inner_context_takes_over_and_hands_back() -> None:
    model, x = network(), images(8)
    pools = {
        name: PooledStatistics(1, torch.zeros(layer.num_features), torch.ones(layer.num_features))
        for name, layer in batch_norm_layers(model).items()
    }
    with evaluating(model):
        running = model(x)
        with batch_statistics(model, 4):
            outer = model(x)
            with given_statistics(model, pools):
                given = model(x)
                with batch_statistics(model, 2):
                    inner = model(x)
                assert torch.equal(model(x), given)
            assert torch.equal(model(x), outer)
        assert torch.equal(model(x), running)
    different = [running, outer, given, inner]
    for i, one in enumerate(different):
        for other in different[:i]:
            assert not torch.allclose(one, other, atol=1e-3)


def test_a_forward_that_somebody_else_put_in_place_is_played() -> None:
    model, x = network(), images(8)
    theirs = model[1].forward
    model[1].forward = lambda x: theirs(x).relu()
    with evaluating(model), batch_statistics(model, 8):
        found = model(x)
    twin = copy.deepcopy(model)
    twin[1] = nn.Sequential(copy.deepcopy(network()[1]), nn.ReLU())
    expected = training_without_dropout(twin)(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_flags_of_a_layer_used_twice_are_restored() -> None:
    """Restored module by module: a parent's flag must not spread to a child seen before it."""
    shared = nn.Dropout().eval()
    model = nn.Sequential(nn.Sequential(shared), nn.Sequential(nn.ReLU(), shared))
    with evaluating(model):
        pass
    assert not shared.training
    assert model[1].training


@pytest.mark.parametrize("size", [None, 4])
@pytest.mark.parametrize("freeze_after", [0, 3, 9])
def test_layers_that_correct_act_as_in_training(freeze_after: int, size: int | None) -> None:
    """Against the layers' own training mode, chunk by chunk, on copies."""
    torch.manual_seed(freeze_after)
    layers = nn.Sequential(
        BatchRenorm(3, r_ramp=(0, 2), d_ramp=(0, 2), momentum=0.1),
        FrozenBatchNorm(3, freeze_after=freeze_after, batch_size=size),
    ).double()
    with torch.no_grad():
        for step in range(6):
            layers(torch.randn(8, 3, 4, 4, dtype=torch.float64) * 3 + step)
    x = torch.randn(8, 3, 4, 4, dtype=torch.float64) * 2 + 4
    expected = torch.cat([copy.deepcopy(layers)(chunk) for chunk in (x[:4], x[4:])])
    with evaluating(layers), batch_statistics(layers, 4):
        found = layers(x)
    torch.testing.assert_close(found, expected)


def test_a_layer_that_does_more_in_train_and_eval_is_set_back_by_itself() -> None:
    class Merges(nn.Linear):
        """As LoRA's layers: inference adds a product of matrices to the weights."""

        merged = False

        def train(self, mode: bool = True) -> Merges:
            if mode == self.merged:
                self.weight.data += -0.5 if mode else 0.5
                self.merged = not mode
            return super().train(mode)

    layer = Merges(2, 2)
    before = layer.weight.detach().clone()
    with evaluating(layer):
        assert layer.merged
    assert not layer.merged
    torch.testing.assert_close(layer.weight, before)
