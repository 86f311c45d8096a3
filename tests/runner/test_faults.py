"""A disk that fails, views that fail, places that cannot be: sentences, and nothing lost."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from bnbench import store
from bnbench.assemble import build_run
from bnbench.config import identity
from bnbench.errors import StorageError
from bnbench.runner.execution import Build, execute
from bnbench.runner.settings import Settings
from bnbench.store import Appender, ExperimentFolder
from tests.injection import Disk, disk
from tests.processes import completed
from tests.runner.three_commits import CONFIG, folder_of, start, trained
from tests.runs import evidence, experiment_in
from tests.stub import build_stub

# --- every file operation fails -----------------------------------------------------------


HARMLESS = (
    "write lock",
    "truncate lock",
    "open lock",
    "unlink checkpoint.prev.pt",
    "unlink events",
    "os.open manifest.json",
    "os.open result.json",
)
"""Who holds a run, space that a finished one takes up, and what a view in TensorBoard says of other
runs: no reason to fail."""


def harmless(faulty: Disk) -> bool:
    """Whether a run can do without this operation; so can its lock without looking at the folder
    before it opens the file."""
    locked = any(each.endswith(" lock") for each in faulty.seen[: faulty.number])
    return faulty.operation in HARMLESS or (faulty.operation.startswith("os.open ") and not locked)


def require_sentence(error: StorageError, below: Path) -> None:
    said = str(error)
    assert error.exit_code == 4
    assert len(said.splitlines()) <= 3, said
    assert str(below) in said
    assert "Error" not in said.replace("Input/output error", ""), said


def fail(
    experiment: ExperimentFolder, number: int, error: int, build: Build = build_stub
) -> str | None:
    """Train on a disk of which one operation fails; which one that was, if there are so many."""
    announced: list[str] = []
    below = experiment.path.parent
    raised = False
    with disk(below, number, error, lasting=error != errno.EIO) as faulty:
        try:
            execute(CONFIG, experiment, Settings(announce=announced.append), build)
        except StorageError as failure:
            raised = True
            require_sentence(failure, below)
    if not faulty.reached:
        return None
    left_out = [line for line in announced if "a view of the run failed and is left out" in line]
    assert raised or left_out or harmless(faulty), f"{faulty.operation}: not a word"
    folder = folder_of(experiment)
    # What was committed stays readable.
    assert store.read(folder).state in ("new", "interrupted", "failed", "completed")
    list(folder.records())
    folder.checkpoint()
    return faulty.operation


TOUCHED = {"write metrics.jsonl", "write checkpoint.pt.tmp", "replace checkpoint.pt", "fsync fsync"}
TOUCHED |= {"replace checkpoint.pt.tmp", "replace result.json.tmp", "os.open lock"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "errors", [[errno.ENOSPC, errno.EACCES, errno.EROFS], [errno.EIO]], ids=["stays", "passes"]
)
@pytest.mark.parametrize("again", [False, True])
def test_every_file_operation_fails(
    tmp_path: Path, killed: Path, undisturbed: dict[str, Any], errors: list[int], again: bool
) -> None:
    """One operation after the other, until there are no more. A disk that is full, closed or
    read-only stays so, and these take turns; an input/output error passes."""
    failed: set[str] = set()
    for number in range(1, 1_000):
        path = tmp_path / str(number)
        if again:
            shutil.copytree(killed, path)
        operation = fail(experiment_in(path), number, errors[number % len(errors)])
        if operation is None:
            break
        failed.add(operation)
        assert trained(experiment_in(path)) == undisturbed, f"operation {number}: {operation}"
        shutil.rmtree(path)
    assert failed >= TOUCHED


@pytest.mark.slow
def test_every_seventh_file_operation_of_a_real_training_fails(tmp_path: Path) -> None:
    whole = evidence(execute(CONFIG, experiment_in(tmp_path / "whole"), Settings()).folder)
    kinds = [errno.ENOSPC, errno.EACCES, errno.EIO, errno.EROFS]
    failed = 0
    for number in range(1, 1_000, 7):
        experiment = experiment_in(tmp_path / str(number))
        if fail(experiment, number, kinds[number % 4], build_run) is None:
            break
        failed += 1
        assert evidence(execute(CONFIG, experiment, Settings()).folder) == whole, number
    assert failed > 10


# --- views that fail ----------------------------------------------------------------------


@pytest.mark.parametrize("call", [1, 2, 3, 6, 9])
def test_a_failing_tensorboard_never_stops_training(
    tmp_path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    calls: list[None] = []
    append = Appender.append

    def broken(file: Appender, content: bytes) -> None:
        if "tfevents" in file.path.name:
            calls.append(None)
            if len(calls) >= call:
                raise OSError(errno.ENOSPC, "No space left on device")
        append(file, content)

    monkeypatch.setattr(Appender, "append", broken)
    announced: list[str] = []
    result = start(experiment_in(tmp_path), announce=announced.append)
    assert evidence(result.folder) == undisturbed
    assert [line for line in announced if "a view of the run failed" in line] == announced
    assert len(announced) == 1


# --- places -------------------------------------------------------------------------------


def refused_at(path: Path) -> str:
    with pytest.raises(StorageError) as refused:
        start(ExperimentFolder(path))
    require_sentence(refused.value, path.parent)
    return str(refused.value)


def test_places_that_cannot_be_used_are_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "else")
    assert "--runs-dir" in refused_at(tmp_path / "file")
    assert "--runs-dir" in refused_at(tmp_path / "file" / "inside")
    assert "--runs-dir" in refused_at(tmp_path / "loop")
    assert "--runs-dir" in refused_at(tmp_path / ("x" * 300))
    name = identity.run_id(CONFIG)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_text("")
    assert name in refused_at(tmp_path / "a")
    (tmp_path / "b" / name / "lock").mkdir(parents=True)
    assert "lock" in refused_at(tmp_path / "b")


def test_a_folder_without_permission_is_said() -> None:
    """As root, who may write everywhere, for the moment as nobody."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        closed = Path(place) / "closed"
        closed.mkdir(mode=0o555)
        os.seteuid(65534 if root else os.geteuid())
        try:
            said = refused_at(closed / "small")
        finally:
            os.seteuid(0 if root else os.geteuid())
    assert "not writable" in said


