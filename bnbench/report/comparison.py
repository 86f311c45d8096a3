"""The comparison table: a line per cell, its seeds as replicates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bnbench.config import Tune
from bnbench.report.study import short_names
from bnbench.report.tuning import best
from bnbench.stats import Mean, mean
from bnbench.store import Record


@dataclass(frozen=True, slots=True)
class Replicate:
    """One run of a cell: a setup at one value of every axis, and how it ended, if it did."""

    setup: str
    point: dict[str, Any]
    result: Record | None


HEADINGS = ("val %", "test %", "gap", "img/s", "seeds")


@dataclass(frozen=True, slots=True)
class Cell:
    """One setup at one value of every axis.

    Accuracies under running statistics; `gap` is validation accuracy under running minus under
    batch statistics. Means are over the completed seeds, None where there is none; diverged and
    missing ones are counted beside them. `validation`: the readings of each seed, None where it
    diverged.
    """

    setup: str
    point: dict[str, Any]
    validation: tuple[Record | None, ...]
    completed: int
    diverged: int
    missing: int
    val_accuracy: Mean | None
    test_accuracy: Mean | None
    gap: Mean | None
    images_per_second: Mean | None


def cells(runs: Iterable[Replicate]) -> list[Cell]:
    """The runs grouped into cells, in the order in which the cells first appear."""
    grouped: dict[tuple[str, str], list[Replicate]] = {}
    for run in runs:
        key = (run.setup, repr(sorted(run.point.items())))
        grouped.setdefault(key, []).append(run)
    return [_cell(replicates) for replicates in grouped.values()]


def _cell(runs: Sequence[Replicate]) -> Cell:
    results = [run.result for run in runs if run.result is not None]
    completed = [result for result in results if result["state"] == "completed"]

    def over_seeds(readings: list[float]) -> Mean | None:
        return mean(readings) if readings else None

    return Cell(
        setup=runs[0].setup,
        point=runs[0].point,
        validation=tuple(
            result["val"]["running"] if result["state"] == "completed" else None
            for result in results
        ),
        completed=len(completed),
        diverged=len(results) - len(completed),
        missing=len(runs) - len(results),
        val_accuracy=over_seeds([r["val"]["running"]["accuracy"] for r in completed]),
        test_accuracy=over_seeds([r["test"]["running"]["accuracy"] for r in completed]),
        gap=over_seeds(
            [r["val"]["running"]["accuracy"] - r["val"]["batch"]["accuracy"] for r in completed]
        ),
        images_per_second=over_seeds([r["images_per_second"] for r in completed]),
    )


def chosen(cells: Sequence[Cell], tune: Tune) -> set[int]:
    """Positions of the cells that tuning chooses: one for each setup and each value of the other
    axes."""
    quantity = tune.by.rpartition("/")[2]
    trials: dict[tuple[str, str], dict[int, list[float | None]]] = {}
    for position, cell in enumerate(cells):
        others = sorted((key, value) for key, value in cell.point.items() if key != tune.axis)
        if cell.point.get(tune.axis) is not None and cell.validation:
            trials.setdefault((cell.setup, repr(others)), {})[position] = [
                None if reading is None else reading[quantity] for reading in cell.validation
            ]
    return {best(each, higher=quantity == "accuracy") for each in trials.values()}


def comparison_table(runs: Iterable[Replicate], *, tune: Tune | None = None) -> Table:
    """The cells as a table of at most 80 columns, those marked that tuning chooses."""
    rows = cells(runs)
    marked = chosen(rows, tune) if tune is not None else set()
    axes = list(dict.fromkeys(key for cell in rows for key in cell.point))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("setup", overflow="ellipsis", no_wrap=True)
    for heading in (*short_names(axes).values(), *HEADINGS):
        table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading))
    for position, cell in enumerate(rows):
        table.add_row(
            cell.setup + ("*" if position in marked else ""),
            *(_number(cell.point.get(axis)) for axis in axes),
            _percent(cell.val_accuracy),
            _percent(cell.test_accuracy),
            _percent(cell.gap, sign="+"),
            "–" if cell.images_per_second is None else f"{cell.images_per_second.value:,.0f}",
            _replicates(cell),
        )
    explained = "accuracy with running statistics; gap: running − batch statistics (val)"
    if any(cell.completed > 1 for cell in rows):
        explained += "; ±: 95 % interval"
    if tune is not None and marked:
        explained += f"\n*: {tune.axis} chosen on validation"
    table.caption = explained
    table.caption_justify = "left"
    return table


def _replicates(cell: Cell) -> str:
    parts = [str(cell.completed)] if cell.completed else []
    if cell.diverged:
        parts.append(f"{cell.diverged} diverged")
    if cell.missing:
        parts.append(f"{cell.missing} missing")
    return " + ".join(parts)


def _percent(reading: Mean | None, *, sign: str = "") -> str:
    if reading is None:
        return "–"
    text = f"{100 * reading.value:{sign}.1f}"
    return text if reading.half_width is None else f"{text} ± {100 * reading.half_width:.1f}"


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else "–" if value is None else str(value)


def setups_table(manifests: Iterable[Record]) -> Table:
    """What each setup is made of, side by side: whether they are fair opponents.

    `manifests`: of any runs; a setup whose size changes along an axis has several lines.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("setup", overflow="ellipsis", no_wrap=True)
    for heading in ("parameters", "trained", "normalization layers"):
        table.add_column(heading, justify="right", no_wrap=True)
    keys = ("parameters", "trainable_parameters", "normalization_layers")
    rows = [(each["setup"], *(f"{each[key]:,}" for key in keys)) for each in manifests]
    for row in dict.fromkeys(rows):
        table.add_row(*row)
    return table
