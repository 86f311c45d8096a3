"""Final scores and costs against whatever number varies, and by setup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnbench.report.figures import style
from bnbench.report.study import Cell, Study, best_at
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


def _lines_along(study: Study, axis: str) -> list[tuple[str, list[list[Cell]]]]:
    """What is drawn against an axis: titles of panels, with a line of cells for each setup.

    Against the tuned axis all its values are shown; otherwise the cells that tuning chose. There is
    a panel for each value of one more axis; of further axes the best cell on validation is shown.
    """
    cells = study.cells if axis == study.tuned_axis else study.chosen
    others = [
        key
        for key in study.varying
        # A panel of an axis that few setups have would repeat the lines of the others.
        if key not in (axis, study.tuned_axis)
        and 2 * sum(cell.point.get(key) is not None for cell in cells) > len(cells)
    ]
    along = [cell for cell in cells if cell.point.get(axis) is not None]
    found = []
    for point in style.panel_points(study, others[0] if others else None):
        best = [
            [best_at(along, setup, {**point, axis: value}) for value in study.axes[axis]]
            for setup in study.setups
        ]
        lines = [[cell for cell in line if cell is not None] for line in best if any(line)]
        found += [(study.cell_words(point), lines)] if lines else []
    return found


def against_axis(
    study: Study, looks: style.Looks, axis: str, name: str, label: str
) -> Figure | None:
    """A property of runs, a fraction shown in percent, against an axis: means with intervals, every
    seed a faint dot, runs that diverged or failed counted along the bottom edge. None without a
    value."""
    shown = _lines_along(study, axis)
    cells = [cell for _, lines in shown for line in lines for cell in line]
    found = [value for cell in cells for value in _percents(cell, name)]
    if not found:
        return None
    values = study.axes[axis]
    log = values[0] > 0 and values[-1] / values[0] >= LOG_FROM
    chosen = study.chosen if axis == study.tuned_axis else []
    handles = style.keys((cell.setup for cell in cells), looks)
    if any(cell in chosen for cell in cells):
        handles.append(style.symbol("chosen on validation", "o", ms=8, mfc="none", mec=style.FAINT))
    if any(map(_lost, cells)):
        handles.append(style.symbol("diverged or failed", "x", ms=5.5, mew=1.5))
    figure, panels = style.panels(len(shown), handles, share_y=True, height=2.7)
    for axes, (title, lines) in zip(panels, shown, strict=True):
        for number, line in enumerate(lines):
            shift = number - (len(lines) - 1) / 2
            x = [_shifted(cell.point[axis], shift, values, log=log) for cell in line]
            _draw(axes, line, x, looks[line[0].setup], name, chosen)
            _count_lost(axes, line, x, looks[line[0].setup], 0.04 + 0.075 * number)
        style.values_on_x(axes, values, [in_words(value) for value in values], log=log)
        axes.set_title(title)
    # All values, and room below for what diverged; long intervals are cut.
    low, high = min(found), max(found)
    room = max(high - low, 1.0)
    panels[0].set_ylim(low - 0.22 * room, high + 0.08 * room)
    if low == high == 0:
        panels[0].set_ylim(-1, 1)
    figure.supxlabel(axis)
    figure.supylabel(label)
    return figure


def _percents(cell: Cell, name: str) -> list[float]:
    return [100 * value for value in cell.values(name)]


def _lost(cell: Cell) -> int:
    return cell.count("diverged", "failed", "damaged")


def _shifted(value: float, shift: float, values: Sequence[float], *, log: bool) -> float:
    """A little to the side of the value, so that setups do not hide each other."""
    if log:
        ratio = (values[-1] / values[0]) ** (1 / (len(values) - 1))
        return float(value * ratio ** (0.05 * shift))
    return float(value + 0.05 * shift * (values[-1] - values[0]) / (len(values) - 1))


def _draw(
    axes: Axes,
    line: Sequence[Cell],
    x: Sequence[float],
    look: style.Look,
    name: str,
    chosen: Sequence[Cell],
) -> None:
    found = [(at, cell, _percents(cell, name)) for at, cell in zip(x, line, strict=True)]
    found = [(at, cell, values) for at, cell, values in found if values]
    if not found:
        return
    means = [mean(values) for _, _, values in found]
    places = np.array([at for at, _, _ in found])
    middles = np.array([each.value for each in means])
    halves = np.array([each.half_width or 0.0 for each in means])
    axes.plot(places, middles, lw=1.3, ms=4.2, **look.line)
    if halves.any():
        axes.vlines(places, middles - halves, middles + halves, color=look.color, lw=1.0)
    dots = [(at, value) for at, _, values in found if len(values) > 1 for value in values]
    if dots:
        axes.plot(*zip(*dots, strict=True), color=look.color, ls="", marker=".", ms=4, alpha=0.35)
    ringed = [cell in chosen for _, cell, _ in found]
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


def by_setup(
    study: Study, looks: style.Looks, labels: Mapping[str, str], *, scale: float = 1.0
) -> Figure | None:
    """Properties of runs by name with their labels, a panel each: a row for each setup, at its best
    cell on validation: its seeds as faint dots, their mean with its interval. None without a
    value."""
    shown = [cell for cell in study.best.values() if any(map(cell.values, labels))]
    if not shown:
        return None
    setups = [style.shortened(cell.setup, 32) for cell in shown]
    figure, panels = style.panels(
        len(labels),
        columns=2,
        height=0.6 + 0.05 * len(labels) + 0.3 * len(shown),
        left=style.room_for(setups, style.SMALL),
        share_y=len(labels) > 1,
    )
    for axes, (name, label) in zip(panels, labels.items(), strict=True):
        for place, cell in enumerate(shown):
            values, look = [scale * value for value in cell.values(name)], looks[cell.setup]
            point = mean(values)
            if point.half_width is not None:
                ends = [point.value - point.half_width, point.value + point.half_width]
                axes.plot(ends, [place, place], color=look.color, lw=1.4)
                axes.plot(values, [place] * len(values), ".", color=look.color, ms=5, alpha=0.4)
            axes.plot([point.value], [place], color=look.color, marker=look.marker, ms=5.5, ls="")
        axes.set_yticks(range(len(shown)), setups)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.yaxis.grid(visible=False)
        axes.set_xlabel(label)
    return figure


def costs(study: Study, looks: style.Looks) -> Figure | None:
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
