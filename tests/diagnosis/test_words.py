"""What is said about a network is true of it, and said once."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import nn

import bnbench
from bnbench.catalogue import FINDINGS
from bnbench.diagnosis import Diagnosis, criteria, findings, words
from bnbench.diagnosis.case import Case
from bnbench.diagnosis.result import Finding, LayerReading, Score, said_once
from bnbench.errors import UsageError
from tests.diagnosis import faults
from tests.diagnosis.patients import loader, network, pictures, steps


def layer(name: str, blame: float | None = None) -> LayerReading:
    return LayerReading(
        name=name,
        kind="BatchNorm2d",
        channels=8,
        tracks=True,
        used=True,
        momentum=0.001,
        eps=1e-5,
        updates=10,
        initial_weight=0.99,
        mean_error=0.5,
        variance_error=0.5,
        blame=blame,
        dead=0,
        under_eps=0,
        alone=False,
    )


def test_the_same_figures_are_said_once() -> None:
    costs = "loss 1.000 under running statistics"
    found = [
        Finding(name=name, harmful=True, evidence=f"{name}; {costs if more else 'else'}", do="")
        for name, more in (("one", False), ("two", True), ("three", True))
    ]
    once = list(said_once(found, costs))
    assert once[:2] == found[:2]
    assert once[2].evidence.startswith("three; the same figures as for two")


@pytest.fixture(scope="module")
def slow() -> Diagnosis:
    return bnbench.diagnose(steps(network(momentum=0.001), 60), loader(count=256), images=256)


def after(slow: Diagnosis) -> str:
    return words.fixed(slow, {"train": Score("train", "running", None, 256, 0.5, 0.8)})


def test_a_momentum_that_will_spoil_it_again_is_said_after_the_fix(slow: Diagnosis) -> None:
    assert "momentum is still 0.001 in 3 layers, as" in after(slow)


@pytest.mark.parametrize(("momentum", "said"), [(None, "None (the"), (0.9, "0.9"), (0.0, "0 in")])
def test_other_momenta_that_spoil_it(slow: Diagnosis, momentum: float | None, said: str) -> None:
    layers = tuple(replace(each, momentum=momentum) for each in slow.layers)
    assert f"momentum is still {said}" in after(replace(slow, layers=layers))


@pytest.mark.parametrize("momentum", [0.1, float("nan")])
def test_a_usual_momentum_and_an_unknown_one_are_not_blamed(
    slow: Diagnosis, momentum: float
) -> None:
    layers = tuple(replace(each, momentum=momentum) for each in slow.layers)
    assert "momentum" not in after(replace(slow, layers=layers))
    assert "momentum" not in after(replace(slow, findings=()))


def test_a_loss_that_is_not_in_nats_has_its_unit() -> None:
    torch.manual_seed(0)
    model = network()
    model[-1] = nn.Linear(512, 1)
    x, *_ = pictures()
    batches = [(part, part.mean((1, 2, 3))[:, None]) for part in torch.split(x[:128], 32)]
    found = bnbench.diagnose(model, batches, images=128)
    assert {each.unit for each in found.readings} == {"of the labels' variance"}
    assert " of the labels' variance under running statistics" in found.findings[-1].evidence
    classes = bnbench.diagnose(network(), loader(count=128), images=128)
    assert {each.unit for each in classes.readings} == {"nats"}
    assert " nats" not in classes.findings[0].evidence


def test_what_population_statistics_win_is_in_the_advice_and_in_the_title() -> None:
    found = faults.pairs()
    small = found.findings[0]
    assert small.do.startswith("recalibrate (--fix); train with 32 or more images")
    assert small.code == FINDINGS["batch-too-small"].code
    title = words.verdict(found)
    assert f"{found.reading('running').figures} under running statistics" in title
    assert f"{found.reading('population').figures} under population statistics" in title
    pair = replace(found.reading("shuffled"), loss=9.0, accuracy=0.125)
    others = [each for each in found.readings if each != found.reading("shuffled")]
    found = replace(found, readings=(pair, *others))
    assert f"{pair.figures} under the statistics of 2 images" in words.verdict(found)
    assert words.headline(found).endswith(" in eval(), 12.5 % right in batches of 2")


def test_a_factor_of_one_is_not_spoken_of() -> None:
    assert replace(layer("1"), variance_error=0.01).errors.endswith("0.50 standard deviations off")
    assert layer("1").errors.endswith(", its variances a factor of 1.6")


def test_a_momentum_of_tensorflow_is_turned_round() -> None:
    (found,) = faults.keras_momentum().findings
    assert "TensorFlow's the old ones; 0.99 there is 0.01 here" in found.do


@pytest.mark.parametrize("theirs", [[0, 1, 2, 3], [0, 0, 0, 3]])
def test_of_other_labels_a_sampler_is_spoken_of(
    theirs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = (Score("eval", "population", 64, 400, loss, 0.5) for loss in (0.4, 0.8))
    own = SimpleNamespace(population=good, shuffled=good)
    there = SimpleNamespace(own=SimpleNamespace(population=bad, shuffled=good), images=None)
    evidence = SimpleNamespace(eval=there, task=None)
    train, ours = SimpleNamespace(own=own), torch.tensor([0, 1, 2, 3])
    case = SimpleNamespace(train=train, evidence=evidence, tracking=(), labels=ours)
    monkeypatch.setattr(findings, "harms", lambda worse, better: worse.loss > better.loss)
    monkeypatch.setattr(criteria, "shifts", lambda *_: [(layer("4"), 0.98, 0.5)])
    monkeypatch.setattr(criteria, "class_labels", lambda *_: torch.tensor(theirs))
    (shift,) = findings._over_images(cast(Case, case))
    assert ("WeightedRandomSampler" in shift.do) == (theirs != ours.tolist())
    assert FINDINGS["distribution-shift"].do in shift.do


def test_no_more_images_are_said_than_there_are() -> None:
    """Small batches: a window of many batches sees the same images again and again."""
    model = steps(network(momentum=0.001), 20)
    found = bnbench.diagnose(model, loader(2, count=256), images=256)
    small = next(each for each in found.findings if each.name == "batch-too-small")
    assert "running statistics average over 1,999 batches" in small.evidence


def test_a_model_that_was_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model = network()
    with pytest.raises(UsageError, match=r"0\.weight was made within torch\.inference_mode\(\)"):
        bnbench.diagnose(model, loader(count=64))


def test_code_in_a_refusal_has_lines() -> None:
    with pytest.raises(UsageError) as raised:
        bnbench.diagnose(nn.BatchNorm1d(3), [(torch.randn(8, 3), ["a"] * 8)] * 4)
    lines = str(raised.value).splitlines()
    assert max(map(len, lines)) <= 80
    assert "    def score(output, batch):  # losses, one for each example" in lines
