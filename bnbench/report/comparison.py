"""The comparison table: a line per cell, its seeds as replicates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

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
    missing ones are counted beside them.
    """

    setup: str
    point: dict[str, Any]
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


def chosen(cells: Sequence[Cell], axis: str) -> set[int]:
    """Positions of the cells whose value of `axis` has the best mean validation accuracy.

    One for each setup and each value of the other axes: chosen on validation, never on test.
    """
    best: dict[tuple[str, str], int] = {}
    for position, cell in enumerate(cells):
        if cell.val_accuracy is None:
            continue
        others = sorted((key, value) for key, value in cell.point.items() if key != axis)
        key = (cell.setup, repr(others))
        held = best.get(key)
        if held is None or cell.val_accuracy.value > _value(cells[held].val_accuracy):
            best[key] = position
    return set(best.values())


def comparison_table(runs: Iterable[Replicate], *, tuned_axis: str | None = None) -> Table:
    """The cells as a table of at most 80 columns.

    `tuned_axis`: mark the cells that tuning along this axis chooses.
    """
    rows = cells(runs)
    marked = chosen(rows, tuned_axis) if tuned_axis is not None else set()
    axes = list(dict.fromkeys(key for cell in rows for key in cell.point))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("setup", overflow="ellipsis", no_wrap=True)
    for heading in (*(axis.rsplit(".", 1)[-1] for axis in axes), *HEADINGS):
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
    if marked:
        explained += f"\n*: {tuned_axis} chosen on validation"
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


def _value(reading: Mean | None) -> float:
    return float("-inf") if reading is None else reading.value


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
