"""`bnbench sweep` as its users type it: what is said, where, and with which exit code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from bnbench import store
from bnbench.store import ExperimentFolder, RunFolder, files
from tests.commands import bnbench
from tests.runs import write_experiment

pytestmark = pytest.mark.usefixtures("own_folder")


TWO_BY_TWO = "setups: {none: {norm: {kind: none}}, bn: {}}\naxes: {optim.lr: [0.01, 0.1]}\n"


def modified(run: RunFolder) -> int:
    """When the run's events were last written to."""
    return (run.path / "metrics.jsonl").stat().st_mtime_ns


def test_sweep_trains_only_what_is_missing() -> None:
    write_experiment(Path("study.yaml"), TWO_BY_TWO)
    said = bnbench("sweep", "study.yaml")
    assert said.code == 0, said.err
    experiment = ExperimentFolder(Path("runs/study"))
    before = {
        run.name: (run.path / "metrics.jsonl").stat().st_mtime_ns for run in experiment.runs()
    }
    assert len(before) == 4
    rows = [line.split() for line in said.out.splitlines() if line.startswith(" none ")]
    # Two convolutions with biases and a head: 40 + 296 + 36 parameters.
    assert rows[0] == ["none", "372", "372", "0"]
    assert [row[1] for row in rows[1:]] == ["0.01", "0.1"]
    assert max(map(len, said.out.splitlines())) <= 80
    said = bnbench("sweep", "study.yaml", "--seeds", "2")
    assert said.code == 0
    after = {run.name: modified(run) for run in experiment.runs()}
    assert len(after) == 8
    assert before.items() <= after.items(), "finished runs are only read"
    text = (experiment.path / "experiment.yaml").read_text()
    assert "seeds: 2" in text


def test_sweep_over_an_axis_needs_no_experiment_file() -> None:
    write_experiment(Path("study.yaml"))
    said = bnbench("sweep", "study.yaml", "--over", "norm.kind=none,batch,group", "--dry-run")
    assert said.code == 0
    _, *cells, counted, total, basis = said.out.splitlines()
    assert [line.split()[:2] for line in cells] == [["1", "new"]] * 3
    assert counted == "3 runs in 3 cells: 3 new"
    assert total.startswith("to train: 3, about ")
    assert basis.startswith("estimated from a few training steps")
    assert not Path("runs").exists()


def test_a_failing_run_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from bnbench.models import recipe
    from bnbench.probes.statistics import batch_norm_layers

    write_experiment(Path("study.yaml"), TWO_BY_TWO)
    whole = recipe.initialize

    def broken(model: nn.Module, *rest: Any) -> None:
        if not batch_norm_layers(model):
            raise ZeroDivisionError("a bug")
        whole(model, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(recipe, "initialize", broken)
        said = bnbench("sweep", "study.yaml", "--quiet")
    assert said.code == 1
    lines = said.err.splitlines()
    assert lines[0] == "2 of 4 runs failed:"
    first = lines[1].split(": ")[0].strip()
    assert first.startswith("none_lr0.01_s00_")
    assert lines[1].startswith(f"  {first}: the run failed: {__file__}:")
    assert lines[1].endswith(": ZeroDivisionError: a bug")
    assert lines[-1] == "try them again with --retry-failed"
    assert "1 failed" in said.out
    again = bnbench("sweep", "study.yaml", "--quiet")
    assert again.code == 1, "a failed run is not tried again by itself"
    assert bnbench("sweep", "study.yaml", "--quiet", "--retry-failed").code == 0


def test_missing_data_is_exit_4_and_stops_the_sweep() -> None:
    Path("study.yaml").write_text(
        "data: {dataset: mnist, root: nowhere, download: false}\nseeds: 2\n"
    )
    said = bnbench("sweep", "study.yaml", "--quiet")
    assert said.code == 4
    assert str(Path("nowhere").resolve()) in said.err
    assert "Traceback" not in said.err


def test_what_failed_for_lack_of_space_is_tried_again_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_experiment(Path("study.yaml"), TWO_BY_TWO)
    commits = []

    def full_at_the_third(folder: RunFolder, content: bytes) -> None:
        commits.append(content)
        if len(commits) == 3:
            with files.translated(folder.path):
                raise OSError(28, os.strerror(28))
        commit(folder, content)

    commit = RunFolder.commit
    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "commit", full_at_the_third)
        said = bnbench("sweep", "study.yaml", "--quiet")
    assert said.code == 4
    assert "run the same command again" in said.err
    first = ExperimentFolder(Path("runs/study")).runs()[0]
    assert store.read(first).state == "failed"
    assert bnbench("sweep", "study.yaml", "--quiet").code == 0
    assert store.read(first).state == "completed"
