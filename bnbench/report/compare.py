"""Runs side by side: what their configurations do not share, and how they came out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from bnbench import config as configuration
from bnbench.errors import StorageError, UsageError
from bnbench.report import words
from bnbench.store import Record, RunFolder, find_run, read

METRICS = {
    "test accuracy": ("test", "running", "accuracy"),
    "test loss": ("test", "running", "loss"),
    "test accuracy, batch": ("test", "batch", "accuracy"),
    "val accuracy": ("val", "running", "accuracy"),
    "val accuracy, batch": ("val", "batch", "accuracy"),
    "train accuracy": ("train", "running", "accuracy"),
    "train loss": ("train", "running", "loss"),
    "steps": ("steps",),
    "images seen": ("examples",),
    "training seconds": ("train_seconds",),
    "images/s": ("images_per_second",),
}
WIDTH = 16
"""Columns for a run's values in the terminal."""


def compared(names: Sequence[str], runs_dir: Path) -> Record:
    """Two runs or more, by path, id or the beginning of an id.

    `runs`: name, path, state, reason; `differences`: dotted keys with a value for each run, null
    where it has none; `metrics`: by name, a value for each run, of what it last evaluated where it
    has no result. Raises UsageError, StorageError.
    """
    folders = [find_run(runs_dir, name) for name in names]
    for number, folder in enumerate(folders):
        if folder.path.resolve() in [each.path.resolve() for each in folders[:number]]:
            raise UsageError(f"{folder.path} is named twice", do="name another run")
    if len(folders) < 2:
        raise UsageError("there is only one run", do="name two runs or more")
    runs = [_run(folder) for folder in folders]
    return {
        "runs": [{key: run[key] for key in ("run", "path", "state", "reason")} for run in runs],
        "differences": _differences([run["config"] for run in runs]),
        "metrics": {
            name: [_at(run["readings"], path) for run in runs] for name, path in METRICS.items()
        },
    }


def _run(folder: RunFolder) -> Record:
    found = read(folder)
    state, reason, readings, config = found.state, found.problem, Record(), Record()
    try:
        if found.result is not None:
            readings, reason = found.result.as_record(), found.result.divergence
        if state not in ("completed", "damaged"):
            readings = _last(folder) | readings
        if state != "damaged":
            config = _config(found.manifest)
    except StorageError as error:
        state, reason, readings, config = "damaged", error.what, {}, {}
    return {
        "run": folder.name,
        "path": str(folder.path),
        "state": state,
        "reason": reason,
        "readings": readings,
        "config": config,
    }


def _last(folder: RunFolder) -> Record:
    """What a run without an end has evaluated last, in the shape of a result."""
    found: Record = {}
    for record in folder.records(without=("step", "histogram", "confusion", "probe")):
        if record.get("event") == "eval":
            kinds = found.setdefault(str(record.get("split")), {})
            kinds[str(record.get("stats"))] = {
                "loss": record.get("loss"),
                "accuracy": record.get("accuracy"),
            }
            found |= {
                "steps": record.get("step"),
                "examples": record.get("examples"),
                "train_seconds": record.get("train_seconds"),
            }
    return found


def _config(manifest: Record | None) -> Record:
    """What the run was started with, flat."""
    return {} if manifest is None else {**manifest["hparams"], "seed": manifest["seed"]}


def _differences(configs: Sequence[Record]) -> dict[str, list[Any]]:
    """Of configurations that can be read."""
    keys = dict.fromkeys(key for config in configs for key in config)
    rows = {key: [config.get(key) for config in configs] for key in keys}
    readable = [place for place, config in enumerate(configs) if config]
    return {
        key: values
        for key, values in rows.items()
        if len({repr(values[place]) for place in readable}) > 1
    }


def _at(readings: Record, path: Sequence[str]) -> float | None:
    found: Any = readings
    for part in path:
        found = found.get(part) if isinstance(found, dict) else None
    number = isinstance(found, int | float) and not isinstance(found, bool)
    return found if number else None


def side_by_side(record: Record, *, columns: int = 80) -> Iterator[RenderableType]:
    """To be printed one below the other. Runs that do not fit beside each other get a table of
    their own, each beside the first."""
    runs = record["runs"]
    for letter, run in zip(_letters(len(runs)), runs, strict=True):
        said = f"{run['run']}: {run['state']}"
        if run["reason"]:
            said += f", {str(run['reason']).partition(chr(10))[0]}"
        for number, line in enumerate(wrap(said, columns - 4) or [""]):
            yield Text(f"{letter:3} {line}" if number == 0 else f"    {line}")
    rows = _rows(record)
    left = max(len(label) for label, _ in rows)
    beside = max(1, (columns - min(left, 30)) // (WIDTH + 1) - 1)
    others = list(range(1, len(runs)))
    for start in range(0, len(others), beside):
        yield _table(rows, [0, *others[start : start + beside]], len(runs))
    if not record["differences"]:
        yield Text("their configurations are the same")


def _letters(count: int) -> list[str]:
    return [f"[{number}]" for number in range(1, count + 1)]


def _rows(record: Record) -> list[tuple[str, list[str]]]:
    rows = [
        (key, ["–" if value is None else configuration.in_words(value) for value in values])
        for key, values in record["differences"].items()
    ]
    rows.append(("", [""] * len(record["runs"])))
    for name, values in record["metrics"].items():
        if any(value is not None for value in values):
            rows.append((name, [_shown(name, value) for value in values]))
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


def _table(rows: Sequence[tuple[str, list[str]]], shown: Sequence[int], count: int) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold", max_width=30)
    letters = _letters(count)
    for place in shown:
        table.add_column(letters[place], justify="right", overflow="fold", max_width=WIDTH)
    for label, values in rows:
        table.add_row(Text(label), *(Text(values[place]) for place in shown))
    return table
