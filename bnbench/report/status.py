"""What there is on disk, and how it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bnbench.errors import StorageError
from bnbench.store import ExperimentFolder, Record, RunFolder

STATES = ("completed", "diverged", "running", "interrupted", "failed", "damaged", "new")


def states(experiment: ExperimentFolder) -> list[tuple[RunFolder, str]]:
    """Every run of an experiment with its state, from the evidence on disk; "damaged" where that
    cannot be read."""
    return [(folder, _state(folder)) for folder in experiment.runs()]


def _state(folder: RunFolder) -> str:
    try:
        return folder.state()
    except StorageError:
        return "damaged"


def runs_text(experiment: ExperimentFolder, *, columns: int) -> str:
    """A line per run: name, state, result; in a narrow terminal the result has a line of its own.

    Text and no table: rich takes half a second to lay out a thousand rows.
    """
    rows = [(folder.name, state, _outcome(folder, state)) for folder, state in states(experiment)]
    if not rows:
        return "no runs yet"
    name_width = max(len(name) for name, _, _ in rows)
    state_width = max(len(state) for _, state, _ in rows)
    wide = name_width + state_width + 4 + max(len(outcome) for *_, outcome in rows) <= columns
    lines = []
    for name, state, outcome in rows:
        line = f"{name:{name_width}}  {state:{state_width}}"
        lines.append((f"{line}  {outcome}" if wide else line).rstrip())
        if outcome and not wide:
            lines.append(f"    {outcome}")
    return "\n".join(lines)


def experiments_table(experiments: Sequence[ExperimentFolder]) -> Table:
    """A line per experiment, with how many runs are in which state."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("experiment", overflow="fold")
    counts = [Counter(state for _, state in states(each)) for each in experiments]
    shown = [state for state in STATES if any(count[state] for count in counts)]
    for state in shown:
        table.add_column(state, justify="right")
    for experiment, count in zip(experiments, counts, strict=True):
        table.add_row(experiment.name, *(str(count[state]) for state in shown))
    return table


def as_record(experiment: ExperimentFolder) -> Record:
    """The same for programs."""
    return {
        "experiment": experiment.name,
        "path": str(experiment.path),
        "runs": [_run_record(folder, state) for folder, state in states(experiment)],
    }


def _run_record(folder: RunFolder, state: str) -> Record:
    record: Record = {"run": folder.name, "state": state, "result": None, "error": None}
    try:
        return record | {"result": folder.result(), "error": folder.error()}
    except StorageError as error:
        return record | {"error": {"error": "StorageError", "message": str(error)}}


def _outcome(folder: RunFolder, state: str) -> str:
    try:
        match state:
            case "completed":
                accuracy = (folder.result() or {})["test"]["running"]["accuracy"]
                return f"test accuracy {accuracy:.1%}"
            case "diverged":
                result = folder.result() or {}
                return f"at step {result['step']}: {result['reason']}"
            case "failed":
                return str((folder.error() or {}).get("message", "")).partition("\n")[0]
            case "damaged":
                folder.state()  # raises what is wrong
                return ""
            case _:
                return ""
    except StorageError as error:
        return error.what
