"""What is known of how a model came to be, and what it explains."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

import bnbench
from bnbench.config.trust import Trust
from bnbench.diagnosis import Diagnosis
from bnbench.diagnosis.diagnose import examine
from bnbench.diagnosis.evidence import Target
from bnbench.diagnosis.target import find_target, load, read_checkpoint
from bnbench.errors import UsageError
from tests.diagnosis.patients import (
    loader,
    network,
    norms,
    once,
    pictures,
    statistics,
    steps,
    trained,
)

SMALL = 512


def diagnosed(model: nn.Module, **known: Any) -> Diagnosis:
    return bnbench.diagnose(model, loader(count=SMALL), images=SMALL, **known)


def names(found: Diagnosis) -> list[str]:
    return [each.name for each in found.findings]


# --- statistics that were not loaded --------------------------------------------------------------


def loaded(path: Path, content: object, model: nn.Module | None = None) -> Diagnosis:
    """What the command says of a checkpoint."""
    torch.save(content, path)
    target = Target(model or network(seed=5), loader(count=SMALL))
    load(target, read_checkpoint(path))
    return examine(target, None, SMALL).diagnosis


@pytest.mark.parametrize("layers", [("1", "4", "7"), ("4",)])
def test_layers_whose_statistics_a_checkpoint_lacks_are_named(
    layers: tuple[str, ...], tmp_path: Path
) -> None:
    state = trained().state_dict()
    for layer in layers:
        for part in ("running_mean", "running_var", "num_batches_tracked"):
            del state[f"{layer}.{part}"]
    found = loaded(tmp_path / "saved.pt", {f"module.{k}": v for k, v in state.items()})
    assert names(found) == ["missing-buffers"]
    (finding,) = found.findings
    assert (finding.harmful, finding.layers) == (True, layers)
    assert f"saved.pt has no running statistics for {len(layers)} of 3 layers" in finding.evidence


def test_a_checkpoint_that_lacks_a_count_lacks_nothing(tmp_path: Path) -> None:
    state = {k: v for k, v in trained().state_dict().items() if "num_batches" not in k}
    assert loaded(tmp_path / "saved.pt", state).healthy


def spoiled(*layers: str) -> nn.Module:
    model = trained()
    for name in layers:
        norms(model)[name].reset_running_stats()
    return model


def test_layers_that_were_skipped_among_others_are_named() -> None:
    (finding,) = diagnosed(spoiled("4", "7")).findings
    assert (finding.name, finding.layers) == ("missing-buffers", ("4", "7"))
    assert "layer 1 has tracked 150" in finding.evidence


def test_where_no_layer_has_tracked_a_batch_it_is_not_said_that_they_were_skipped() -> None:
    assert names(diagnosed(spoiled("1", "4", "7"))) == ["never-updated"]


def test_new_layers_in_a_trained_network_were_not_skipped() -> None:
    """Their own weights are what a new layer has, too."""
    model = spoiled("4")
    norms(model)["4"].reset_parameters()
    assert "missing-buffers" not in names(diagnosed(model))


# --- averaged weights -----------------------------------------------------------------------------


@once
def average() -> tuple[nn.Module, nn.Module]:
    """Weights half-way between two moments of training, and the model at the later one, whose
    statistics both have."""
    live = steps(trained(), 60, lr=0.2)
    model = copy.deepcopy(live)
    with torch.no_grad():
        for one, other in zip(model.parameters(), trained().parameters(), strict=True):
            one.lerp_(other, 0.5)
    return model, live


def test_averaged_weights_are_told_by_the_live_model() -> None:
    model, live = average()
    before = copy.deepcopy(model.state_dict())
    (finding,) = diagnosed(model, live=live).findings
    assert (finding.name, finding.harmful) == ("averaged-weights", True)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    (alone,) = diagnosed(model).findings
    assert alone.name == "mismatched"
    assert "given as `live`" in alone.do


def test_averaged_weights_are_not_taken_for_stale_statistics() -> None:
    """A momentum of 0.001 in both: of one, the statistics fit the live model; of the other, which
    is the live model itself, they fit nothing."""
    model, live = average()
    stale = steps(network(momentum=0.001), 100)
    for each in (*norms(model).values(), *norms(live).values()):
        each.momentum = 0.001
    assert names(diagnosed(model)) == ["stale"]
    assert names(diagnosed(model, live=live)) == ["averaged-weights"]
    assert names(diagnosed(stale, live=stale)) == ["stale"]


def swa(momentum: float = 0.1) -> AveragedModel:
    """The same average, as torch makes it; its buffers are the later model's."""
    model = AveragedModel(trained())
    for live in (trained(), average()[1]):
        model.update_parameters(live)
    for name, buffer in average()[1].named_buffers():
        model.get_buffer(f"module.{name}").copy_(buffer)
    for each in norms(model).values():
        each.momentum = momentum
    return model


