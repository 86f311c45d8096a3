"""What is on disk: every run with its state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bnbench.store import STATES, ExperimentFolder, Record, RunRecord, cell_of, read
from bnbench.wording import column_words, printable, told_apart


def runs_text(experiment: ExperimentFolder, *, columns: int) -> str:
    """A line per run: name, state, result; in a narrow terminal the result has a line of its own.
    The result of single runs begins with what tells them apart.

    Text and no table: rich takes half a second to lay out a thousand rows.
    """
    runs = [read(folder) for folder in experiment.runs()]
    if not runs:
        return "no runs yet"
    apart = {name: ", ".join(column_words(each)) for name, each in _apart(runs)}
    rows = [
        (
            printable(name),
            run.state,
            printable(": ".join(filter(None, (apart[name], _outcome(run))))),
        )
        for run in runs
        for name in (run.folder.name,)
    ]
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
    counts = [Counter(str(read(run).state) for run in each.runs()) for each in experiments]
    shown = [state for state in STATES if any(count[state] for count in counts)]
    for state in shown:
        table.add_column(state, justify="right")
    for experiment, count in zip(experiments, counts, strict=True):
        table.add_row(experiment.name, *(str(count[state]) for state in shown))
    return table


def as_record(experiment: ExperimentFolder) -> Record:
    """The same for programs."""
    runs = [read(folder) for folder in experiment.runs()]
    apart = dict(_apart(runs))
    return {
        "experiment": experiment.name,
        "path": str(experiment.path),
        "runs": [
            {
                "run": run.folder.name,
                "state": run.state,
                "apart": apart[run.folder.name],
                "result": None if run.result is None else run.result.as_record(),
                "error": {"message": run.problem} if run.state == "damaged" else run.error,
            }
            for run in runs
        ],
    }


def _apart(runs: Sequence[RunRecord]) -> Iterator[tuple[str, dict[str, Any]]]:
    """For each run, by its folder's name, what tells it from other cells of the same name."""
    manifests = {run.folder.name: run.manifest for run in runs}
    rows = {
        cell_of(each): ((each["setup"], repr(each["point"])), each["hparams"])
        for each in manifests.values()
        if each is not None
    }
    apart = told_apart(rows)
    for name, each in manifests.items():
        yield name, {} if each is None else apart[cell_of(each)]


def _outcome(run: RunRecord) -> str:
    """How it ended, or what is wrong with it, in a line."""
    if run.result is None:
        return (run.problem or "").partition("\n")[0]
    if run.result.divergence is not None:
        return f"at {run.result.divergence}"
    return f"test accuracy {run.result.scores['test']['running'].accuracy:.1%}"
