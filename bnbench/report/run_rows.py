"""Every run as one flat row: for programs and spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from bnbench import config as configuration
from bnbench.config import run_id, schema
from bnbench.report.study import StudiedRun
from bnbench.store import ExperimentFolder, Record, RunFolder, read

Row: TypeAlias = dict[str, Any]

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What spreadsheets take for the beginning of a formula: https://owasp.org/www-community/attacks/CSV_Injection"""


def run_rows(runs: Iterable[schema.RunConfig], experiment: ExperimentFolder) -> list[Row]:
    """A row per run: its id, setup, axis values, seed and state, and its result, flattened:
    `test/running/accuracy` and so on."""
    return [_row(config, experiment) for config in runs]


def studied_rows(runs: Iterable[StudiedRun]) -> list[Row]:
    """The same of runs that have been read already."""
    return [_flat_row(run.config, run.folder, run.state, run.result, run.problem) for run in runs]


def _row(config: schema.RunConfig, experiment: ExperimentFolder) -> Row:
    found = read(experiment.run(run_id(config)))
    result = None if found.result is None else found.result.as_record()
    return _flat_row(config, found.folder, found.state, result, found.problem)


def _flat_row(
    config: schema.RunConfig,
    folder: RunFolder,
    state: str,
    result: Record | None,
    reason: str | None,
) -> Row:
    row: Row = {
        "run": folder.name,
        "setup": config.setup,
        **configuration.point(config),
        "seed": config.seed,
        "state": state,
    }
    row |= {} if reason is None else {"reason": reason}
    return row | {key: value for key, value in _flat(result or {}) if key != "state"}


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def as_csv(rows: Sequence[Row]) -> str:
    """The rows with a heading. Text that a spreadsheet would calculate gets an apostrophe."""
    columns = dict.fromkeys(key for row in rows for key in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _harmless(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
