"""Learning curves: a panel for each value of an axis, a line for each setup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bnbench.report.figures import style
from bnbench.report.figures.style import Look, Looks
from bnbench.report.reading import Curve
from bnbench.report.study import Cell, Point, StudiedRun, Study, best_at
from bnbench.stats.differences import mean

SEEDS_FOR_A_BAND = 3
X_LABELS = {"examples": "training images seen", "seconds": "seconds of training"}
Y_LABELS = {"accuracy": "validation accuracy, %", "loss": "validation loss, nats"}


@dataclass(frozen=True, slots=True)
class Panel:
    """Cells that are drawn together, one of each setup, and what they have in common."""

    title: str
    cells: tuple[Cell, ...]


def learning_panels(study: Study) -> list[Panel]:
    """A panel for each value of an axis, with each setup at its best cell on validation.

    The axis: of those that vary after tuning, the first that most setups have.
    """
    left = [key for key in study.varying if key != study.tuned_axis]
    points: list[Point] = [{}]
    if left:
        axis = max(left, key=lambda key: sum(c.point.get(key) is not None for c in study.chosen))
        points = [{axis: value} for value in style.evenly(study.axes[axis], style.MOST_PANELS)]
    found = []
    for point in points:
        cells = (best_at(study.chosen, setup, point) for setup in study.setups)
        there = tuple(cell for cell in cells if cell is not None)
        found += [Panel(study.cell_words(point), there)] if there else []
    return found


def learning_curves(
    shown: Sequence[Panel], looks: Looks, *, quantity: str = "accuracy", against: str = "examples"
) -> Figure | None:
    """Validation accuracy (a fraction, shown in percent) or loss while training, against images or
    seconds.

    Full lines: running statistics; dotted: batch statistics, if a setup has any. Three seeds and
    more: their mean with its 95 % interval; fewer: each seed. A cross is where one diverged. None
    without evaluations.
    """
    runs = [run for panel in shown for cell in panel.cells for run in cell.runs]
    if not any(run.history.curves for run in runs):
        return None
    handles = style.keys((run.setup for run in runs), looks)
    if any(map(_has_batch, runs)):
        handles.append(Line2D([], [], color=style.FAINT, ls=":", lw=1.3, label="batch statistics"))
    if any(run.history.diverged_at is not None for run in runs):
        handles.append(style.symbol("diverged", "x", ms=5.5, mew=1.5))
    figure, panels = style.panels(len(shown), handles, share_y=True, height=2.6)
    for axes, panel in zip(panels, shown, strict=True):
        for cell in panel.cells:
            look = looks[cell.setup]
            _draw(axes, cell, look, quantity, against)
            for place in _divergences(cell, against):
                style.cross(axes, place, 0.03, look)
        axes.set_title(panel.title)
        style.count_on_x(axes)
        axes.set_xlim(left=0)
    if quantity == "loss":
        panels[0].set_yscale("log")
        style.plain_log_ticks(panels[0])
    figure.supxlabel(X_LABELS[against])
    figure.supylabel(Y_LABELS[quantity])
    return figure


def _has_batch(run: StudiedRun) -> bool:
    running, batch = (run.history.curves.get(("val", kind)) for kind in ("running", "batch"))
    return running is not None and batch is not None and running.accuracy != batch.accuracy


def _draw(axes: Axes, cell: Cell, look: Look, quantity: str, against: str) -> None:
    runs = [run for run in cell.runs if ("val", "running") in run.history.curves]
    whole = [run for run in runs if run.state == "completed"]
    if len(whole) < SEEDS_FOR_A_BAND:
        for run in runs:
            curves = run.history.curves
            _line(axes, *_points(curves["val", "running"], quantity, against), look)
            if _has_batch(run):
                points = _points(curves["val", "batch"], quantity, against)
                axes.plot(*points, color=look.color, ls=":", lw=1.1)
        return
    x, middle, half = _mean(whole, "running", quantity, against)
    _line(axes, x, middle, look)
    low, high = ([m + sign * h for m, h in zip(middle, half, strict=True)] for sign in (-1, 1))
    axes.fill_between(x, low, high, color=look.color, alpha=0.18, lw=0)
    if any(map(_has_batch, whole)):
        x, middle, _ = _mean(whole, "batch", quantity, against)
        axes.plot(x, middle, color=look.color, ls=":", lw=1.3)


def _line(axes: Axes, x: Sequence[float], y: Sequence[float], look: Look) -> None:
    every = max(1, len(x) // 5)
    (line,) = axes.plot(
        x, y, color=look.color, lw=1.4, marker=look.marker, ms=3.6, markevery=(0, every)
    )
    style.dashed(line, look)


def _mean(
    runs: Sequence[StudiedRun], kind: str, quantity: str, against: str
) -> tuple[list[float], list[float], list[float]]:
    """x, mean over seeds and half of its interval at each evaluation that all seeds have, where
    all are finite."""
    curves = [
        run.history.curves["val", kind] for run in runs if ("val", kind) in run.history.curves
    ]
    common = set.intersection(*(set(curve.examples) for curve in curves))
    found: tuple[list[float], list[float], list[float]] = ([], [], [])
    points = [_points(curve, quantity, against) for curve in curves]
    for examples in sorted(common):
        places = [curve.examples.index(examples) for curve in curves]
        values = [y[place] for (_, y), place in zip(points, places, strict=True)]
        if all(map(isfinite, values)):
            point = mean(values)
            at = mean([x[place] for (x, _), place in zip(points, places, strict=True)]).value
            for each, value in zip(found, (at, point.value, point.half_width or 0.0), strict=True):
                each.append(value)
    return found


def _points(curve: Curve, quantity: str, against: str) -> tuple[list[float], list[float]]:
    x = curve.examples if against == "examples" else curve.seconds
    if quantity == "accuracy":
        return [*map(float, x)], [100 * value for value in curve.accuracy]
    return [*map(float, x)], [value if isfinite(value) else nan for value in curve.loss]


def _divergences(cell: Cell, against: str) -> list[float]:
    """Where runs diverged, on the x axis."""
    lost = [run for run in cell.runs if run.history.diverged_at is not None]
    if against == "examples":
        return [float(run.history.diverged_at or 0) for run in lost]
    return [0.0 if run.result is None else run.result.train_seconds for run in lost]


def caption(study: Study, panels: Sequence[Panel]) -> str:
    """What the curves are of, in a sentence."""
    seeds = max((len(cell.completed) for panel in panels for cell in panel.cells), default=0)
    lines = "each seed a line"
    if seeds >= SEEDS_FOR_A_BAND:
        lines = "the mean over seeds with its 95 % interval"
    where = " Each setup at its best values on validation." if study.varying else ""
    return f"Full lines: running statistics, {lines}; dotted: batch statistics.{where}"
