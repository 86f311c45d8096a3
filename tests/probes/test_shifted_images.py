"""Accuracies of shifted images against torch's own modes, and against what is always logged."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from bnbench.events import Evaluation
from bnbench.norms.group import GroupNorm
from bnbench.probes import shifted_images
from tests.probes.examples import NORMS, Pictures, by_name, how, network, pictures

PLAIN = pictures(48)
SHIFTED = replace(PLAIN, x=PLAIN.x * 0.2 + 3)


def accuracy(model: nn.Module, shown: Pictures, size: int, *, training: bool) -> float:
    right = 0
    for x, y in shown.batches(size):
        twin = copy.deepcopy(model).eval()
        for name in NORMS if training else ():
            twin.get_submodule(name).train()
        right += int((twin(x).argmax(1) == y).sum())
    return 100 * right / len(shown.y)


@pytest.mark.parametrize("size", [4, 16, 48])
def test_against_torch_s_modes(size: int) -> None:
    model, samples = network(), {"none": PLAIN.sample("test"), "blur.1": SHIFTED.sample("test")}
    found = by_name(shifted_images.read(model, how(size, size), samples))
    for name, shown in (("none", PLAIN), ("blur.1", SHIFTED)):
        running = accuracy(model, shown, size, training=False)
        batch = accuracy(model, shown, size, training=True)
        (population,) = [
            100 * fact.accuracy
            for fact in how(size, size).measure(model, samples[name], [samples[name]])
            if isinstance(fact, Evaluation) and fact.stats == "population"
        ]
        assert found[name, "running"] == pytest.approx(running)
        assert found[name, "batch"] == pytest.approx(batch)
        assert found[name, "recalibrated"] == pytest.approx(population)
        assert found[name, "batch_gain"] == pytest.approx(batch - running)
        assert found[name, "recalibrated_gain"] == pytest.approx(population - running)
        if size == 48:  # all images are one batch
            assert population == pytest.approx(batch)
    lost = found["none", "running"] - found["blur.1", "running"]
    assert found["blur.1", "lost"] == pytest.approx(lost)
    assert lost != 0


def test_without_batch_statistics_all_are_the_same() -> None:
    model = network(lambda channels: GroupNorm(channels, groups=2))
    found = by_name(shifted_images.read(model, how(), {"none": SHIFTED.sample("test")}))
    assert found["none", "batch"] == found["none", "running"] == found["none", "recalibrated"]
    assert not torch.isnan(torch.tensor(list(found.values()))).any()
