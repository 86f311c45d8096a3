"""What there is on disk, and how it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bnbench.store import ExperimentFolder, Record, RunFolder

STATES = ("completed", "diverged", "running", "interrupted", "failed", "new")


def states(experiment: ExperimentFolder) -> list[tuple[RunFolder, str]]:
    """Every run of an experiment with its state, from the evidence on disk."""
    return [(folder, folder.state()) for folder in experiment.runs()]


def runs_table(experiment: ExperimentFolder) -> Table:
    """A line per run."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("result", overflow="fold")
    for folder, state in states(experiment):
        table.add_row(folder.name, state, _outcome(folder, state))
    return table


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
        "runs": [
            {"run": folder.name, "state": state, "result": folder.result(), "error": folder.error()}
            for folder, state in states(experiment)
        ],
    }


def _outcome(folder: RunFolder, state: str) -> str:
    match state:
        case "completed":
            result = folder.result() or {}
            return f"test accuracy {result['test']['running']['accuracy']:.1%}"
        case "diverged":
            result = folder.result() or {}
            return f"at step {result['step']}: {result['reason']}"
        case "failed":
            message = (folder.error() or {}).get("message", "")
            return str(message).partition("\n")[0]
        case _:
            return ""
