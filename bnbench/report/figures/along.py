"""Final scores against whatever varies."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnbench.report.figures import style
from bnbench.report.figures.grid import Grid, axis_label, grid_of, has
from bnbench.report.quantities import possible
from bnbench.report.study import Cell, Study, best_at, ordered
from bnbench.stats.differences import SEEDS_FOR_AN_INTERVAL, mean
from bnbench.wording import in_words, key_words, listing

LOST = 0.075
"""Of the axes' height: a row of crosses."""
LOG_FROM = 8  # times: values that span more are drawn on a logarithmic scale


class Measured(NamedTuple):
    """A property of runs that is a fraction, shown in percent.

    `level`: drawn as a line: chance, None where it is not known; or the zero of a difference,
    which is always in the picture.
    """

    name: str
    label: str
    level: float | None
    is_zero: bool = False

    @property
    def words(self) -> str:
        """Of chance; "" where there is none."""
        return "" if self.is_zero or self.level is None else f"chance ({self.level:.3g} %)"


class Shown(NamedTuple):
    """What is drawn against an axis: of each panel the lines, a line the cells of a setup. `null`:
    the setups of cells where the axis is null, which is no place on it."""

    axis: str
    values: list[Any]
    grid: Grid
    lines: list[list[list[Cell]]]
    null: list[str]

    @property
    def cells(self) -> list[Cell]:
        """All that are drawn."""
        return [cell for panel in self.lines for line in panel for cell in line]


def lines_along(study: Study, axis: str) -> Shown:
    """The cells along an axis: against the tuned axis all its values, otherwise what tuning chose.

    There is a panel for each value of the other axes.
    """
    cells = study.cells if axis == study.tuned_axis else study.chosen
    along = [cell for cell in cells if cell.point.get(axis) is not None]
    others = [key for key in study.varying if key not in (axis, study.tuned_axis)]
    grid = grid_of(study, along, others)
    points, lines = [], []
    for point in grid.points:
        best = [
            [best_at(along, setup, {**point, axis: value}) for value in study.axes[axis]]
            for setup in study.setups
        ]
        panel = [[cell for cell in line if cell is not None] for line in best if any(line)]
        if panel or len(grid.axes) > 1:  # of two axes a panel has its place, though it be empty
            points.append(point)
            lines.append(panel)
    null = [cell.setup for cell in cells if has(cell, axis) and cell.point[axis] is None]
    points_shown = grid._replace(points=points)
    return Shown(axis, study.axes[axis], points_shown, lines, list(dict.fromkeys(null)))


def against_axis(
    study: Study, shown: Shown, looks: style.Looks, measured: Measured
) -> Figure | None:
    """A property of runs against the axis of `lines_along`, each point at its value.

    Three seeds and more: their mean with its 95 % interval as a band, every seed a faint dot.
    Fewer: each seed a line. Runs that diverged or failed are counted along the bottom edge. None
    without a value.
    """
    found = [value for cell in shown.cells for value in _percents(cell, measured.name)]
    if not found:
        return None
    scale = _Scale.of(shown.values)
    chosen = study.chosen if shown.axis == study.tuned_axis else []
    drawn = (cell.setup for cell in shown.cells if _lost(cell) or cell.values(measured.name))
    handles = style.keys(drawn, looks)
    if measured.words:
        handles.append(style.chance_key(measured.words))
    if any(cell in chosen for cell in shown.cells):
        handles.append(style.symbol("chosen on validation", "o", ms=8, mfc="none", mec=style.FAINT))
    if any(map(_lost, shown.cells)):
        handles.append(style.symbol("diverged or failed", "x", ms=5.5, mew=1.5))
    figure, panels = shown.grid.panels(handles, height=2.7)
    for axes, lines in zip(panels, shown.lines, strict=True):
        if measured.level is not None:
            axes.axhline(measured.level, **(style.CHANCE if measured.words else style.ZERO))
        for number, line in enumerate(lines):
            x = [scale.place(cell.point[shown.axis], number, len(lines)) for cell in line]
            _draw(axes, line, x, looks[line[0].setup], measured.name, chosen, joined=scale.numeric)
        # One above the other, all below the data.
        for row, number in enumerate(n for n, line in enumerate(lines) if any(map(_lost, line))):
            line = lines[number]
            x = [scale.place(cell.point[shown.axis], number, len(lines)) for cell in line]
            _count_lost(axes, line, x, looks[line[0].setup], 0.04 + LOST * row)
        scale.mark(axes)
    ends = [axes.get_xlim() for axes, lines in zip(panels, shown.lines, strict=True) if lines]
    for axes in panels:  # one place for a value in all of them
        axes.set_xlim(min(low for low, _ in ends), max(high for _, high in ends))
    rows = max(sum(any(map(_lost, line)) for line in lines) for lines in shown.lines)
    _limit(panels[0], found, _ends(shown, measured.name), measured, rows=rows)
    style.label(figure, axis_label(shown.axis), measured.label)
    return figure


