"""Drift and percentiles layer by layer with NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnbench.events import Reading
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
    gradient_at,
    network,
    pictures,
    trainer,
    weights_of,
)

SHOWN = pictures(24)
WATCHED = ("0", "1", "3", "4")  # conv, norm, conv, norm
FIRST = {"p15", "p50", "p85", "step_mean_drift", "step_std_drift"}


LR = 0.3

Values = dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]


def values(model: nn.Sequential, step: int = STEP) -> Values:
    """What each watched layer puts out, (C, all values), batch by batch of 8 as in training."""
    found: dict[str, list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]] = {}
    for x in SHOWN.x.split(8):  # type: ignore[no-untyped-call]
        twin = trainer(model)
        torch.manual_seed(step)
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


def after_a_step(model: nn.Sequential) -> nn.Sequential:
    """The network after a step with momentum along the gradient of the first batch, the first step
    of its optimizer."""
    twin = trainer(model)
    gradient = gradient_at(model, weights_of(model), (SHOWN.x[:8], SHOWN.y[:8]))
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.sub_(LR * gradient[name])
    assert isinstance(twin, nn.Sequential)
    return twin


def drift(before: Values, after: Values, prefix: str = "") -> dict[tuple[str, str], float]:
    found = {}
    for name in WATCHED:
        mean, std = before[name].mean(1), before[name].std(1)
        shift = np.abs(after[name].mean(1) - mean) / std
        found[name, f"{prefix}mean_drift"] = float(shift.mean())
        ratio = np.abs(np.log(after[name].std(1) / std))
        found[name, f"{prefix}std_drift"] = float(ratio.mean())
    return found


def facts_of(
    model: nn.Module,
    memory: dict[str, Tensor],
    step: int = STEP,
    lr: float = LR,
    how: AsInTraining = AS_IN_TRAINING,
) -> list[Reading]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.7, momentum=0.9)
    return activation_drift.read(
        model, optimizer, how, images=SHOWN.sample(), batch_size=8, lr=lr, memory=memory, step=step
    )


def read(model: nn.Module, memory: dict[str, Tensor]) -> dict[tuple[str, str], float]:
    return by_name(facts_of(model, memory))


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
    assert {name for _, name in first} == FIRST
    after = values(moved(model))
    found = read(model, memory)
    next_step = values(after_a_step(model), STEP + 1)
    expected = drift(before, after) | drift(after, next_step, "step_")
    for name in NORMS:  # which feed the activations
        for percent in (15, 50, 85):
            expected[name, f"p{percent}"] = float(np.percentile(after[name][2], percent))
    assert found == pytest.approx(expected, rel=1e-5, abs=2e-7)  # outputs are read in fp32
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
        facts = facts_of(model, {}, how=how)
        assert {fact.layer for fact in facts if fact.name == "p50"} == {"0"}


def test_noise_moves_the_distributions_that_batch_norm_holds() -> None:
    """The opponent: with the same weights, only the step differs."""
    drifts = {}
    for make_norm in (BatchNorm, NoisyBatchNorm):
        memory: dict[str, Tensor] = {}
        model = network(make_norm)
        for step in (1, 2):
            facts = facts_of(model, memory, step, lr=0.0)
        for name in ("mean_drift", "step_mean_drift"):
            drifts[make_norm, name] = {f.layer: f.value for f in facts if f.name == name}
    for name in ("mean_drift", "step_mean_drift"):
        assert drifts[BatchNorm, name] == dict.fromkeys(WATCHED, 0.0)
        assert drifts[NoisyBatchNorm, name]["1"] > 0.05


def test_after_batch_norm_the_drift_of_means_is_that_of_its_shift_over_its_scale() -> None:
    """Whatever the layers before it do: moved() moves their weights as well."""
    model, memory = network(lambda c: BatchNorm(c, eps=1e-14)), dict[str, Tensor]()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    read(model, memory)
    found = read(moved(model), memory)
    for name in NORMS:
        shift = model.state_dict()[f"{name}.bias"] - before[f"{name}.bias"]
        expected = (shift / before[f"{name}.weight"]).abs().mean().item()
        assert found[name, "mean_drift"] == pytest.approx(expected, rel=1e-4)


def test_a_memory_of_other_layers_is_no_reading_before() -> None:
    memory = {"0": torch.zeros(2, 9), "elsewhere": torch.zeros(2, 4)}
    assert {name for _, name in read(network(), memory)} == FIRST
    assert memory["0"].shape == (2, 4)
