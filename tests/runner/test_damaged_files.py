"""Checkpoints, events and other files that are damaged: said, and nothing else lost."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bnbench import store
from bnbench.errors import StorageError
from bnbench.runner.execution import execute
from bnbench.runner.settings import Settings
from bnbench.store import ExperimentFolder
from tests.injection import at_batch
from tests.runner.three_commits import CONFIG, folder_of, start, trained
from tests.runs import MANIFEST, evidence, experiment_in, run_state
from tests.stub import build_stub


def go_on_from_the_one_before(experiment: ExperimentFolder) -> dict[str, Any]:
    """Train to the end; the damage must have been said."""
    announced: list[str] = []
    result = start(experiment, announce=announced.append)
    path = result.folder.path / "checkpoint.pt"
    named = "it is renamed to checkpoint.pt.damaged-1"
    assert f"warning: {path} is damaged: using checkpoint.prev.pt; {named}" in announced
    return evidence(result.folder)


@pytest.mark.parametrize("kept", [0, 1, 2_000, -100, -60, -1])
def test_a_truncated_checkpoint_costs_some_steps(
    interrupted: ExperimentFolder, undisturbed: dict[str, Any], kept: int
) -> None:
    path = folder_of(interrupted).path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:kept])
    assert go_on_from_the_one_before(interrupted) == undisturbed


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits_cost_some_steps(
    interrupted: ExperimentFolder, undisturbed: dict[str, Any], seed: int
) -> None:
    flip(folder_of(interrupted).path / "checkpoint.pt", random.Random(seed))
    assert go_on_from_the_one_before(interrupted) == undisturbed


def flip(path: Path, rng: random.Random) -> None:
    """Turn one bit of a file over."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


@pytest.mark.slow
def test_many_flipped_bits_cost_some_steps(
    killed: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    for seed in range(100, 160):
        shutil.copytree(killed, tmp_path / str(seed))
        experiment = experiment_in(tmp_path / str(seed))
        flip(folder_of(experiment).path / "checkpoint.pt", random.Random(seed))
        assert go_on_from_the_one_before(experiment) == undisturbed


def test_two_damaged_checkpoints_are_said_and_restart_is_the_way_out(
    interrupted: ExperimentFolder, undisturbed: dict[str, Any]
) -> None:
    folder = folder_of(interrupted)
    for name in ("checkpoint.pt", "checkpoint.prev.pt"):
        flip(folder.path / name, random.Random(name))
    with pytest.raises(StorageError) as refused:
        start(interrupted)
    assert str(refused.value) == (
        f"{folder.path}: checkpoint.pt and checkpoint.prev.pt damaged, no whole checkpoint left\n"
        "  train the run from its beginning with --restart"
    )
    assert trained(interrupted, restart=True) == undisturbed


# --- damaged events -----------------------------------------------------------------------


def tear(experiment: ExperimentFolder, undisturbed: dict[str, Any], stride: int) -> None:
    """Cut the events at the bytes of their last two lines, and go on each time."""
    folder = folder_of(experiment)
    whole = (folder.path / "metrics.jsonl").read_bytes()
    first = whole[:-1].rindex(b"\n", 0, whole[:-1].rindex(b"\n")) + 1
    assert first >= run_state(folder)["metrics_bytes"], "two lines were written after the commit"
    spare = experiment.path.with_name("spare")
    shutil.copytree(experiment.path, spare)
    for size in (*range(first, len(whole), stride), len(whole) - 1):
        shutil.rmtree(experiment.path)
        shutil.copytree(spare, experiment.path)
        (folder.path / "metrics.jsonl").write_bytes(whole[:size])
        assert trained(experiment) == undisturbed, f"{size} bytes left"


def test_torn_events_after_the_commit_do_not_matter(
    interrupted: ExperimentFolder, undisturbed: dict[str, Any]
) -> None:
    tear(interrupted, undisturbed, 41)


@pytest.mark.slow
def test_events_torn_at_many_bytes_of_the_last_two_lines(
    interrupted: ExperimentFolder, undisturbed: dict[str, Any]
) -> None:
    tear(interrupted, undisturbed, 5)


def remove(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5)


def change(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(20)
        file.write(b"9")


@pytest.mark.parametrize("meddle", [remove, replace, cut, change])
def test_events_that_are_changed_while_the_run_trains_are_a_failure(
    tmp_path: Path, meddle: Callable[[Path], None]
) -> None:
    experiment = experiment_in(tmp_path)
    path = folder_of(experiment).path / "metrics.jsonl"
    build = at_batch(build_stub, 5, lambda: meddle(path))
    with pytest.raises(StorageError, match=r"metrics\.jsonl: .*changed while the run trained"):
        execute(CONFIG, experiment, Settings(), build)
    assert store.read(folder_of(experiment)).state in ("failed", "damaged")


def test_events_that_change_after_a_commit_are_noticed(interrupted: ExperimentFolder) -> None:
    change(folder_of(interrupted).path / "metrics.jsonl")
    with pytest.raises(StorageError, match=r"metrics\.jsonl"):
        start(interrupted)
    assert store.read(folder_of(interrupted)).state == "damaged"


# --- files damaged by hand ----------------------------------------------------------------

DAMAGES = {
    "empty": b"",
    "truncated": None,
    "a list": b"[]\n",
    "a number": b"7\n",
    "binary": bytes(range(256)),
    "too deep": b"[" * 100_000,
}
FILES = ("result.json", "manifest.json", "config.yaml", "metrics.jsonl")


def damaged(path: Path, damage: str) -> None:
    content = DAMAGES[damage]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_file_damaged_by_hand_is_named_and_restart_is_the_way_out(
    interrupted: ExperimentFolder, undisturbed: dict[str, Any], name: str, damage: str
) -> None:
    folder = folder_of(interrupted)
    if name == "result.json":
        (folder.path / name).write_text('{"state": "completed", "steps": 6}\n')
    damaged(folder.path / name, damage)
    with pytest.raises(StorageError) as refused:
        start(interrupted)
    assert str(folder.path / name) in str(refused.value)
    assert "--restart" in str(refused.value)
    if damage == "binary":
        assert trained(interrupted, restart=True) == undisturbed


def test_a_result_without_a_state_is_no_result(interrupted: ExperimentFolder) -> None:
    folder = folder_of(interrupted)
    (folder.path / "result.json").write_text('{"state": "finished"}')
    with pytest.raises(StorageError, match=r"result\.json: not a result"):
        folder.result()


def test_a_removed_result_is_made_again_from_the_checkpoint(
    interrupted: ExperimentFolder, undisturbed: dict[str, Any]
) -> None:
    assert trained(interrupted) == undisturbed
    folder = folder_of(interrupted)
    (folder.path / "result.json").unlink()
    (folder.path / "manifest.json").unlink()
    assert trained(interrupted) == undisturbed


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_error_prevents_nothing(interrupted: ExperimentFolder, damage: str) -> None:
    folder = folder_of(interrupted)
    folder.fail({"message": "broken"})
    damaged(folder.path / "error.json", damage)
    assert store.read(folder).state == "damaged"
    with pytest.raises(StorageError, match=r"error\.json: not .*\n  remove the file, or"):
        folder.error()
    with folder.hold():
        folder.begin(config_text="", manifest=MANIFEST)
    assert folder.error() is None
