"""Gradient shift against central differences and the optimizers' formulas by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnbench.norms.batch import BatchNorm
from bnbench.norms.group import GroupNorm
from bnbench.norms.noisy import NoisyBatchNorm
from bnbench.probes import gradient_shift
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

BLOCKS = (
    ("0.weight", "0.bias", "1.weight", "1.bias"),
    ("3.weight", "3.bias", "4.weight", "4.bias"),
)
SHIFTED = {"3": ("3.weight", BLOCKS[0]), "9": ("9.weight", BLOCKS[0] + BLOCKS[1])}
LR = 0.3


@pytest.mark.parametrize(
    ("make_norm", "momentum"),
    [(BatchNorm, 0.0), (NoisyBatchNorm, 0.9), (lambda c: GroupNorm(c, groups=2), 0.9)],
)
def test_against_the_twin(make_norm: Norm, momentum: float) -> None:
    model, data = network(make_norm), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.7, momentum=momentum)
    weights, gradient = weights_of(model), gradient_at(model, weights_of(model), data)
    buffers = {name: torch.zeros_like(each) for name, each in weights.items()}
    if momentum:  # a step before: the buffers are not empty
        for name, parameter in model.named_parameters():
            buffers[name] = torch.cos(torch.arange(parameter.numel()).double()).view_as(parameter)
            optimizer.state[parameter]["momentum_buffer"] = buffers[name].clone()
    after = {
        name: weights[name] - LR * (momentum * buffers[name] + gradient[name]) for name in weights
    }
    facts = gradient_shift.read(model, optimizer, AS_IN_TRAINING, batch=data, lr=LR, step=STEP)
    expected: dict[tuple[str, str], float] = {}
    for layer, (name, moved) in SHIFTED.items():
        place = weights | {each: after[each] for each in moved if each in after}
        g = gradient[name].numpy().reshape(-1)
        s = gradient_at(model, place, data)[name].numpy().reshape(-1)
        expected[layer, "shift"] = float(np.linalg.norm(g - s))
        expected[layer, "relative"] = float(np.linalg.norm(g - s) / np.linalg.norm(g))
        expected[layer, "cos"] = float(g @ s / np.linalg.norm(g) / np.linalg.norm(s))
    assert by_name(facts) == pytest.approx(expected, rel=1e-5)
    assert expected["9", "relative"] > 0.01


def test_the_optimizer_is_as_before() -> None:
    for make in (torch.optim.SGD, torch.optim.AdamW):
        model = network()
        optimizer = make(model.parameters(), lr=0.7)
        model(batch()[0]).sum().backward()
        optimizer.step()
        before = copy.deepcopy(optimizer.state_dict())
        gradient_shift.read(model, optimizer, AS_IN_TRAINING, batch=batch(), lr=LR, step=STEP)
        after = optimizer.state_dict()
        assert after["param_groups"] == before["param_groups"]
        for key, state in before["state"].items():
            for name, value in state.items():
                kept = after["state"][key][name]
                assert torch.equal(kept, value) if isinstance(value, Tensor) else kept == value


def test_without_a_step_nothing_shifts() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.7)
    facts = gradient_shift.read(model, optimizer, AS_IN_TRAINING, batch=batch(), lr=0.0, step=STEP)
    found = by_name(facts)
    for layer in SHIFTED:
        assert found[layer, "shift"] == found[layer, "relative"] == 0.0
        assert found[layer, "cos"] == pytest.approx(1.0)


def test_layers_that_are_not_trained_are_left_out() -> None:
    model = network()
    nn.Module.requires_grad_(model.get_submodule("3"), False)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.7)
    facts = gradient_shift.read(model, optimizer, AS_IN_TRAINING, batch=batch(), lr=LR, step=STEP)
    assert {fact.layer for fact in facts} == {"9"}
