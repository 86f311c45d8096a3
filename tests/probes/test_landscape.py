"""The landscape against losses and central differences at the same points; what scales do to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bnbench.norms.batch import BatchNorm
from bnbench.norms.group import GroupNorm
from bnbench.probes import landscape
from tests.probes.examples import (
    AS_IN_TRAINING,
    STEP,
    Norm,
    batch,
    by_name,
    flat,
    gradient_at,
    loss_at,
    network,
    weights_of,
)

STEPS, RELATIVE = (0.05, 0.5), (0.02, 0.2)


def read(model: nn.Module) -> dict[str, float]:
    facts = landscape.read(
        model, AS_IN_TRAINING, batch=batch(), steps=STEPS, relative_steps=RELATIVE, step=STEP
    )
    return {name: value for (_, name), value in by_name(facts).items()}


def twin(model: nn.Module) -> dict[str, float]:
    data, w = batch(), weights_of(model)
    g = gradient_at(model, w, data)
    size = float(np.linalg.norm(flat(g)))
    losses, changes, betas = [], [], []
    for step in STEPS:
        there = {name: w[name] - step * g[name] for name in w}
        change = float(np.linalg.norm(flat(gradient_at(model, there, data)) - flat(g)))
        losses.append(loss_at(model, there, data))
        changes.append(change)
        betas.append(change / (step * size))
    found = {
        "loss": loss_at(model, w, data),
        "gradient": size,
        "loss_min": min(losses),
        "loss_max": max(losses),
        "change_min": min(changes),
        "change_max": max(changes),
        "beta": max(betas),
        "beta_w2": max(betas) * float(np.sum(flat(w) ** 2)),
    }
    matrices = [name for name in w if w[name].ndim > 1]
    lengths = {name: float(w[name].norm()) for name in matrices}
    losses, changes, betas = [], [], []
    scaled = float(np.sqrt(sum((lengths[n] * float(g[n].norm())) ** 2 for n in matrices)))
    for step in RELATIVE:
        there = w | {n: w[n] - step * lengths[n] * g[n] / g[n].norm() for n in matrices}
        gradient = gradient_at(model, there, data)
        squares = [(lengths[n] * float((gradient[n] - g[n]).norm())) ** 2 for n in matrices]
        losses.append(loss_at(model, there, data))
        changes.append(np.sqrt(sum(squares)) / scaled)
        betas.append(np.sqrt(sum(squares)) / (step * np.sqrt(len(matrices))))
    return found | {
        "relative_loss_min": min(losses),
        "relative_loss_max": max(losses),
        "relative_rise": max(losses) / found["loss"],
        "relative_change_min": float(min(changes)),
        "relative_change_max": float(max(changes)),
        "relative_beta_w2": float(max(betas)),
    }


@pytest.mark.parametrize("make_norm", [BatchNorm, lambda c: GroupNorm(c, groups=2)])
def test_against_the_twin(make_norm: Norm) -> None:
    model = network(make_norm)
    assert read(model) == pytest.approx(twin(model), rel=1e-5)


def scaled(model: nn.Module, factor: float) -> nn.Module:
    with torch.no_grad():
        for name in ("0", "3"):
            for parameter in model.get_submodule(name).parameters():
                parameter.mul_(factor)
    return model


def test_scale_free_measures_do_not_see_the_scale_of_weights_before_batch_norm() -> None:
    """Ten times the weights: a tenth of their gradient, the same function. ε is out of the way."""

    def make_norm(channels: int) -> nn.Module:
        return BatchNorm(channels, eps=1e-14)

    one, ten = network(make_norm), scaled(network(make_norm), 10.0)
    data = batch()
    gradients = [gradient_at(model, weights_of(model), data) for model in (one, ten)]
    for name in ("0.weight", "3.weight"):
        torch.testing.assert_close(
            gradients[1][name] * 10, gradients[0][name], rtol=1e-5, atol=1e-9
        )
    found, other = read(one), read(ten)
    for name in found:
        if name.startswith("relative_") or name == "loss":
            assert other[name] == pytest.approx(found[name], rel=1e-6), name
    assert other["beta_w2"] != pytest.approx(found["beta_w2"], rel=0.1)  # raw: it sees the scale


def test_the_raw_gradient_is_divided_by_exactly_ten() -> None:
    """Of a layer before BatchNorm, as the probe itself reads it: nothing else is trained here."""

    def only_convolutions(factor: float) -> nn.Module:
        model = scaled(network(lambda c: BatchNorm(c, eps=1e-14)), factor)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in ("0.weight", "3.weight"))
        return model

    one, ten = read(only_convolutions(1.0)), read(only_convolutions(10.0))
    assert ten["gradient"] * 10 == pytest.approx(one["gradient"], rel=1e-9)


def test_without_normalization_the_scale_counts() -> None:
    """Negative control of the test above."""
    found, other = (
        read(scaled(network(lambda _: nn.Identity()), factor)) for factor in (1.0, 10.0)
    )
    assert other["relative_beta_w2"] != pytest.approx(found["relative_beta_w2"], rel=0.1)


def test_a_head_of_zeros_leaves_no_direction_and_no_crash() -> None:
    model = network()
    with torch.no_grad():
        for parameter in model.get_submodule("9").parameters():
            parameter.zero_()
    found = read(model)
    assert found["gradient"] > 0
    assert np.isnan(found["relative_change_max"])  # 0/0: no layer has both weights and gradient


def test_a_broken_network_reads_nan() -> None:
    model = network()
    with torch.no_grad():
        model.get_parameter("0.weight").fill_(float("nan"))
    assert all(np.isnan(value) for name, value in read(model).items() if "loss" in name)
