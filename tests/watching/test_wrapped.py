"""Networks inside of something: processes of a group, compiled, scripted."""

from __future__ import annotations

import json
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

import bnbench
from tests.processes import completed
from tests.watching.loops import NORMS, data, epoch, network, optimizer

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_ranks_whose_statistics_differ_are_found_and_nobody_waits(tmp_path: Path) -> None:
    """Those that DistributedDataParallel makes equal are; one process alone may be watched."""
    command = [sys.executable, "-m", "tests.watching.two_processes"]
    with ThreadPoolExecutor() as pool:
        ranks = [
            pool.submit(completed, *command, str(rank), tmp_path, cwd=ROOT) for rank in range(2)
        ]
        leads, follows = (json.loads(each.result().stdout.splitlines()[-1]) for each in ranks)
    assert not any(follows.values())
    assert leads["broadcast"] == leads["one is watched"] == []
    for kind in ("not broadcast", "by hand"):
        ((name, layers, evidence),) = leads[kind]
        assert (name, layers) == ("ranks-differ", list(NORMS))
        assert "2 of 2 layers differ between 2 ranks; of layer" in evidence
        assert [each.name for each in (tmp_path / kind).glob("*/metrics.jsonl")] == [
            "metrics.jsonl"
        ]


def watched(model: nn.Module, call: nn.Module) -> tuple[dict[int, float], list[str]]:
    gaps: dict[int, float] = {}
    by = optimizer(model)

    def log(tag: str, value: float, step: int) -> None:
        if tag == "gap/val_loss":
            gaps[step] = value

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with bnbench.watch(call, val=data(), every=4, log=log, folder=None) as watching:
            epoch(call, by)
            call.eval()
            epoch(call, by)
    return gaps, [each.name for each in watching.findings]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["whole", "in place", "a part"])
def test_a_compiled_network(how: str) -> None:
    alone = network()
    expected = watched(alone, alone)
    model = network()
    call: nn.Module = model
    match how:
        case "whole":
            call = cast(nn.Module, torch.compile(model, backend="eager"))
        case "in place":
            model.compile(backend="eager")
        case _:
            model.backbone.compile(backend="eager")
    gaps, names = watched(model, call)
    assert gaps == pytest.approx(expected[0], rel=1e-3, abs=1e-5)
    assert names == expected[1] == ["frozen"]
    state: dict[str, Any] = model.state_dict()
    assert all(torch.allclose(state[k], v, atol=1e-5) for k, v in alone.state_dict().items())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_scripted_network() -> None:
    alone, scripted = network(), cast(nn.Module, torch.jit.script(network()))
    gaps, names = watched(scripted, scripted)
    expected = watched(alone, alone)
    assert gaps == pytest.approx(expected[0], rel=1e-3, abs=1e-5)
    assert names == expected[1] == ["frozen"]
