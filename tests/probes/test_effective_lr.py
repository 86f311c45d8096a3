"""Effective rates against central differences, and what scaling the weights does to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bnbench.norms.batch import BatchNorm
from bnbench.norms.group import GroupNorm
from bnbench.probes import effective_lr
from tests.probes.examples import (
    AS_IN_TRAINING,
    STEP,
    Norm,
    batch,
    by_name,
    gradient_at,
    network,
    weights_of,
)


def read(model: nn.Module, lr: float = 0.3) -> dict[tuple[str, str], float]:
    return by_name(effective_lr.read(model, AS_IN_TRAINING, batch=batch(), lr=lr, step=STEP))


@pytest.mark.parametrize("make_norm", [BatchNorm, lambda c: GroupNorm(c, groups=2)])
def test_against_the_twin(make_norm: Norm) -> None:
    model = network(make_norm)
    weights = weights_of(model)
    gradient = gradient_at(model, weights, batch())
    expected: dict[tuple[str, str], float] = {}
    for layer in ("0", "3", "9"):
        w = np.linalg.norm(weights[f"{layer}.weight"].numpy())
        g = np.linalg.norm(gradient[f"{layer}.weight"].numpy())
        expected[layer, "effective"] = float(0.3 / w**2)
        expected[layer, "relative_step"] = float(0.3 * g / w)
    assert read(model) == pytest.approx(expected, rel=1e-6)


def test_ten_times_the_weights_are_a_hundredth_of_the_rate_before_batch_norm() -> None:
    one, ten = (network(lambda c: BatchNorm(c, eps=1e-14)) for _ in range(2))
    with torch.no_grad():
        ten.get_parameter("0.weight").mul_(10)
        ten.get_parameter("0.bias").mul_(10)
    found, other = read(one), read(ten)
    assert other["0", "effective"] * 100 == pytest.approx(found["0", "effective"], rel=1e-12)
    # A tenth of the gradient over ten times the weights: the step in direction is the effective
    # rate's, as it should be.
    assert other["0", "relative_step"] * 100 == pytest.approx(found["0", "relative_step"], rel=1e-6)
    assert other["3", "effective"] == found["3", "effective"]


def test_weights_of_zero_have_no_direction() -> None:
    model = network()
    with torch.no_grad():
        model.get_parameter("9.weight").zero_()
    assert np.isnan(read(model)["9", "effective"])