def test_names_at_their_limits_are_trained(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    for setup in ("x" * 100, "ÄÖ Größe 🙂", "..", "שלום", "a/b\\c"):
        config = CONFIG.model_copy(update={"setup": setup})
        assert len(identity.run_id(config)) <= 64
        place = ExperimentFolder(tmp_path / ("n" * 64))
        result = execute(config, place, Settings(restart=True), build_stub)
        assert result.folder.path.parent == tmp_path / ("n" * 64)
        assert evidence(result.folder) == undisturbed


# --- simultaneous starts ------------------------------------------------------------------

START = """\
import os, sys, time
from pathlib import Path
from bnbench.errors import HeldError
from bnbench.runner.execution import execute
from bnbench.runner.settings import Settings
from tests.injection import at_batch
from tests.runner.three_commits import CONFIG
from tests.runs import experiment_in
from tests.stub import build_stub

path, number = Path(sys.argv[1]), int(sys.argv[2])
go = os.pipe()

def linger():
    while not (path / "over").exists():
        time.sleep(0.02)

def start():
    os.close(go[1])
    os.read(go[0], 1)  # until its other end is closed
    try:
        execute(CONFIG, experiment_in(path), Settings(), at_batch(build_stub, 5, linger))
        said = "trained"
    except HeldError as error:
        said = f"exit {error.exit_code}: {error}"
    (path / f"said-{os.getpid()}").write_text(said)

children = []
for _ in range(number):
    child = os.fork()
    if not child:
        start()
        os._exit(0)
    children.append(child)
os.close(go[1])
for ended in range(1, number + 1):
    os.wait()
    if ended == number - 1:
        (path / "over").touch()
"""
"""Processes that have all imported torch, and start at once. The one that trains does not end
before all others have been refused."""


@pytest.mark.slow
def test_of_simultaneous_starts_exactly_one_trains(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    completed(sys.executable, "-c", START, tmp_path, "32", env=environment)
    said = {int(path.name[5:]): path.read_text() for path in tmp_path.glob("said-*")}
    assert len(said) == 32
    (holder,) = (process for process, text in said.items() if text == "trained")
    folder = folder_of(experiment_in(tmp_path))
    for text in (text for process, text in said.items() if process != holder):
        assert text.startswith(f"exit 3: {folder.path} is held by"), text
        assert f"(id {holder})" in text
    assert (folder.manifest() or {})["attempts"] == 1
    assert evidence(folder) == undisturbed