class _Scale(NamedTuple):
    """Where the values of an axis are. Words have places next to each other, in which setups stand
    side by side; a number is where it is."""

    values: Sequence[Any]
    numeric: bool
    log: bool

    @classmethod
    def of(cls, values: Sequence[Any]) -> _Scale:
        """The scale of these values."""
        numeric = ordered(values)
        return cls(
            values, numeric, numeric and values[0] > 0 and values[-1] / values[0] >= LOG_FROM
        )

    def place(self, value: Any, number: int, of: int) -> float:
        """The x of a value, for the line of this number."""
        if self.numeric:
            return float(value)
        return self.values.index(value) + 0.5 * ((number + 0.5) / of - 0.5)

    def mark(self, axes: Axes) -> None:
        """A tick at each value; if there are many, at some of them."""
        places = list(self.values) if self.numeric else list(range(len(self.values)))
        style.values_on_x(axes, places, [in_words(value) for value in self.values], log=self.log)
        if not self.numeric:
            axes.set_xlim(-0.6, len(self.values) - 0.4)


def _limit(
    axes: Axes, found: Sequence[float], ends: Sequence[float], measured: Measured, *, rows: int
) -> None:
    """All values, above so many rows of crosses; intervals and chance, too, unless they are so far
    that differences would be hard to see."""
    low, high, level = min(found), max(found), measured.level
    wide = 0.5 * (high - low)
    low, high = max(min([low, *ends]), low - wide), min(max([high, *ends]), high + wide)
    if level is not None:
        far = low - level > 2 * max(high - low, 5.0)
        if far and measured.words:
            axes.annotate(
                f"{measured.words} ↓", (1, LOST * rows), xycoords="axes fraction", ha="right",
                xytext=(0, 3), textcoords="offset points", fontsize=style.SMALL - 2,
            )  # fmt: skip
            rows += 1
        else:
            low, high = min(low, level), max(high, level)
    room, share = max(high - low, 1.0), LOST * (rows + 0.5) if rows else 0.06
    axes.set_ylim(low - 1.08 * room * share / (1 - share), high + 0.08 * room)


def _percents(cell: Cell, name: str) -> list[float]:
    return [100 * value for value in cell.values(name)]


def _ends(shown: Shown, name: str) -> list[float]:
    """Of all intervals."""
    within = possible(name, 100)
    found = (end for cell in shown.cells for end in style.ends(_percents(cell, name), within))
    return list(filter(isfinite, found))


def _lost(cell: Cell) -> int:
    return cell.count("diverged", "failed", "damaged")


def _draw(
    axes: Axes,
    line: Sequence[Cell],
    x: Sequence[float],
    look: style.Look,
    name: str,
    chosen: Sequence[Cell],
    *,
    joined: bool,
) -> None:
    found = [(at, cell) for at, cell in zip(x, line, strict=True) if cell.values(name)]
    if not found:
        return
    places = np.array([at for at, _ in found])
    middles = np.array([mean(_percents(cell, name)).value for _, cell in found])
    how = look.line if joined else {"color": look.color, "marker": look.marker, "ls": ""}
    if max(len(cell.values(name)) for _, cell in found) < SEEDS_FOR_AN_INTERVAL:
        for seed in sorted({run.seed for _, cell in found for run in cell.runs}):
            of_seed = [
                (at, 100 * value)
                for at, cell in found
                for run in cell.runs
                if run.seed == seed and (value := run.metric(name)) is not None
            ]
            if of_seed:
                axes.plot(*zip(*of_seed, strict=True), lw=1.1, ms=4.2, **how)
    else:
        axes.plot(places, middles, lw=1.3, ms=4.2, **how)
        within = possible(name, 100)
        ends = np.array([style.ends(_percents(cell, name), within) for _, cell in found])
        style.band(axes, places, ends, look.color, joined=joined)
        dots = [(at, value) for at, cell in found for value in _percents(cell, name)]
        axes.plot(*zip(*dots, strict=True), color=look.color, ls="", marker=".", ms=4, alpha=0.35)
    ringed = [cell in chosen for _, cell in found]
    if any(ringed):
        rings = axes.plot(places[ringed], middles[ringed], ls="", marker="o", ms=10, mfc="none")
        rings[0].set(mec=look.color, mew=1)


def _count_lost(
    axes: Axes, line: Sequence[Cell], x: Sequence[float], look: style.Look, height: float
) -> None:
    """A cross for each cell with runs that diverged or failed, and how many of how many."""
    for place, cell in zip(x, line, strict=True):
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


def caption(shown: Shown, measured: Measured, figure: Figure) -> str:
    """What is drawn: true of these cells and of this figure."""
    counts = [
        [len(cell.values(measured.name)) for cell in line]
        for panel in shown.lines
        for line in panel
    ]
    bands = {max(line) >= SEEDS_FOR_AN_INTERVAL for line in counts if any(line)}
    drawn = [len(list(filter(None, line))) for line in counts if any(line)]
    joined = _Scale.of(shown.values).numeric and max(drawn) > 1
    said = style.lines_words(bands, joined=joined)
    if joined and True in bands and min(drawn) == 1:
        said += " That of a single value is a line."
    if True in bands:
        said += " Dots are seeds."
        if any(0 < min(line) < SEEDS_FOR_AN_INTERVAL <= max(line) for line in counts):
            said += " There is no band where fewer than three have a value."
    low, high = figure.axes[0].get_ylim()
    if any(end < low or end > high for end in _ends(shown, measured.name)):
        said += " Bands are cut at the frame."
    if shown.null:
        said += f" Not drawn: {listing(shown.null, 'and')} with {key_words(shown.axis)} null."
    if any(map(_lost, shown.cells)):
        said += " ×: seeds that diverged or failed, of how many; they have no value."
    return said + shown.grid.words
