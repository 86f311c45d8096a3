"""How a run stands, from the evidence in its folder; what is done about a damaged one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Literal, TypeAlias, get_args

from bnbench.errors import StorageError
from bnbench.store import files, record
from bnbench.store.record import Record, Result, damaged
from bnbench.store.run_folder import ERROR, MADE, RESULT, SEALED, RunFolder

State: TypeAlias = Literal[
    "completed", "diverged", "running", "interrupted", "failed", "damaged", "new"
]
STATES: tuple[str, ...] = get_args(State)

ASIDE = ".damaged-"


@dataclass(frozen=True)
class RunRecord:
    """A run as it is on disk.

    `state`: from the evidence; damaged: what decides it cannot be read. `error`: the content of
    `error.json` of a failed run. `problem`: why the run failed, or what cannot be read.
    """

    folder: RunFolder
    state: State
    result: Result | None = None
    error: Record | None = None
    problem: str | None = None

    @cached_property
    def manifest(self) -> Record | None:
        """What the run was started with, or None. Raises StorageError where it is damaged."""
        return self.folder.manifest()


def read(run: RunFolder) -> RunRecord:
    """How a run stands: the one place that decides it. Manifest and events are read again when they
    are asked for."""
    try:
        result = examined(run)
        if result is not None:
            return RunRecord(run, result.state, result)
        if run.held():
            return RunRecord(run, "running")
        run.manifest()
        error = run.error()
    except StorageError as damage:
        return RunRecord(run, "damaged", problem=damage.what)
    if error is None:
        return RunRecord(run, "interrupted" if run.has_trained() else "new")
    why = error.get("message")
    state: State = "damaged" if error.get("damaged") is True else "failed"
    return RunRecord(run, state, error=error, problem=None if why is None else str(why))


def examined(run: RunFolder) -> Result | None:
    """How the run ended, or None, after a look at everything that the result rests on.

    Raises DamagedError where a file is missing, or is not what it was when the run ended.
    """
    result = run.result()
    if result is None:
        return None
    run.manifest()
    for name in SEALED:
        content = files.read(run.path / name)
        if not content:
            raise damaged(run.path / name, "nothing is there, but the run has ended")
        if name in result.seal and result.seal[name] != record.digest(content):
            raise damaged(run.path / name, "changed since the run ended")
    return result


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
    number = next(n for n in count(1) if not any(run.path.glob(f"*{ASIDE}{n}")))
    for name in names:
        if os.path.lexists(run.path / name):
            files.rename(run.path / name, run.path / f"{name}{ASIDE}{number}")
