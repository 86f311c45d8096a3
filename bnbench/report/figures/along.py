"""Final readings against batch size, learning rate or what else is a number and varies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bnbench.config import in_words
from bnbench.report import selection
from bnbench.report.figures import style
from bnbench.report.figures.style import Look
from bnbench.report.selection import at, evenly, is_choice, tuned_cells
from bnbench.report.study import Cell, StudiedRun, Study, cell_words, reading
from bnbench.report.tuning import Tuned
from bnbench.stats import mean

Reading = Callable[[StudiedRun], float | None]
"""A completed run's reading, as it is shown; None where it has none."""

LOG_FROM = 8  # times: values that span more are drawn on a logarithmic scale


def accuracy(run: StudiedRun) -> float | None:
    """Test accuracy under running statistics, in percent."""
    found = reading(run, "test", "running", "accuracy")
    return None if found is None else 100 * found


def gap(run: StudiedRun) -> float | None:
    """Validation accuracy under running minus under batch statistics, in points."""
    found = selection.gap(run)
    return None if found is None else 100 * found


def numeric_axes(study: Study) -> list[str]:
    """Axes with two numbers or more."""
    return [
        key
        for key, values in study.axes.items()
        if len(values) > 1
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    ]


@dataclass(frozen=True, slots=True)
class Line:
    """One setup's cells along an axis; `chosen`: which of them tuning took."""

    setup: str
    cells: tuple[Cell, ...]
    chosen: tuple[bool, ...]


def lines_along(study: Study, choices: Sequence[Tuned], axis: str) -> list[tuple[str, list[Line]]]:
    """What is drawn against an axis: titles of panels with a line for each setup.

    Against the tuned axis all its values are shown; otherwise what tuning has chosen. A panel for
    each value of one more axis; of further ones the best on validation.
    """
    tune = study.experiment.tune
    along_tuned = tune is not None and axis == tune.axis
    cells = study.cells if along_tuned else tuned_cells(study, choices)
    others = [
        key
        for key, values in study.axes.items()
        if key != axis and len(values) > 1 and (along_tuned or tune is None or key != tune.axis)
    ]
    # One that hardly any setup has would repeat the others' lines.
    others = [
        key for key in others if 2 * sum(c.point.get(key) is not None for c in cells) > len(cells)
    ]
    other = others[0] if others else None
    panels: list[dict[str, Any]] = (
        [{}]
        if other is None
        else [{other: value} for value in evenly(study.axes[other], style.MOST_PANELS)]
    )
    found = []
    for point in panels:
        lines = [_along(study, cells, choices, setup, axis, point) for setup in study.setups]
        found.append((cell_words(point, list(study.axes)), [line for line in lines if line.cells]))
    return [(title, lines) for title, lines in found if lines]


def _along(
    study: Study,
    cells: Sequence[Cell],
    choices: Sequence[Tuned],
    setup: str,
    axis: str,
    point: dict[str, Any],
) -> Line:
    own = [cell for cell in cells if cell.setup == setup and cell.point.get(axis) is not None]
    found = [
        cell
        for value in study.axes[axis]
        if (cell := at(own, setup, point | {axis: value})) is not None
    ]
    tune = study.experiment.tune
    marks = [tune is not None and tune.axis == axis and is_choice(c, choices, axis) for c in found]
    return Line(setup, tuple(found), tuple(marks))


def against_axis(
    study: Study, choices: Sequence[Tuned], axis: str, reading: Reading, words: str
) -> Figure | None:
    """A reading against an axis: means with intervals, every seed a faint dot, runs that diverged
    or failed counted along the bottom edge. None without a reading."""
    shown = lines_along(study, choices, axis)
    cells = [cell for _, lines in shown for line in lines for cell in line.cells]
    if not any(reading(run) is not None for cell in cells for run in cell.completed):
        return None
    looks = style.looks(study)
    values = study.axes[axis]
    log = values[0] > 0 and values[-1] / values[0] >= LOG_FROM
    figure, panels = style.panels(len(shown), share_y=True, height=2.7)
    lost = False
    for axes, (title, lines) in zip(panels, shown, strict=True):
        for number, line in enumerate(lines):
            shift = number - (len(lines) - 1) / 2
            x = [_beside(cell.point[axis], shift, values, log=log) for cell in line.cells]
            _draw(axes, line, x, looks[line.setup], reading)
            lost |= _lost(axes, line, x, looks[line.setup], number)
        style.values_on_x(axes, values, [in_words(value) for value in values], log=log)
        style.headed(axes, title)
    _fit(
        panels,
        [value for cell in cells for run in cell.completed if (value := reading(run)) is not None],
    )
    style.labelled(figure, x=axis, y=words)
    there = {line.setup for _, lines in shown for line in lines}
    handles = [style.key(setup, look) for setup, look in looks.items() if setup in there]
    if any(mark for _, lines in shown for line in lines for mark in line.chosen):
        handles.append(_ring(style.FAINT))
    if lost:
        handles.append(_cross(style.FAINT))
    style.keyed(figure, handles)
    return figure


