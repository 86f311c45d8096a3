"""Histograms against counting by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bnbench.probes import histograms
from bnbench.probes.histograms import BINS, histogram
from tests.probes.examples import AS_IN_TRAINING, NORMS, STEP, batch, network, trainer


def test_bins_are_those_of_counting_by_hand() -> None:
    values = torch.tensor([[0.0, 3.0, 1.45], [1.55, 0.1, 0.05]])
    found = histogram("layer", "weight", values)
    assert found is not None
    assert (found.low, found.high, len(found.counts)) == (0.0, 3.0, BINS)
    expected = [0] * BINS
    for value in values.flatten().tolist():  # bins of a tenth; the last one holds its right edge
        expected[min(BINS - 1, int(value / 0.1 + 1e-9))] += 1
    assert list(found.counts) == expected


def test_equal_values_and_values_that_are_not_finite() -> None:
    found = histogram("layer", "weight", torch.full((7,), 2.0))
    assert found is not None
    assert found.low < 2.0 < found.high
    assert sum(found.counts) == 7
    found = histogram("layer", "input", torch.tensor([1.0, torch.inf, torch.nan, 2.0]))
    assert found is not None
    assert (found.low, found.high, sum(found.counts)) == (1.0, 2.0, 2)
    assert histogram("layer", "input", torch.tensor([torch.nan])) is None


def test_state_of_norms_and_inputs_of_activations() -> None:
    model = network()
    found = {
        (fact.layer, fact.name): fact
        for fact in histograms.read(model, AS_IN_TRAINING, batch=batch(), step=STEP)
    }
    state = ("weight", "bias", "running_mean", "running_var")
    assert set(found) == {(layer, name) for layer in NORMS for name in state} | {
        ("2", "input"),
        ("5", "input"),
    }
    for layer in NORMS:
        values = model.get_submodule(layer).state_dict()["running_mean"]
        fact = found[layer, "running_mean"]
        assert (fact.low, fact.high) == (values.min().item(), values.max().item())
        assert sum(fact.counts) == values.numel()
    # The twin: torch's own training mode, the first three layers one by one.
    twin = trainer(model)
    assert isinstance(twin, nn.Sequential)
    into = twin[1](twin[0](batch()[0])).detach()
    assert found["2", "input"].low == pytest.approx(into.min().item(), rel=1e-9)
    assert found["2", "input"].high == pytest.approx(into.max().item(), rel=1e-9)
    assert sum(found["2", "input"].counts) == into.numel()
