"""Which cells are shown where not all can be: chosen on validation, never on test."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, TypeVar

from bnbench.report.study import Cell, StudiedRun, Study
from bnbench.report.tuning import Tuned, choice
from bnbench.stats import Mean, mean

Value = TypeVar("Value")


def reading(run: StudiedRun, *path: str) -> float | None:
    """A finite number of a completed run's result, e.g. of "test", "running", "accuracy"; None
    where there is none: a damaged file, a loss that was not finite, a run without an end."""
    found: Any = run.result if run.state == "completed" else None
    for part in path:
        found = found.get(part) if isinstance(found, dict) else None
    number = isinstance(found, int | float) and not isinstance(found, bool)
    return float(found) if number and isfinite(found) else None


def readings(runs: Sequence[StudiedRun], *path: str) -> list[float]:
    """The readings of those that have one."""
    return [value for run in runs if (value := reading(run, *path)) is not None]


def gap(run: StudiedRun) -> float | None:
    """Validation accuracy under running minus under batch statistics, a fraction."""
    running, batch = (reading(run, "val", kind, "accuracy") for kind in ("running", "batch"))
    return None if running is None or batch is None else running - batch


def validation(cell: Cell) -> Mean | None:
    """Mean validation accuracy of the completed seeds under running statistics."""
    found = readings(cell.runs, "val", "running", "accuracy")
    return mean(found) if found else None


def best(cells: Sequence[Cell]) -> Cell | None:
    """Of the cells with the smallest share of diverged seeds the one with the best validation
    accuracy: the rule of `tuning`. None where none has a result."""

    def rank(cell: Cell) -> tuple[float, float]:
        done = cell.count("completed", "diverged")
        reading = validation(cell)
        value = float("-inf") if reading is None else reading.value
        return -cell.count("diverged") / done, value

    tried = [cell for cell in cells if cell.count("completed", "diverged")]
    return max(tried, key=rank) if tried else None


def tuned_cells(study: Study, choices: Sequence[Tuned]) -> list[Cell]:
    """The cells that tuning has left: all of them where nothing is tuned."""
    tune = study.experiment.tune
    if tune is None:
        return study.cells
    return [cell for cell in study.cells if is_choice(cell, choices, tune.axis)]


def is_choice(cell: Cell, choices: Sequence[Tuned], axis: str) -> bool:
    """Whether tuning chose this cell, or had nothing to choose."""
    taken = choice(choices, cell, axis)
    return taken is None or cell.point.get(axis) == taken.value


def at(cells: Sequence[Cell], setup: str, point: dict[str, Any]) -> Cell | None:
    """The setup's best cell among those at these values; a value that has no meaning fits all."""
    return best(
        [
            cell
            for cell in cells
            if cell.setup == setup
            and all(cell.point.get(key) in (None, value) for key, value in point.items())
        ]
    )


def evenly(values: Sequence[Value], most: int) -> list[Value]:
    """At most so many of them, the first and the last included."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]
