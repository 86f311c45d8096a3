"""Which cells are shown where not all can be: chosen on validation, never on test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from bnbench.report import tuning
from bnbench.report.study import Cell, StudiedRun, Study, reading
from bnbench.report.tuning import Tuned, choice, trial

Value = TypeVar("Value")


def readings(runs: Sequence[StudiedRun], *path: str) -> list[float]:
    """The readings of those that have one."""
    return [value for run in runs if (value := reading(run, *path)) is not None]


def gap(run: StudiedRun) -> float | None:
    """Validation accuracy under running minus under batch statistics, a fraction."""
    running, batch = (reading(run, "val", kind, "accuracy") for kind in ("running", "batch"))
    return None if running is None or batch is None else running - batch


def best(cells: Sequence[Cell]) -> Cell | None:
    """The best of the cells on validation, by the rule of `tuning`; None without a result."""
    trials = {place: trial(cell, "val/accuracy") for place, cell in enumerate(cells)}
    if not any(trials.values()):
        return None
    place: int = tuning.best(trials, higher=True)
    return cells[place]


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
