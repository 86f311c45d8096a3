"""Blame against a copy of which one layer at a time is put into training mode."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bnbench.events import Gap
from bnbench.norms.group import GroupNorm
from bnbench.probes import gap_by_layer
from bnbench.probes.statistics import Discrepancy
from tests.probes.examples import NORMS, by_name, cross_entropy, how, network, pictures


def loss_with(model: nn.Module, training: tuple[str, ...], size: int) -> float:
    """The loss with these layers in torch's training mode, all others in its eval mode."""
    shown, logits = pictures(16), []
    for x in shown.x.split(size):  # type: ignore[no-untyped-call]
        twin = copy.deepcopy(model).eval()
        for name in training:
            twin.get_submodule(name).train()
        logits.append(twin(x))
    return cross_entropy(torch.cat(logits), shown.y)


@pytest.mark.parametrize("norm_batch_size", [2, 4, 16])
def test_against_the_twin(norm_batch_size: int) -> None:
    model = network()
    sample = pictures(16).sample("val")
    found = by_name(gap_by_layer.read(model, how(norm_batch_size), images=sample))
    running = loss_with(model, (), norm_batch_size)
    expected = {
        (name, "loss"): running - loss_with(model, layers, norm_batch_size)
        for name, layers in (("1", ("1",)), ("4", ("4",)), ("network", NORMS))
    }
    assert found == pytest.approx(expected, rel=1e-9)
    assert min(abs(value) for value in expected.values()) > 1e-4


def test_the_network_s_is_the_gap_that_is_always_logged() -> None:
    model, passes, sample = network(), how(), pictures(16).sample("val")
    found = by_name(gap_by_layer.read(model, passes, images=sample))
    facts = Discrepancy(norm_batch_size=4, pass_size=8).measure(
        model, population=pictures(8, 1).sample(), samples=[sample]
    )
    (gap,) = [fact for fact in facts if isinstance(fact, Gap)]
    assert found["network", "loss"] == pytest.approx(gap.loss, rel=1e-9)


def test_the_layer_whose_statistics_were_spoiled_is_blamed_for_the_whole_gap() -> None:
    """With batch statistics there the network is as good as it was; those before it do not help."""
    shown, found = pictures(32), {}
    for spoiled in NORMS:
        model = network()
        with torch.no_grad():
            for _ in range(80):
                model.train()(shown.x)
            model.get_submodule(spoiled).get_buffer("running_mean").add_(3.0)
        sample = shown.sample("val")
        found = by_name(gap_by_layer.read(model, how(32, 32), images=sample))
        gap = found["network", "loss"]
        assert abs(gap) > 0.05
        assert found[spoiled, "loss"] == pytest.approx(gap, rel=0.05)
    assert abs(found["1", "loss"]) < 1e-3  # last spoiled: "4"


def test_without_batch_statistics_it_is_exactly_zero() -> None:
    model = network(lambda channels: GroupNorm(channels, groups=2))
    found = gap_by_layer.read(model, how(), images=pictures(8).sample("val"))
    assert by_name(found) == {("network", "loss"): 0.0}
