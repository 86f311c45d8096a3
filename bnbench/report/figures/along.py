"""Final scores and costs against whatever number varies, and by setup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnbench.report.figures import style
from bnbench.report.figures.style import Look, Looks
from bnbench.report.study import Cell, Point, Study, best_at
from bnbench.stats.differences import mean
from bnbench.wording import in_words

LOG_FROM = 8  # times: values that span more are drawn on a logarithmic scale
COSTS = {
    "images_per_second": "training images per second (higher is better)",
    "train_seconds": "seconds of training (lower is better)",
}


def numeric_axes(study: Study) -> list[str]:
    """Axes with two numbers or more."""
    return [
        key
        for key in study.varying
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in study.axes[key])
    ]


@dataclass(frozen=True, slots=True)
class Line:
    """One setup's cells along an axis; `chosen`: which of them tuning took."""

    setup: str
    cells: tuple[Cell, ...]
    chosen: tuple[bool, ...]


def lines_along(study: Study, axis: str) -> list[tuple[str, list[Line]]]:
    """What is drawn against an axis: titles of panels, with a line for each setup.

    Against the tuned axis all its values are shown; otherwise the cells that tuning chose. There is
    a panel for each value of one more axis; of further axes the best cell on validation is shown.
    """
    along_tuned = axis == study.tuned_axis
    cells = study.cells if along_tuned else study.chosen
    others = [
        key
        for key in study.varying
        # A panel of an axis that few setups have would repeat the lines of the others.
        if key not in (axis, study.tuned_axis)
        and 2 * sum(cell.point.get(key) is not None for cell in cells) > len(cells)
    ]
    points: list[Point] = [{}]
    if others:
        values = style.evenly(study.axes[others[0]], style.MOST_PANELS)
        points = [{others[0]: value} for value in values]
    along = [cell for cell in cells if cell.point.get(axis) is not None]
    found = []
    for point in points:
        lines = []
        for setup in study.setups:
            best = [best_at(along, setup, {**point, axis: value}) for value in study.axes[axis]]
            there = tuple(cell for cell in best if cell is not None)
            marks = tuple(along_tuned and study.is_chosen(cell) for cell in there)
            lines += [Line(setup, there, marks)] if there else []
        found += [(study.cell_words(point), lines)] if lines else []
    return found


def against_axis(study: Study, looks: Looks, axis: str, name: str, label: str) -> Figure | None:
    """A property of runs, a fraction shown in percent, against an axis: means with intervals, every
    seed a faint dot, runs that diverged or failed counted along the bottom edge. None without a
    value."""
    shown = lines_along(study, axis)
    lines = [line for _, some in shown for line in some]
    found = [100 * value for line in lines for cell in line.cells for value in cell.values(name)]
    if not found:
        return None
    values = study.axes[axis]
    log = values[0] > 0 and values[-1] / values[0] >= LOG_FROM
    handles = style.keys((line.setup for line in lines), looks)
    if any(mark for line in lines for mark in line.chosen):
        handles.append(style.symbol("chosen on validation", "o", ms=8, mfc="none", mec=style.FAINT))
    if any(_lost(cell) for line in lines for cell in line.cells):
        handles.append(style.symbol("diverged or failed", "x", ms=5.5, mew=1.5))
    figure, panels = style.panels(len(shown), handles, share_y=True, height=2.7)
    for axes, (title, some) in zip(panels, shown, strict=True):
        for number, line in enumerate(some):
            shift = number - (len(some) - 1) / 2
            x = [_shifted(cell.point[axis], shift, values, log=log) for cell in line.cells]
            _draw(axes, line, x, looks[line.setup], name)
            _count_lost(axes, line, x, looks[line.setup], number)
        style.values_on_x(axes, values, [in_words(value) for value in values], log=log)
        axes.set_title(title)
    _fit(panels[0], found)
    figure.supxlabel(axis)
    figure.supylabel(label)
    return figure


def _shifted(value: float, shift: float, values: Sequence[float], *, log: bool) -> float:
    """A little to the side of the value, so that setups do not hide each other."""
    if log:
        ratio = (values[-1] / values[0]) ** (1 / (len(values) - 1))
        return float(value * ratio ** (0.05 * shift))
    return float(value + 0.05 * shift * (values[-1] - values[0]) / (len(values) - 1))


