"""Each fault is planted in a network that has learned, and its name is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bnbench
from bnbench.catalogue import FINDINGS
from bnbench.diagnosis import Diagnosis
from bnbench.diagnosis.case import worst_of
from bnbench.diagnosis.criteria import rank
from tests.diagnosis import causes, faults
from tests.diagnosis.faults import diagnosed
from tests.diagnosis.patients import (
    IMAGES,
    loader,
    network,
    norms,
    pictures,
    recalibrated,
    statistics,
    steps,
    trained,
)
from tests.diagnosis.zoo import healthy

PATIENTS = faults.PATIENTS | causes.PATIENTS
PLANTED_ELSEWHERE = {
    *("reused-layer", "instance-norm-tracks", "overflowed-variance"),
    *("missing-buffers", "averaged-weights", "micro-batches"),
    *("no-longer-frozen", "moved-without-gradients", "ranks-differ"),
}
"""In `test_layers`, `test_user_errors` and `test_history`; the last three, which a loop shows, in
`tests/watching`."""


def test_every_fault_is_planted() -> None:
    assert {*PATIENTS.values(), *PLANTED_ELSEWHERE} == set(FINDINGS)


@pytest.mark.parametrize("patient", PATIENTS, ids=lambda each: each.__name__)
def test_a_planted_fault_is_named_and_no_other(patient: Callable[[], Diagnosis]) -> None:
    found = patient()
    assert [each.name for each in found.findings] == [PATIENTS[patient]]
    (finding,) = found.findings
    assert finding.evidence
    assert finding.do
    assert not found.healthy


@pytest.mark.slow
@pytest.mark.parametrize("control", causes.CONTROLS)
def test_the_same_without_the_fault_is_healthy(control: Callable[[], Diagnosis]) -> None:
    assert control().healthy


def test_nothing_is_wrong_with_a_healthy_network() -> None:
    found = diagnosed(trained())
    assert found.findings == ()
    assert found.healthy
    assert (found.reading("running").accuracy or 0) > 0.8
    assert found.images == {"train": IMAGES, "eval": 600}


def test_a_sorted_loader_is_no_fault_of_a_network_that_does_not_rely_on_it() -> None:
    """Evaluation images are often stored class by class."""
    found = diagnosed(trained(), loader(by_class=True))
    assert found.healthy
    assert any("fewer classes than shuffled ones" in each for each in found.notes)
    assert (found.reading("batch").accuracy or 1) < (found.reading("running").accuracy or 0) - 0.05


def test_the_layer_is_named() -> None:
    model = trained()
    _, variance = statistics(norms(model)["4"])
    variance.mul_(50)
    (finding,) = diagnosed(model).findings
    assert finding.name == "mismatched"
    assert "though they were updated often enough" in finding.evidence
    assert finding.layers == ("4",)
    blame = {each.name: each.blame or 0.0 for each in diagnosed(model).layers}
    assert max(blame, key=lambda name: blame[name]) == "4"


def test_statistics_that_trail_behind_the_weights_are_told_from_those_of_other_ones() -> None:
    """All layers are a little off, in the direction that costs most; else some are far off."""

    def found(times: float) -> tuple[str, str, tuple[str, ...]]:
        model = recalibrated(trained()).eval()
        x, y, *_ = pictures()
        F.cross_entropy(model(x[:IMAGES]), y[:IMAGES]).backward()  # type: ignore[no-untyped-call]
        for each in norms(model).values():
            mean, variance = statistics(each)
            # A larger mean does what a smaller bias does.
            costs = -(each.weight * cast(Tensor, each.bias.grad)).sign()
            mean.add_(0.09 * times * costs.detach() * variance.sqrt())
        (finding,) = diagnosed(model).findings
        assert finding.name == "mismatched"
        return finding.evidence, finding.do, finding.layers

    evidence, do, layers = found(1.0)
    assert "no layer is far off" in evidence
    assert "average over 19 batches" in evidence
    assert "let the learning rate fall" in do
    assert layers == ("1", "4", "7")
    evidence, do, _ = found(4.0)
    assert "do not belong to these weights" in evidence
    assert "learning rate" not in do


def test_layers_that_cost_less_than_nothing_are_ranked_by_how_far_they_are_off() -> None:
    one = diagnosed(trained()).layers[0]
    far, near, costly = (
        replace(one, blame=blame, mean_error=mean, variance_error=0.0)
        for blame, mean in ((-0.04, 2.0), (-0.01, 0.02), (0.3, 0.01))
    )
    assert sorted([costly, far, near], key=rank) == [near, far, costly]
    assert worst_of([near, far, costly]) is far  # of which it is said how far


def test_what_names_a_fault_is_its_own_evidence() -> None:
    """The same running statistics, with other circumstances, have another name."""
    model = steps(network(), 10)
    stale = diagnosed(model).findings[0]
    assert stale.name == "stale"
    assert stale.do == "recalibrate (--fix); train for more steps"  # 0.1 is what it has
    for each in norms(model).values():
        cast(Tensor, each.num_batches_tracked).fill_(1000)
    assert diagnosed(model).findings[0].name == "mismatched"
    for each in norms(model).values():
        each.momentum = 0.001
    stale = diagnosed(model).findings[0]
    assert stale.name == "stale"
    assert "with a larger momentum (0.1)" in stale.do


@pytest.mark.parametrize(("updates", "name"), [(40, "stale"), (200, "mismatched")])
def test_of_a_small_variance_little_of_the_initial_one_is_too_much(updates: int, name: str) -> None:
    """After 40 updates the initial variance weighs 1.5 %, which is a multiple of the layer's; after
    200 it weighs nothing."""
    model = trained()
    with torch.no_grad():
        model.get_parameter("3.weight").mul_(0.05)
    recalibrated(model)
    layer = norms(model)["4"]
    statistics(layer)[1].lerp_(torch.ones(16), 0.9**40)
    cast(Tensor, layer.num_batches_tracked).fill_(updates)
    (finding,) = diagnosed(model).findings
    assert finding.name == name
    assert ("where the initial one is 1" in finding.evidence) == (name == "stale")


def test_a_run_that_was_reset_and_counts_is_told_from_a_new_one() -> None:
    model = trained()
    for each in norms(model).values():
        mean, variance = statistics(each)
        mean.zero_()
        variance.fill_(1.0)
    assert "they were reset, or not loaded" in diagnosed(model).findings[0].evidence


def test_an_old_file_without_counts_is_not_taken_for_a_new_network() -> None:
    model = trained()
    for each in norms(model).values():
        cast(Tensor, each.num_batches_tracked).zero_()
    found = diagnosed(model)
    assert found.healthy
    assert {each.initial_weight for each in found.layers} == {None}


def test_statistics_that_take_nothing_in_and_have_no_count() -> None:
    """Momentum 0 has no window to average over."""
    model = trained()
    for each in norms(model).values():
        each.momentum = 0.0
        cast(Tensor, each.num_batches_tracked).zero_()
        statistics(each)[1].mul_(9)
    (finding,) = diagnosed(model).findings
    assert finding.name == "stale"
    assert "takes in no batch" in finding.evidence


class StaysInEvalMode(nn.BatchNorm2d):
    """A frozen layer, as detectors have them."""

    def train(self, mode: bool = True) -> StaysInEvalMode:
        return super().train(mode and False)


def trained_in_eval_mode(mean: float, variance: float) -> nn.Module:
    """Its BatchNorm layers never saw training mode; the network has learned with them."""
    model = network(norm=StaysInEvalMode)
    for each in norms(model).values():
        statistics(each)[0].fill_(mean)
        statistics(each)[1].fill_(variance)
    return steps(model, 150, lr=0.02)


def test_a_network_that_was_trained_on_its_running_statistics_is_left_alone() -> None:
    found = diagnosed(trained_in_eval_mode(0.1, 0.25))
    assert found.healthy
    assert any("Do not recalibrate" in each for each in found.notes)


def test_a_network_that_was_trained_on_initial_statistics_is_not_to_be_recalibrated() -> None:
    (finding,) = diagnosed(trained_in_eval_mode(0.0, 1.0)).findings
    assert finding.name == "never-updated"
    assert not finding.harmful
    assert "do not recalibrate" in finding.do


def test_without_batch_norm_all_statistics_are_the_same() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    found = diagnosed(plain)
    assert found.layers == ()
    assert found.healthy
    assert (
        len({(each.loss, each.accuracy) for each in found.readings if each.loader == "train"}) == 1
    )
    assert any("no layer depends on batch statistics" in each for each in found.notes)


USUAL = [(seed, (32, 64, 128), 200) for seed in range(9)]
SMALL = [(seed, (8, 16), 600) for seed in (7, 13, 16)]
"""In which 5 to 8 % of the predictions change with the other images, which costs nothing."""


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "sizes", "steps"), [*USUAL, *SMALL])
def test_no_healthy_network_is_called_ill(seed: int, sizes: tuple[int, ...], steps: int) -> None:
    """`scripts/false_alarms` counts them over more."""
    case = healthy(seed, steps=steps, sizes=sizes, images=1024)
    assert bnbench.diagnose(case.model, case.train, case.evaluation, images=1024).healthy


def test_a_risk_does_not_hide_why_running_statistics_are_worse() -> None:
    """Nor is it said that recalibrating does not help, where it does."""
    model, batches = causes.features(causes.SMALL + 1)
    norms(model)["2"].get_buffer("running_var").mul_(30)
    found = causes.diagnosed(model, batches)
    assert found.reading("population").loss < found.reading("running").loss - 0.1
    harmful = {each.name for each in found.findings if each.harmful}
    assert harmful == {"small-last-batch", "mismatched"}
