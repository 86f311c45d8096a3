"""`bnbench train` as its users type it: what is said, where, and with which exit code."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from bnbench import store
from bnbench.store import ExperimentFolder
from tests.commands import Said, bnbench
from tests.runs import result_of, write_experiment

pytestmark = pytest.mark.usefixtures("own_folder")


def test_train_and_train_again() -> None:
    write_experiment(Path("study.yaml"))
    said = bnbench("train", "study.yaml")
    assert said.code == 0, said.err
    (run,) = ExperimentFolder(Path("runs/study")).runs()
    lines = said.out.splitlines()
    assert lines[0].startswith(f"{run.path}: completed: 16 steps, 128 images in ")
    assert lines[-1] == "curves: bnbench tensorboard runs/study"
    assert max(map(len, lines[1:])) <= 80
    assert [line.split(": ")[1].split("  ")[0] for line in said.err.splitlines()] == [
        "step 8/16",
        "step 16/16",
    ]
    metrics = (run.path / "metrics.jsonl").read_bytes()
    again = bnbench("train", "study.yaml")
    assert again.code == 0
    assert again.out.startswith(f"{run.path}: was already there: completed: 16 steps")
    assert (run.path / "metrics.jsonl").read_bytes() == metrics


def test_a_run_can_be_trained_from_its_own_config_file() -> None:
    write_experiment(Path("study.yaml"))
    assert bnbench("train", "study.yaml", "--seed", "3").code == 0
    (run,) = ExperimentFolder(Path("runs/study")).runs()
    said = bnbench("train", str(run.path / "config.yaml"))
    assert "was already there" in said.out
    # Elsewhere the same file makes the same run.
    said = bnbench("train", str(run.path / "config.yaml"), "--runs-dir", "other", "--quiet")
    assert said.err == ""
    (other,) = ExperimentFolder(Path("other/study")).runs()
    assert other.name == run.name


def test_a_divergence_is_a_result() -> None:
    write_experiment(Path("study.yaml"), "norm: {kind: none}\noptim: {lr: 1.0e+6}\n")
    said = bnbench("train", "study.yaml")
    assert said.code == 0
    assert ": diverged at step " in said.out
    assert "note: the learning rate rises for 1 step of 16 (optim.warmup: 0.05)" in said.err
    (run,) = ExperimentFolder(Path("runs/study")).runs()
    result = result_of(run)
    assert result["state"] == "diverged"
    assert result["reason"] in ("loss is not finite", "loss above 10·ln(classes)")
    assert "test" not in result
    assert store.read(run).state == "diverged"


def test_restart_throws_the_earlier_attempt_away() -> None:
    write_experiment(Path("study.yaml"))
    bnbench("train", "study.yaml")
    (run,) = ExperimentFolder(Path("runs/study")).runs()
    (run.path / "result.json").write_text("{}")
    said = bnbench("train", "study.yaml", "--restart")
    assert said.code == 0
    assert "was already there" not in said.out
    assert (run.manifest() or {})["attempts"] == 1


def test_an_edited_config_in_a_run_folder_is_refused_with_the_difference() -> None:
    write_experiment(Path("study.yaml"))
    bnbench("train", "study.yaml")
    (run,) = ExperimentFolder(Path("runs/study")).runs()
    path = run.path / "config.yaml"
    path.write_text(path.read_text().replace("lr: 0.1", "lr: 0.2"))
    said = bnbench("train", "study.yaml")
    assert said == Said(
        4,
        "",
        f"{path} is not the configuration that the folder is named after:\n"
        "  optim.lr: 0.2 in the folder, 0.1 given\n"
        "  undo the change, or train the run again with --restart\n",
    )


def test_a_run_begun_with_other_threads_is_refused_unless_asked() -> None:
    write_experiment(Path("study.yaml"))
    bnbench("train", "study.yaml", "--set", "compute.threads=1")
    (run,) = ExperimentFolder(Path("runs/study")).runs()
    (run.path / "result.json").unlink()
    said = bnbench("train", "study.yaml", "--set", "compute.threads=2")
    assert said.code == 4
    assert said.err == (
        f"{run.name} was begun under another threads: 1 then, 2 now\n"
        "  its numbers would not be those of one machine: start again with --restart, or go on "
        "with --accept-changes, which marks the run\n"
    )
    assert bnbench("train", "study.yaml", "--quiet").code == 0, "auto keeps the recorded threads"
    (run.path / "result.json").unlink()
    said = bnbench("train", "study.yaml", "--set", "compute.threads=2", "--accept-changes")
    assert said.code == 0
    threads = [each["threads"] for each in (run.manifest() or {})["fingerprints"]]
    assert threads == [1, 2]


def test_a_full_disk_is_exit_4_in_at_most_three_lines(monkeypatch: pytest.MonkeyPatch) -> None:

    write_experiment(Path("study.yaml"))

    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("os.fsync", full)
    said = bnbench("train", "study.yaml", "--quiet")
    assert said.code == 4
    assert "no space left on the disk" in said.err
    assert len(said.err.splitlines()) <= 3
    monkeypatch.undo()


def test_the_unexpected_is_kept_in_error_json(monkeypatch: pytest.MonkeyPatch) -> None:
    from bnbench import train

    write_experiment(Path("study.yaml"))

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(train, "_step", broken)
        said = bnbench("train", "study.yaml", "--quiet")
    (run,) = ExperimentFolder(Path("runs/study")).runs()
    assert (said.code, said.out) == (1, "")
    assert re.fullmatch(
        rf"the run failed: {re.escape(__file__)}:\d+: ZeroDivisionError: a bug\n"
        rf"  the traceback is in {run.path / 'error.json'}\n",
        said.err,
    )
    assert "in broken" in (run.error() or {})["traceback"]
    assert store.read(run).state == "failed"
    assert bnbench("train", "study.yaml", "--quiet").code == 0
    assert store.read(run).state == "completed"
    assert run.error() is None
