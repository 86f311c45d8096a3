"""What there is on disk, and how it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bnbench.errors import StorageError
from bnbench.store import ExperimentFolder, Record, RunFolder

STATES = ("completed", "diverged", "running", "interrupted", "failed", "damaged", "new")


@dataclass(frozen=True, slots=True)
class Standing:
    """How a run stands, from the evidence on disk; `damage`: what cannot be read of it."""

    folder: RunFolder
    state: str
    result: Record | None = None
    error: Record | None = None
    damage: str | None = None


def standings(experiment: ExperimentFolder) -> list[Standing]:
    """Every run of an experiment."""
    return [_standing(folder) for folder in experiment.runs()]


def _standing(folder: RunFolder) -> Standing:
    try:
        result = folder.result()
        if result is not None:
            return Standing(folder, result["state"], result)  # the rest would say the same
        state = folder.state()
        return Standing(folder, state, error=folder.error())
    except StorageError as error:
        return Standing(folder, "damaged", damage=error.what)


def runs_text(experiment: ExperimentFolder, *, columns: int) -> str:
    """A line per run: name, state, result; in a narrow terminal the result has a line of its own.

    Text and no table: rich takes half a second to lay out a thousand rows.
    """
    rows = [(each.folder.name, each.state, _outcome(each)) for each in standings(experiment)]
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
    counts = [Counter(run.state for run in standings(each)) for each in experiments]
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
            {
                "run": run.folder.name,
                "state": run.state,
                "result": run.result,
                "error": run.error or ({"message": run.damage} if run.damage else None),
            }
            for run in standings(experiment)
        ],
    }


def _outcome(run: Standing) -> str:
    """How it ended, or what is wrong with it, in a line."""
    if run.damage is not None:
        return run.damage
    if run.result is not None:
        if run.state == "diverged":
            return f"at step {run.result['step']}: {run.result['reason']}"
        return f"test accuracy {run.result['test']['running']['accuracy']:.1%}"
    if run.state == "failed" and run.error is not None:
        return str(run.error.get("message", "")).partition("\n")[0]
    return ""
