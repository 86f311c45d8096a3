"""What is on disk: every run with its state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bnbench.store import STATES, ExperimentFolder, Record, RunRecord, cell_of, read
from bnbench.wording import column_words, printable, told_apart


def runs_text(experiment: ExperimentFolder, *, columns: int) -> str:
    """A line per run: name, state, result; in a narrow terminal the result has a line of its own.
    The result of single runs begins with what tells them apart.

    Text and no table: rich takes half a second to lay out a thousand rows.
    """
    runs = [read(folder, whole=False) for folder in experiment.runs()]
    if not runs:
        return "no runs yet"
    said = [
        ": ".join(filter(None, each))
        for each in zip(_apart(runs), map(_outcome, runs), strict=True)
    ]
    rows = [
        (printable(run.folder.name), run.state, printable(each))
        for run, each in zip(runs, said, strict=True)
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
    counts = [
        Counter(str(read(run, whole=False).state) for run in each.runs()) for each in experiments
    ]
    shown = [state for state in STATES if any(count[state] for count in counts)]
    for state in shown:
        table.add_column(state, justify="right")
    for experiment, count in zip(experiments, counts, strict=True):
        table.add_row(experiment.name, *(str(count[state]) for state in shown))
    return table


def as_record(experiment: ExperimentFolder) -> Record:
    """The same for programs, as runs/README.md describes it; a key that changes its meaning raises
    `schema`."""
    runs = [read(folder, whole=False) for folder in experiment.runs()]
    return {
        "schema": 1,
        "experiment": experiment.name,
        "path": str(experiment.path),
        "runs": [
            {
                "run": run.folder.name,
                "state": run.state,
                "apart": apart,
                "result": None if run.result is None else run.result.as_record(),
                "error": {"message": run.problem} if run.state == "damaged" else run.error,
            }
            for run, apart in zip(runs, _apart(runs), strict=True)
        ],
    }


def _apart(runs: Sequence[RunRecord]) -> list[str]:
    """What tells each run from other cells of the same setup and values, in words."""
    manifests = [run.manifest for run in runs]
    apart = told_apart(
        {
            cell_of(each): ((each["setup"], repr(each["point"])), each["hparams"])
            for each in manifests
            if each is not None
        }
    )
    columns = [{} if each is None else apart[cell_of(each)] for each in manifests]
    return [", ".join(column_words(each)) for each in columns]


def _outcome(run: RunRecord) -> str:
    """How it ended, or what is wrong with it, in a line."""
    if run.result is None:
        return (run.problem or "").partition("\n")[0]
    if run.result.divergence is not None:
        return f"at {run.result.divergence}"
    return f"test accuracy {run.result.scores['test']['running'].accuracy:.1%}"
