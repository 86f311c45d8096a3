"""Running error against NumPy over everything at once, and a case by hand."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnbench.norms.batch import BatchNorm
from bnbench.norms.group import GroupNorm
from bnbench.probes import running_error
from tests.probes.examples import NORMS, by_name, how, network, pictures, trainer


def twin(model: nn.Sequential, x: Tensor, size: int) -> dict[tuple[str, str], float]:
    """Gathers what each norm is given, chunk by chunk, and asks NumPy."""
    trained = trainer(model)
    given: dict[str, list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]] = {}
    for chunk in x.split(size):  # type: ignore[no-untyped-call]
        for name, module in trained.named_children():
            if name in NORMS:
                given.setdefault(name, []).append(chunk.detach().numpy())
            chunk = module(chunk)
    found: dict[tuple[str, str], float] = {}
    for name in NORMS:
        values = np.concatenate(given[name]).swapaxes(0, 1).reshape(4, -1)
        layer = model.get_submodule(name)
        mean, variance = (layer.get_buffer(f"running_{s}").numpy() for s in ("mean", "var"))
        width = values.var(1) + 1e-5
        found[name, "mean"] = float(np.mean(np.abs(mean - values.mean(1)) / np.sqrt(width)))
        found[name, "variance"] = float(np.mean(np.abs(np.log((variance + 1e-5) / width))))
    for quantity in ("mean", "variance"):
        found["network", quantity] = (found["1", quantity] + found["4", quantity]) / 2
    return found


@pytest.mark.parametrize("norm_batch_size", [2, 4, 8])
def test_against_the_twin(norm_batch_size: int) -> None:
    model, shown = network(), pictures(24)
    found = running_error.read(model, how(norm_batch_size), population=shown.sample())
    expected = twin(model, shown.x, norm_batch_size)
    assert by_name(found) == pytest.approx(expected, rel=1e-9)
    assert min(expected.values()) > 0.05


@pytest.mark.parametrize("k", [1, 3, 10, 44])
def test_by_hand(k: int) -> None:
    """One channel of {1, 3, 5, 7}, k times: μ = 4, σ² = 5, unbiased 20/3; lag 0.9^k."""
    x = torch.tensor([[1.0], [3.0], [5.0], [7.0]], dtype=torch.float64)
    model = nn.Sequential(BatchNorm(1, eps=1e-12), nn.Linear(1, 2)).double().train()
    for _ in range(k):
        model(x)
    shown = pictures(4)
    sample = type(shown)(x, shown.y).sample()
    found = by_name(running_error.read(model, how(4), population=sample))
    lag = 0.9**k
    assert found["0", "mean"] == pytest.approx(lag * 4 / 5**0.5, rel=1e-6)
    variance = lag + (1 - lag) * 5 * (4 / 3)  # bias factor n/(n − 1)
    assert found["0", "variance"] == pytest.approx(abs(log(variance / 5)), rel=1e-6)


@pytest.mark.parametrize("sizes", [(4, 8), (4, 12), (8, 8), (8, 16), (5, 5), (7, 14), (26, 26)])
def test_the_first_layer_does_not_depend_on_how_images_are_split(sizes: tuple[int, int]) -> None:
    """26 images: unequal last batches included. Deeper layers see what batches have normalized."""
    model, shown = network(), pictures(26)

    def measured(norm_batch_size: int, pass_size: int) -> dict[tuple[str, str], float]:
        passes = how(norm_batch_size, pass_size)
        return by_name(running_error.read(model, passes, population=shown.sample()))

    found, whole = measured(*sizes), measured(13, 13)
    for quantity in ("mean", "variance"):
        assert found["1", quantity] == pytest.approx(whole["1", quantity], rel=1e-6)
    assert found["4", "mean"] != pytest.approx(whole["4", "mean"], rel=1e-6)


def test_without_running_statistics_there_is_no_error() -> None:
    model = network(lambda channels: GroupNorm(channels, groups=2))
    found = running_error.read(model, how(), population=pictures(8).sample())
    assert by_name(found) == {("network", "mean"): 0.0, ("network", "variance"): 0.0}
