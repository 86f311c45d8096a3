"""`bnbench diagnose` on runs of ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bnbench.store import RunFolder
from tests.commands import bnbench
from tests.diagnosis.patients import trained
from tests.runs import result_of, write_experiment

pytestmark = pytest.mark.usefixtures("own_folder")


def run_of(more: str = "") -> RunFolder:
    write_experiment(Path("study.yaml"), "compute: {threads: 1}\n" + more)
    assert bnbench("train", "study.yaml", "--quiet").code == 0
    (path,) = (each for each in Path("runs/study").iterdir() if (each / "config.yaml").exists())
    return RunFolder(path)


def test_a_run_of_ours(tmp_path: Path) -> None:
    run = run_of()
    said = bnbench("diagnose", str(run.path), "--fix", "fixed.pt", "--json")
    assert said.code == 0, said.err
    record = json.loads(said.out)
    assert record["batch_size"] == 8
    assert record["images"] == {"train": 64, "eval": 32}
    assert [each["updates"] for each in record["layers"]] == [16, 16]
    assert {each["initial_weight"] for each in record["layers"]} == {0.8**16}
    # What the run itself has measured on its validation images, with the same weights:
    result = result_of(run)
    running = next(
        each
        for each in record["readings"]
        if each["loader"] == "eval" and each["statistics"] == "running"
    )
    assert running["loss"] == pytest.approx(result["val"]["running"]["loss"], abs=1e-4)
    fixed = torch.load(tmp_path / "fixed.pt", weights_only=True)
    assert fixed["run"]["step"] == 16
    assert "note: state after step 16 of 16" in said.err


def test_a_run_with_ghost_batches_uses_them() -> None:
    run = run_of("norm: {batch_size: 4}\n")
    record = json.loads(bnbench("diagnose", str(run.path), "--json").out)
    assert record["batch_size"] == 4


def test_a_run_without_batch_norm_is_the_control() -> None:
    run = run_of("norm: {kind: group}\n")
    said = bnbench("diagnose", str(run.path), "--json")
    assert said.code == 0
    record = json.loads(said.out)
    assert record["healthy"]
    assert len({each["loss"] for each in record["readings"] if each["loader"] == "train"}) == 1


def test_a_run_that_has_only_begun() -> None:
    run = run_of()
    for name in ("checkpoint.pt", "result.json"):
        (run.path / name).unlink()
    said = bnbench("diagnose", str(run.path))
    assert said.code == 4
    assert "has no checkpoint yet" in said.err
    said = bnbench("diagnose", "runs/study")
    assert said.code == 2
    assert "is not the folder of a run" in said.err


def test_a_run_has_its_own_checkpoint() -> None:
    run = run_of()
    torch.save(trained().state_dict(), "other.pt")
    said = bnbench("diagnose", str(run.path), "--checkpoint", "other.pt")
    assert said.code == 2
    assert "already has a checkpoint" in said.err
