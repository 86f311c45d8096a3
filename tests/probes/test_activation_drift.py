"""Drift and percentiles layer by layer with NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnbench.norms.batch import BatchNorm, GhostBatchNorm
from bnbench.norms.group import GroupNorm
from bnbench.norms.noisy import NoisyBatchNorm
from bnbench.probes import activation_drift
from bnbench.probes.stand_in import AsInTraining
from tests.probes.examples import (
    AS_IN_TRAINING,
    NORMS,
    STEP,
    Norm,
    by_name,
    network,
    pictures,
    trainer,
)

SHOWN = pictures(24)
WATCHED = ("0", "1", "3", "4")  # conv, norm, conv, norm


def values(model: nn.Sequential) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    """What each watched layer puts out, (C, all values), batch by batch of 8 as in training."""
    found: dict[str, list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]] = {}
    for x in SHOWN.x.split(8):  # type: ignore[no-untyped-call]
        twin = trainer(model)
        torch.manual_seed(7)  # the noise of step 7
        for name, module in twin.named_children():
            x = module(x)
            if name in WATCHED:
                found.setdefault(name, []).append(x.detach().numpy())
    return {
        name: np.concatenate(parts).swapaxes(0, 1).reshape(4, -1) for name, parts in found.items()
    }


def moved(model: nn.Sequential) -> nn.Sequential:
    """The same network some steps later."""
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.add_(
                0.1 * torch.sin(torch.arange(parameter.numel()) + number).view_as(parameter)
            )
    return model


def read(model: nn.Module, memory: dict[str, Tensor]) -> dict[tuple[str, str], float]:
    facts = activation_drift.read(
        model, AS_IN_TRAINING, images=SHOWN.sample(), batch_size=8, memory=memory, step=STEP
    )
    return by_name(facts)


@pytest.mark.parametrize(
    "make_norm",
    [
        BatchNorm,
        lambda c: GhostBatchNorm(c, batch_size=4),
        NoisyBatchNorm,
        lambda c: GroupNorm(c, groups=2),
    ],
)
def test_against_the_twin(make_norm: Norm) -> None:
    model, memory = network(make_norm), dict[str, Tensor]()
    before = values(model)
    first = read(model, memory)
    assert {name for _, name in first} == {"p15", "p50", "p85"}
    after = values(moved(model))
    found = read(model, memory)
    expected = {}
    for name in WATCHED:
        mean, std = before[name].mean(1), before[name].std(1)
        shift = np.abs(after[name].mean(1) - mean) / std
        expected[name, "mean_drift"] = float(shift.mean())
        ratio = np.abs(np.log(after[name].std(1) / std))
        expected[name, "std_drift"] = float(ratio.mean())
    for name in NORMS:  # which feed the activations
        for percent in (15, 50, 85):
            expected[name, f"p{percent}"] = float(np.percentile(after[name][2], percent))
    assert found == pytest.approx(expected, rel=1e-5)
    assert found["0", "mean_drift"] > 0.01


def test_percentiles_are_of_what_an_activation_is_given() -> None:
    """Norm after the activation: the convolution feeds it. Activations inside of norms, or
    functions that no module stands for: the raw output, too."""

    class Functional(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x)

    for activation, order in ((nn.Tanh, (0, 2, 1)), (Functional, (0, 1, 2))):
        layers = [nn.Conv2d(1, 4, 3), BatchNorm(4), activation()]
        model = nn.Sequential(*(layers[i] for i in order), nn.Flatten(), nn.Linear(64, 3)).double()
        how = AsInTraining(normalization=(str(order.index(1)),))
        facts = activation_drift.read(
            model, how, images=SHOWN.sample(), batch_size=8, memory={}, step=STEP
        )
        assert {fact.layer for fact in facts} == {"0"}


def test_noise_moves_the_distributions_that_batch_norm_holds() -> None:
    """The opponent: with the same weights, only the step differs."""
    drifts = {}
    for make_norm in (BatchNorm, NoisyBatchNorm):
        memory: dict[str, Tensor] = {}
        model = network(make_norm)
        for step in (1, 2):
            facts = activation_drift.read(
                model,
                AS_IN_TRAINING,
                images=SHOWN.sample(),
                batch_size=8,
                memory=memory,
                step=step,
            )
        drifts[make_norm] = {f.layer: f.value for f in facts if f.name == "mean_drift"}
    assert drifts[BatchNorm] == dict.fromkeys(WATCHED, 0.0)
    assert drifts[NoisyBatchNorm]["1"] > 0.05


def test_a_memory_of_other_layers_is_no_reading_before() -> None:
    memory = {"0": torch.zeros(2, 9), "elsewhere": torch.zeros(2, 4)}
    assert {name for _, name in read(network(), memory)} == {"p15", "p50", "p85"}
    assert memory["0"].shape == (2, 4)
