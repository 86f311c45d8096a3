"""Tuning: which value of the tuned axis a setup takes, chosen on validation only.

Of the values with the fewest diverged seeds the one with the best mean over its seeds: a learning
rate that ruins one training in eight is not a setup's best. Every setup should have as many trials
as the others, and a choice at the end of its grid says that the grid was too narrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bnbench.report.study import Cell, Study, reading


@dataclass(frozen=True, slots=True)
class Tuned:
    """Which of `values` a setup takes at `others`, its values of the other axes."""

    setup: str
    others: dict[str, Any]
    value: Any
    values: tuple[Any, ...]

    @property
    def at_edge(self) -> bool:
        """Whether the choice is an end of the grid, where a better one may lie beyond."""
        return len(self.values) > 1 and self.value in (self.values[0], self.values[-1])


def best(trials: Mapping[Any, Sequence[float | None]], *, higher: bool) -> Any:
    """The key of the best trial: readings of its seeds, None for one that diverged.

    Keys without any seed are no trial. Raises ValueError where there is none.
    """

    def rank(key: Any) -> tuple[float, float]:
        finite = [value for value in trials[key] if value is not None]
        mean = sum(finite) / len(finite) if finite else float("-inf")
        diverged = 1 - len(finite) / len(trials[key])
        return -diverged, mean if higher or not finite else -mean

    tried = [key for key, readings in trials.items() if readings]
    if not tried:
        raise ValueError("no trial has a result")
    return max(tried, key=rank)


def tuned(study: Study) -> list[Tuned]:
    """The choice of each setup at each value of the other axes; [] where nothing is tuned."""
    tune = study.experiment.tune
    if tune is None:
        return []
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in study.cells:
        if cell.point.get(tune.axis) is not None:
            key = repr(sorted(_others(cell, tune.axis).items()))
            groups.setdefault((cell.setup, key), []).append(cell)
    found = []
    for (setup, _), cells in groups.items():
        trials = {cell.point[tune.axis]: trial(cell, tune.by) for cell in cells}
        if any(trials.values()):
            value = best(trials, higher=tune.by.endswith("accuracy"))
            others = _others(cells[0], tune.axis)
            found.append(Tuned(setup, others, value, tuple(sorted(trials))))
    return found


def choice(found: Sequence[Tuned], cell: Cell, axis: str) -> Tuned | None:
    """The choice that was made among the cell and its neighbours along the tuned axis."""
    others = _others(cell, axis)
    return next((each for each in found if (each.setup, each.others) == (cell.setup, others)), None)


def _others(cell: Cell, axis: str) -> dict[str, Any]:
    return {key: value for key, value in cell.point.items() if key != axis}


def trial(cell: Cell, by: str) -> list[float | None]:
    """What tuning goes by: a reading of each seed of a cell that has a result, None where it
    diverged or the reading is not finite."""
    quantity = by.rpartition("/")[2]
    return [reading(run, "val", "running", quantity) for run in cell.runs if run.result is not None]
