"""Cells and runs as rows: for JSON, tables and spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from bnbench.report.study import METRICS, Cell, StudiedRun, Study
from bnbench.stats.differences import mean
from bnbench.store import Record

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What spreadsheets take for the beginning of a formula: https://owasp.org/www-community/attacks/CSV_Injection"""


def cell_row(cell: Cell, study: Study) -> Record:
    """A cell with the means over its completed seeds."""
    return {
        "setup": cell.setup,
        "point": cell.point,
        "chosen": None if study.tuned_axis is None else study.is_chosen(cell),
        "seeds": len(cell.runs),
        "completed": len(cell.completed),
        "diverged": cell.count("diverged"),
        "failed": cell.count("failed", "damaged"),
        "missing": cell.count("running", "interrupted", "new"),
        "metrics": {name: _over_seeds(cell.values(name)) for name in METRICS},
    }


def _over_seeds(values: Sequence[float]) -> Record | None:
    if not values:
        return None
    point = mean(values)
    half = point.half_width
    return {
        "mean": point.value,
        "interval": None if half is None else (point.value - half, point.value + half),
        "median": median(values),
        "n": point.n,
    }


def run_row(run: StudiedRun) -> Record:
    """A run with its final scores and its whole result."""
    divergence = None if run.result is None else run.result.divergence
    return {
        "run": run.name,
        "path": run.name,
        "setup": run.setup,
        "point": run.point,
        "seed": run.seed,
        "state": run.state,
        "reason": divergence if run.problem is None else run.problem,
        **{name: run.metric(name) for name in METRICS if name != "gap"},
        "result": None if run.result is None else run.result.as_record(),
    }


def flat_row(run: StudiedRun) -> Record:
    """A run with its result as one flat row: `test/running/accuracy` and so on."""
    row = {"run": run.name, "setup": run.setup, **run.point, "seed": run.seed, "state": run.state}
    if run.problem is not None:
        row["reason"] = run.problem
    result = {} if run.result is None else run.result.as_record()
    return row | {key: value for key, value in _flat(result) if key != "state"}


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def as_csv(rows: Sequence[Record]) -> str:
    """The rows with a heading. Text that a spreadsheet would calculate gets an apostrophe."""
    columns = dict.fromkeys(key for row in rows for key in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _harmless(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