def _beside(value: float, shift: float, values: Sequence[float], *, log: bool) -> float:
    """A little beside the value, so that setups do not hide each other."""
    if log:
        ratio = (values[-1] / values[0]) ** (1 / (len(values) - 1))
        return float(value * ratio ** (0.05 * shift))
    return float(value + 0.05 * shift * (values[-1] - values[0]) / (len(values) - 1))


def _draw(axes: Axes, line: Line, x: Sequence[float], look: Look, reading: Reading) -> None:
    kept: list[tuple[float, float, float]] = []
    rings: list[tuple[float, float]] = []
    dots: list[tuple[float, float]] = []
    for place, cell, chosen in zip(x, line.cells, line.chosen, strict=True):
        found = [value for run in cell.completed if (value := reading(run)) is not None]
        if not found:
            continue
        point = mean(found)
        kept.append((place, point.value, point.half_width or 0.0))
        dots += [(place, value) for value in found] if len(found) > 1 else []
        rings += [(place, point.value)] if chosen else []
    if not kept:
        return
    places, middles, halves = (list(each) for each in zip(*kept, strict=True))
    (drawn,) = axes.plot(places, middles, color=look.color, lw=1.3, marker=look.marker, ms=4.2)
    style.dashed(drawn, look)
    if any(halves):
        low = [middle - half for middle, half in zip(middles, halves, strict=True)]
        high = [middle + half for middle, half in zip(middles, halves, strict=True)]
        axes.vlines(places, low, high, color=look.color, lw=1.0)
    if dots:
        axes.plot(*zip(*dots, strict=True), color=look.color, ls="", marker=".", ms=4, alpha=0.35)
    if rings:
        axes.plot(
            *zip(*rings, strict=True), ls="", marker="o", ms=10, mfc="none", mec=look.color, mew=1
        )


def _lost(axes: Axes, line: Line, x: Sequence[float], look: Look, row: int) -> bool:
    """A cross for each cell with runs that diverged or failed, and how many of how many."""
    found = False
    for place, cell in zip(x, line.cells, strict=True):
        lost = cell.count("diverged", "failed", "damaged")
        if not lost:
            continue
        found = True
        height = 0.04 + 0.075 * row
        where = axes.get_xaxis_transform()
        axes.plot(
            [place], [height], transform=where, color=look.color, marker="x", ms=5, mew=1.5, ls=""
        )
        if len(cell.runs) > 1:
            axes.annotate(
                f"{lost}/{len(cell.runs)}",
                (place, height),
                xycoords=where,
                xytext=(4, -2.5),
                textcoords="offset points",
                fontsize=6.5,
                color=style.INK,
            )
    return found


def _fit(panels: Sequence[Axes], values: Sequence[float]) -> None:
    """Show all readings, and room below for what diverged; long intervals are cut."""
    low, high = min(values), max(values)
    room = max(high - low, 1.0)
    panels[0].set_ylim(low - 0.22 * room, high + 0.08 * room)
    if low == high == 0:
        panels[0].set_ylim(-1, 1)


def _ring(color: str) -> Line2D:
    return Line2D(
        [], [], ls="", marker="o", ms=8, mfc="none", mec=color, label="chosen on validation"
    )


def _cross(color: str) -> Line2D:
    return Line2D([], [], ls="", marker="x", ms=5, mew=1.5, color=color, label="diverged or failed")


def by_setup(study: Study, choices: Sequence[Tuned], reading: Reading, words: str) -> Figure | None:
    """The same where no number varies: a row for each setup, at its best cell on validation."""
    cells = tuned_cells(study, choices)
    rows = [(setup, at(cells, setup, {})) for setup in study.setups]
    shown = [
        (setup, values)
        for setup, cell in rows
        if cell is not None
        and (values := [v for run in cell.completed if (v := reading(run)) is not None])
    ]
    if not shown:
        return None
    figure, (axes,) = style.panels(
        1,
        height=0.6 + 0.3 * len(shown),
        left=style.room_for([setup[:32] for setup, _ in shown], style.SMALL),
    )
    draw_rows(axes, shown, style.looks(study))
    style.labelled(figure, x=words)
    return figure


def draw_rows(
    axes: Axes, rows: Sequence[tuple[str, Sequence[float]]], looks: dict[str, Look]
) -> None:
    """A row for each setup: its seeds as faint dots, their mean with its interval."""
    for place, (setup, values) in enumerate(rows):
        look, point = looks[setup], mean(values)
        if point.half_width is not None:
            ends = [point.value - point.half_width, point.value + point.half_width]
            axes.plot(ends, [place, place], color=look.color, lw=1.4)
            axes.plot(values, [place] * len(values), ".", color=look.color, ms=5, alpha=0.4)
        axes.plot([point.value], [place], color=look.color, marker=look.marker, ms=5.5, ls="")
    axes.set_yticks(range(len(rows)), [style.words(setup, 32) for setup, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.yaxis.grid(visible=False)