def test_a_model_that_averages_says_so_itself(tmp_path: Path) -> None:
    model = swa()
    (finding,) = diagnosed(model).findings
    assert finding.name == "averaged-weights"
    assert finding.evidence.startswith("AveragedModel averages weights")
    saved = loaded(tmp_path / "swa.pt", model.state_dict())
    assert names(saved) == ["averaged-weights"]
    update_bn(loader(count=SMALL), model)
    assert diagnosed(model).healthy


def test_where_averaged_and_stale_look_alike_both_are_said() -> None:
    (finding,) = diagnosed(swa(0.01)).findings
    assert finding.name == "stale"
    assert "or, as AveragedModel averages weights" in finding.evidence
    assert "give it as live" in finding.evidence


def test_another_model_is_not_the_live_one() -> None:
    with pytest.raises(UsageError, match="live has other parameters"):
        diagnosed(trained(), live=nn.Linear(3, 2))


MADE = """
import torch
from torch import nn

def make():
    model, live = nn.Sequential(nn.BatchNorm1d(3)), nn.Sequential(nn.BatchNorm1d(3))
    batches = [(torch.randn(8, 3), torch.arange(8) % 3) for _ in range(2)]
    return {"model": model, "train": batches, "live": LIVE, "steps": STEPS}
"""


def made(path: Path, live: str, steps: str) -> Target:
    path.write_text(MADE.replace("LIVE", live).replace("STEPS", steps))
    return find_target(f"{path}:make", None, SMALL, Trust(lambda _: None))


def test_the_function_may_return_what_is_known(tmp_path: Path) -> None:
    found = made(tmp_path / "known.py", "live", "7")
    assert (type(found.live), found.steps) == (nn.Sequential, 7)


@pytest.mark.parametrize(("live", "steps"), [("3", "7"), ("live", "'many'")])
def test_what_is_not_known_so_is_refused(live: str, steps: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r" as (live|steps)\b"):
        made(tmp_path / "unknown.py", live, steps)


# --- micro-batches --------------------------------------------------------------------------------


def accumulated(number: int = 16, size: int = 2) -> tuple[nn.Module, torch.optim.Optimizer]:
    """150 steps, each for `number` batches of `size` images."""
    torch.manual_seed(0)
    hidden = [nn.Linear(784, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64)]
    model = nn.Sequential(
        nn.Flatten(), *hidden, nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10)
    ).train()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    x, y, *_ = pictures()
    for k in range(150):
        optimizer.zero_grad()
        for j in range(number):
            part = slice((k * number + j) * size, (k * number + j + 1) * size)
            (F.cross_entropy(model(x[part]), y[part]) / number).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model, optimizer


def test_micro_batches_are_told_by_counts(tmp_path: Path) -> None:
    model, optimizer = accumulated()
    assert names(diagnosed(model)) == ["mismatched"]
    (finding,) = diagnosed(model, steps=150).findings
    assert (finding.name, finding.harmful) == ("micro-batches", True)
    assert "16 batches were tracked for each optimizer step" in finding.evidence
    assert "batches of 64, as the loader gives them, or of 4 where those are split" in (
        finding.evidence
    )
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    assert names(loaded(tmp_path / "saved.pt", content, copy.deepcopy(model))) == ["micro-batches"]


@pytest.mark.parametrize("count", [2400, 970, 10])
def test_other_counts_say_nothing(count: int) -> None:
    """One batch a step; counts that are no multiple; counts from before these steps."""
    model = trained()
    for each in norms(model).values():
        cast(torch.Tensor, each.num_batches_tracked).fill_(2400)
        statistics(each)[1].mul_(9)
    assert names(diagnosed(model, steps=count)) == ["mismatched"]
