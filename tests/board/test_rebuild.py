"""The files of all runs, written again: by one process, and by several."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from bnbench import children
from bnbench.board import rebuild as rebuilding
from bnbench.board.bands import FOLDER, write_seed_bands
from bnbench.board.rebuild import rebuild
from bnbench.errors import RunError
from bnbench.store import ExperimentFolder, RunFolder
from tests.processes import LIMIT


def content(run: RunFolder) -> list[tuple[Any, ...]]:
    """Everything that TensorBoard reads of a run, in order, but for when a file was begun."""
    return [
        (value.tag, event.step, event.wall_time, value.SerializeToString(deterministic=True))
        for path in run.views()
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]


def test_rebuilt_files_say_what_the_run_wrote(own_study: ExperimentFolder) -> None:
    written = {run.name: content(run) for run in own_study.runs()}
    assert all(len(each) > 10 for each in written.values())
    for run in own_study.runs():
        run.clear_views()
    assert rebuild(own_study)[:2] == (12, [])
    assert {run.name: content(run) for run in own_study.runs()} == written
    rebuild(own_study)
    assert {run.name: content(run) for run in own_study.runs()} == written, "and nothing twice"


def test_an_interrupted_run_shows_what_it_has(own_study: ExperimentFolder) -> None:
    run = own_study.runs()[0]
    (run.path / "result.json").unlink()
    lines = (run.path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run.path / "metrics.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
    whole = content(run)
    rebuild(own_study)
    found = content(run)
    lost = {tag for tag, *_ in whole} - {tag for tag, *_ in found}
    assert {"_hparams_/session_end_info", "summary/steps", "summary/diverged"} <= lost
    assert found == whole[: len(found)]


def test_a_damaged_run_is_noted_and_the_others_are_rebuilt(own_study: ExperimentFolder) -> None:
    first, second, third, fourth, *_ = own_study.runs()
    lines = (first.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (first.path / "metrics.jsonl").write_text("".join([lines[0], "{\n", *lines[1:]]))
    (second.path / "metrics.jsonl").unlink()
    (third.path / "manifest.json").write_text('{"run": "of long ago"}')
    with fourth.hold():
        done, notes, _ = rebuild(own_study)
    assert done == 8
    said = "\n".join(notes)
    assert f"{first.path / 'metrics.jsonl'}: changed since the run ended" in said
    assert f"{second.path / 'metrics.jsonl'}: nothing is there, but the run has ended" in said
    assert "manifest.json: does not say what the run is" in said
    assert f"{fourth.name} is being trained" in said


def test_a_full_or_read_only_disk_is_a_sentence(
    own_study: ExperimentFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refused)
    done, notes, _ = rebuild(own_study)
    assert done == 0
    assert all("not writable (Read-only file system)" in note for note in notes)
    assert len(notes) == 12


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes, also for a few runs; whatever the machine has."""
    monkeypatch.setattr(rebuilding, "usable_cores", lambda: 2)
    monkeypatch.setattr(rebuilding, "WORTH", 6)
    monkeypatch.setattr(rebuilding, "AT_ONCE", 2)


def bands(experiment: ExperimentFolder) -> dict[str, bytes]:
    return experiment.kept(f"{FOLDER}/**/*tfevents*")


@pytest.mark.usefixtures("two")
def test_two_processes_write_and_say_what_one_does(
    own_study: ExperimentFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, third, fourth, *_ = own_study.runs()
    (first.path / "metrics.jsonl").write_text("{\n")
    (third.path / "result.json").unlink()
    started, start = list[SpawnProcess](), children.start

    def counted(process: SpawnProcess) -> None:
        started.append(process)
        start(process)

    monkeypatch.setattr(children, "start", counted)
    with fourth.hold():
        of_two = rebuild(own_study)
        two_wrote = {run.name: content(run) for run in own_study.runs()}
        assert len(started) == 2
        monkeypatch.setattr(rebuilding, "usable_cores", lambda: 1)
        of_one = rebuild(own_study)
    assert len(started) == 2, "one process starts none"
    assert of_two == of_one
    assert {run.name: content(run) for run in own_study.runs()} == two_wrote
    assert (of_one[0], len(of_one[1]), len(of_one[2])) == (10, 3, 11)
    assert write_seed_bands(own_study, of_two[2]) == write_seed_bands(own_study, of_one[2])


def test_means_are_those_that_the_folders_say(own_study: ExperimentFolder) -> None:
    (own_study.runs()[1].path / "result.json").unlink()
    said, written = write_seed_bands(own_study), bands(own_study)
    assert len(written) == 6
    _, _, seeds = rebuild(own_study)
    assert (write_seed_bands(own_study, seeds), bands(own_study)) == (said, written)


def killed(*_: object) -> None:
    """In place of what a process does."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.usefixtures("two")
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_a_process_that_dies_is_said_and_the_others_end(
    own_study: ExperimentFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuilding, "_rewrite_all", killed)
    with pytest.raises(RunError, match="a process that rewrites files was killed by SIGKILL"):
        rebuild(own_study)
    assert multiprocessing.active_children() == []


def waiting(connection: Connection, *_: object) -> None:
    """In place of it, too: one run is done, and the next one is never."""
    connection.send([rebuilding.Rewritten(None)])
    time.sleep(LIMIT)


@pytest.mark.usefixtures("two")
def test_ctrl_c_ends_all_of_them(
    own_study: ExperimentFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = list[BaseProcess]()

    def interrupt(_: str) -> None:
        started.extend(multiprocessing.active_children())
        raise KeyboardInterrupt

    monkeypatch.setattr(rebuilding, "_rewrite_all", waiting)
    monkeypatch.setattr(rebuilding, "SHOWN_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        rebuild(own_study, interrupt)
    assert len(started) == 2
    assert all(each.exitcode for each in started), "ended by this one, not by themselves"
