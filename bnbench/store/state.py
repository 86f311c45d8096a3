"""How a run stands, from the evidence in its folder; what is done about a damaged one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from bnbench.errors import DamagedError, StorageError
from bnbench.store import files, lines, record
from bnbench.store.record import Record, Result, damaged
from bnbench.store.run_folder import (
    CONFIG,
    ERROR,
    MADE,
    MANIFEST,
    METRICS,
    METRICS_BYTES,
    RESULT,
    RunFolder,
)

State: TypeAlias = Literal[
    "completed", "diverged", "running", "interrupted", "failed", "damaged", "new"
]
STATES: tuple[str, ...] = get_args(State)

GONE = "nothing is there, but the run has ended"
CHANGED = "changed since the run ended"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as it is on disk.

    `state`: from the evidence; damaged: what decides it cannot be read. `manifest`: what the run
    was started with; None if it has not begun, or is damaged. `error`: the content of `error.json`
    of a failed run. `problem`: why the run failed, or what cannot be read.
    """

    folder: RunFolder
    state: State
    manifest: Record | None = None
    result: Result | None = None
    error: Record | None = None
    problem: str | None = None


def read(run: RunFolder, *, whole: bool = True) -> RunRecord:
    """How a run stands: the one place that decides it. `whole`: as in `examined`."""
    try:
        manifest, result = examined(run, whole=whole)
        if result is not None:
            return RunRecord(run, result.state, manifest, result)
        if run.held():
            return RunRecord(run, "running", manifest)
        error = run.error()
    except StorageError as damage:
        return RunRecord(run, "damaged", problem=damage.what)
    if error is None:
        trained = run.is_saved() or (run.path / METRICS).exists()
        return RunRecord(run, "interrupted" if trained else "new", manifest)
    state: State = "damaged" if error.get("damaged") is True else "failed"
    why = error.get("message")
    problem = None if why is None else str(why)
    return RunRecord(run, state, manifest, error=error, problem=problem)


def examined(run: RunFolder, *, whole: bool = True) -> tuple[Record | None, Result | None]:
    """What the run was started with and how it ended, or None, after a look at everything that the
    result rests on.

    `whole`: at all that `metrics.jsonl` says, too; else only at its length, where the result tells
    it. Raises DamagedError where a file is damaged or missing, or is not what it was when the run
    ended; also where the folder is a copy of another run's.
    """
    result, path = run.result(), run.path / MANIFEST
    contents = {MANIFEST: files.read(path)}
    manifest = record.manifest_in(path, contents[MANIFEST])
    if holds := record.other_run(manifest, run.name):
        do = "rename the folder to that, remove it, or train this run again with --restart"
        raise DamagedError(f"{run.path} holds the run {holds}", do=do)
    if result is None:
        return manifest, None
    contents[CONFIG] = files.read(run.path / CONFIG)
    for name, content in contents.items():
        if not content:
            raise damaged(run.path / name, GONE)
        if name in result.seal and result.seal[name] != record.digest(content):
            raise damaged(run.path / name, CHANGED)
    _examine_events(run, result, whole=whole)
    return manifest, result


def _examine_events(run: RunFolder, result: Result, *, whole: bool) -> None:
    """Raises DamagedError where they are not those that the result rests on."""
    path, seal = run.path / METRICS, result.seal
    about = files.status_of(path)
    if about is None or about.st_size == 0:
        raise damaged(path, GONE)
    if about.st_size != seal.get(METRICS_BYTES, about.st_size):
        raise damaged(path, CHANGED)
    if METRICS_BYTES in seal and not whole:
        return
    if METRICS not in seal:
        for _ in lines.events(path, counted=about.st_size):
            pass  # raises where a line is damaged
    elif seal[METRICS] != files.digested(path).hexdigest():
        raise damaged(path, CHANGED)


def set_aside(run: RunFolder) -> None:
    """Rename the files of a damaged run, so that it can be trained again and nothing is lost.

    Where only the result or the last error is damaged, it alone: the run goes on from its last
    checkpoint.
    """
    names: tuple[str, ...] = MADE
    for name, read_it in ((RESULT, run.result), (ERROR, run.error)):
        try:
            read_it()
        except StorageError:
            names = (name,)
    ending = files.ending_aside(run.path)
    for name in names:
        if os.path.lexists(run.path / name):
            files.rename(run.path / name, run.path / f"{name}{ending}")