def _draw(axes: Axes, line: Line, x: Sequence[float], look: Look, name: str) -> None:
    means: list[tuple[float, float, float]] = []
    dots: list[tuple[float, float]] = []
    rings: list[tuple[float, float]] = []
    for place, cell, chosen in zip(x, line.cells, line.chosen, strict=True):
        found = [100 * value for value in cell.values(name)]
        if not found:
            continue
        point = mean(found)
        means.append((place, point.value, point.half_width or 0.0))
        dots += [(place, value) for value in found] if len(found) > 1 else []
        rings += [(place, point.value)] if chosen else []
    if not means:
        return
    places, middles, halves = np.array(means).T
    (drawn,) = axes.plot(places, middles, color=look.color, lw=1.3, marker=look.marker, ms=4.2)
    style.dashed(drawn, look)
    if halves.any():
        axes.vlines(places, middles - halves, middles + halves, color=look.color, lw=1.0)
    if dots:
        axes.plot(*zip(*dots, strict=True), color=look.color, ls="", marker=".", ms=4, alpha=0.35)
    if rings:
        (ring,) = axes.plot(*zip(*rings, strict=True), ls="", marker="o", ms=10, mfc="none")
        ring.set(markeredgecolor=look.color, markeredgewidth=1)


def _lost(cell: Cell) -> int:
    return cell.count("diverged", "failed", "damaged")


def _count_lost(axes: Axes, line: Line, x: Sequence[float], look: Look, row: int) -> None:
    """A cross for each cell with runs that diverged or failed, and how many of how many."""
    height = 0.04 + 0.075 * row
    for place, cell in zip(x, line.cells, strict=True):
        if not _lost(cell):
            continue
        style.cross(axes, place, height, look)
        if len(cell.runs) > 1:
            axes.annotate(
                f"{_lost(cell)}/{len(cell.runs)}",
                (place, height),
                xycoords=axes.get_xaxis_transform(),
                xytext=(4, -2.5),
                textcoords="offset points",
                fontsize=6.5,
            )


def _fit(axes: Axes, values: Sequence[float]) -> None:
    """Show all values, and room below for what diverged; long intervals are cut."""
    low, high = min(values), max(values)
    room = max(high - low, 1.0)
    axes.set_ylim(low - 0.22 * room, high + 0.08 * room)
    if low == high == 0:
        axes.set_ylim(-1, 1)


def by_setup(
    study: Study, looks: Looks, labels: Mapping[str, str], *, scale: float = 1.0
) -> Figure | None:
    """Properties of runs by name with their labels, a panel each: a row for each setup, at its best
    cell on validation. None if one has no value."""
    best = [
        (setup, {name: [scale * value for value in cell.values(name)] for name in labels})
        for setup, cell in study.best.items()
    ]
    shown = [(setup, found) for setup, found in best if any(found.values())]
    if not shown:
        return None
    figure, panels = style.panels(
        len(labels),
        columns=2,
        height=0.6 + 0.05 * len(labels) + 0.3 * len(shown),
        left=style.room_for([setup[:32] for setup, _ in shown], style.SMALL),
        share_y=len(labels) > 1,
    )
    for axes, (name, label) in zip(panels, labels.items(), strict=True):
        _draw_rows(axes, [(setup, found[name]) for setup, found in shown], looks)
        axes.set_xlabel(label)
    return figure


def costs(study: Study, looks: Looks) -> Figure | None:
    """Images a second and seconds of training at each setup's best cell on validation."""
    figure = by_setup(study, looks, COSTS)
    if figure is None:
        return None
    for axes, name in zip(figure.axes, COSTS, strict=True):
        most = max(value for cell in study.best.values() for value in cell.values(name))
        style.count_on_x(axes)
        axes.set_xlim(left=0, right=1.15 * most)
    for label in figure.axes[1].get_yticklabels():
        label.set_visible(False)
    return figure


def _draw_rows(axes: Axes, rows: Sequence[tuple[str, Sequence[float]]], looks: Looks) -> None:
    """A row for each setup: its seeds as faint dots, their mean with its interval."""
    for place, (setup, values) in enumerate(rows):
        look, point = looks[setup], mean(values)
        if point.half_width is not None:
            ends = [point.value - point.half_width, point.value + point.half_width]
            axes.plot(ends, [place, place], color=look.color, lw=1.4)
            axes.plot(values, [place] * len(values), ".", color=look.color, ms=5, alpha=0.4)
        axes.plot([point.value], [place], color=look.color, marker=look.marker, ms=5.5, ls="")
    axes.set_yticks(range(len(rows)), [style.shortened(setup, 32) for setup, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.yaxis.grid(visible=False)
