"""Runs side by side: where their configurations differ, and their scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from bnbench.errors import StorageError, UsageError
from bnbench.report import words
from bnbench.store import Record, RunFolder, RunRecord, cell_of, find_run, read
from bnbench.wording import flat, in_words

METRICS = {
    "test accuracy": "test/running/accuracy",
    "test loss": "test/running/loss",
    "test accuracy, batch": "test/batch/accuracy",
    "val accuracy": "val/running/accuracy",
    "val accuracy, batch": "val/batch/accuracy",
    "train accuracy": "train/running/accuracy",
    "train loss": "train/running/loss",
    "steps": "steps",
    "images seen": "examples",
    "training seconds": "train_seconds",
    "images/s": "images_per_second",
}
WIDTH = 16
"""Columns for a run's values in the terminal."""


def compared(names: Sequence[str], runs_dir: Path) -> Record:
    """Two runs or more, by path, id or the beginning of an id.

    `runs`: name, path, state, reason; `differences`: dotted keys with a value for each run, null
    where it has none; `metrics`: by name a value for each run, of its last evaluation if it has no
    result. Raises UsageError, StorageError.
    """
    folders = [find_run(runs_dir, name) for name in names]
    for number, folder in enumerate(folders):
        if folder.path.resolve() in [each.path.resolve() for each in folders[:number]]:
            raise UsageError(f"{folder.path} is named twice", do="name another run")
    if len(folders) < 2:
        raise UsageError("there is only one run", do="name two runs or more")
    runs = [_compared(folder) for folder in folders]
    return {
        "runs": [{key: run[key] for key in ("run", "path", "state", "reason")} for run in runs],
        "differences": _differences([run["config"] for run in runs]),
        "metrics": {
            name: [run["scores"].get(key) for run in runs] for name, key in METRICS.items()
        },
    }


def _compared(folder: RunFolder) -> Record:
    run = read(folder)
    found: Record = {"run": folder.name, "path": str(folder.path), "state": run.state}
    scores, config, reason = Record(), Record(), run.problem
    if run.result is not None:
        scores, reason = dict(flat(run.result.as_record(), "/")), run.result.divergence
    try:
        if run.state not in ("completed", "damaged"):
            scores = _last_evaluation(run) | scores
        if run.manifest is not None:
            config = {**run.manifest["hparams"], "seed": run.manifest["seed"]}
            config["content"] = cell_of(run.manifest)
    except StorageError as error:
        return found | {"state": "damaged", "reason": error.what, "scores": {}, "config": {}}
    return found | {"reason": reason, "scores": scores, "config": config}


def _last_evaluation(run: RunRecord) -> Record:
    """What a run without an end evaluated last, by the keys of a result."""
    found: Record = {}
    for event in run.folder.records(without=("step", "histogram", "confusion", "correct", "probe")):
        if event["event"] == "eval":
            which = f"{event['split']}/{event['stats']}"
            found |= {f"{which}/{name}": event[name] for name in ("loss", "accuracy")}
            found |= {key: event[key] for key in ("examples", "train_seconds")}
            found["steps"] = event["step"]
    return found


def _differences(configs: Sequence[Record]) -> dict[str, list[Any]]:
    """Between those configurations that can be read; where no key differs, that of files."""
    keys = dict.fromkeys(key for config in configs for key in config)
    rows = {key: [config.get(key) for config in configs] for key in keys}
    readable = [place for place, config in enumerate(configs) if config]
    found = {
        key: values
        for key, values in rows.items()
        if len({repr(values[place]) for place in readable}) > 1
    }
    if found.keys() - {"setup", "seed", "content"}:
        found.pop("content", None)
    return found


def side_by_side(record: Record, *, columns: int = 80) -> Iterator[RenderableType]:
    """To be printed one below the other. Runs that do not fit into the width get a table of their
    own, each next to the first run."""
    runs = record["runs"]
    for number, run in enumerate(runs, start=1):
        said = f"{run['run']}: {run['state']}"
        if run["reason"]:
            said += f", {str(run['reason']).partition(chr(10))[0]}"
        first, *more = wrap(said, columns - 4)
        yield Text(f"{f'[{number}]':3} {first}")
        yield from (Text(f"    {line}") for line in more)
    rows = _rows(record)
    left = max(len(label) for label, _ in rows)
    fitting = max(1, (columns - min(left, 30)) // (WIDTH + 1) - 1)
    for start in range(1, len(runs), fitting):
        yield _table(rows, [0, *range(start, min(start + fitting, len(runs)))])
    if not record["differences"]:
        yield Text("their configurations are the same")


def _rows(record: Record) -> list[tuple[str, list[str]]]:
    rows = [
        (key, ["–" if value is None else in_words(value) for value in values])
        for key, values in record["differences"].items()
    ]
    rows.append(("", [""] * len(record["runs"])))
    for name, values in record["metrics"].items():
        if any(value is not None for value in values):
            label = name.replace(", batch", ", batch statistics")
            rows.append((label, [_shown(name, value) for value in values]))
    unfinished = [run["state"] != "completed" for run in record["runs"]]
    if any(unfinished):
        rows.append(("", ["(so far)" if each else "" for each in unfinished]))
    return rows


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    if "accuracy" in name:
        return f"{words.percent(value)} %"
    return f"{value:,}" if isinstance(value, int) else words.number(value, digits=4)


def _table(rows: Sequence[tuple[str, list[str]]], shown: Sequence[int]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold", max_width=30)
    for place in shown:
        table.add_column(f"[{place + 1}]", justify="right", overflow="fold", max_width=WIDTH)
    for label, values in rows:
        table.add_row(label, *(values[place] for place in shown))
    return table
