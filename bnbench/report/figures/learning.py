"""Learning curves: a panel for each value of an axis, a line for each setup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bnbench.report.figures import style
from bnbench.report.figures.style import Look
from bnbench.report.selection import at, evenly, tuned_cells
from bnbench.report.study import Cell, Curve, StudiedRun, Study, cell_words
from bnbench.report.tuning import Tuned
from bnbench.stats import mean

Against = Literal["examples", "seconds"]
Quantity = Literal["accuracy", "loss"]
SEEDS_FOR_A_BAND = 3
WORDS = {"examples": "training images seen", "seconds": "seconds of training"}


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture's cells, a cell a setup, and what they have in common."""

    title: str
    cells: tuple[Cell, ...]


def learning_panels(study: Study, choices: Sequence[Tuned]) -> list[Panel]:
    """What learning curves are shown of: for each value of the first axis that is left after
    tuning, each setup at its best cell on validation."""
    cells = tuned_cells(study, choices)
    tune = study.experiment.tune
    # Of the axes the one that most setups have; the tuned one is not left.
    left = {key: values for key, values in study.axes.items() if tune is None or key != tune.axis}
    left = {key: values for key, values in left.items() if len(values) > 1}
    if not left:
        panel = _panel("", cells, study, {})
        return [panel] if panel.cells else []
    axis = max(left, key=lambda key: sum(cell.point.get(key) is not None for cell in cells))
    found = [
        _panel(cell_words({axis: value}, list(study.axes)), cells, study, {axis: value})
        for value in evenly(left[axis], style.MOST_PANELS)
    ]
    return [panel for panel in found if panel.cells]


def _panel(title: str, cells: Sequence[Cell], study: Study, point: dict[str, Any]) -> Panel:
    chosen = (at(cells, setup, point) for setup in study.setups)
    return Panel(title, tuple(cell for cell in chosen if cell is not None))


def learning_curves(
    study: Study,
    choices: Sequence[Tuned],
    *,
    quantity: Quantity = "accuracy",
    against: Against = "examples",
) -> Figure | None:
    """Validation accuracy (a fraction, shown in percent) or loss while training.

    Full lines: running statistics; dotted: batch statistics, where a setup has any. Three seeds
    and more: their mean with its 95 % interval; fewer: each seed. A cross is where one diverged.
    None without evaluations.
    """
    shown = learning_panels(study, choices)
    if not any(run.history.curves for panel in shown for cell in panel.cells for run in cell.runs):
        return None
    looks = style.looks(study)
    figure, panels = style.panels(len(shown), share_y=True, height=2.6)
    diverged = False
    for axes, panel in zip(panels, shown, strict=True):
        for cell in panel.cells:
            _draw(axes, cell, looks[cell.setup], quantity, against)
        diverged |= _crosses(axes, panel, looks, against)
        style.headed(axes, panel.title)
        style.count_on_x(axes)
        axes.set_xlim(left=0)
    top = panels[0]
    if quantity == "loss":
        style.log_on_y(top)
    style.labelled(
        figure,
        x=WORDS[against],
        y="validation accuracy, %" if quantity == "accuracy" else "validation loss, nats",
    )
    style.keyed(figure, _legend(shown, looks, diverged))
    return figure


def _legend(shown: Sequence[Panel], looks: dict[str, Look], diverged: bool) -> list[Line2D]:
    there = {cell.setup for panel in shown for cell in panel.cells}
    handles = [style.key(setup, look) for setup, look in looks.items() if setup in there]
    cells = [cell for panel in shown for cell in panel.cells]
    if any(_has_batch(run) for cell in cells for run in cell.runs):
        handles.append(Line2D([], [], color=style.FAINT, ls=":", lw=1.3, label="batch statistics"))
    if diverged:
        cross = {"marker": "x", "ms": 6, "mew": 1.6, "ls": ""}
        handles.append(Line2D([], [], color=style.FAINT, label="diverged", **cross))  # type: ignore[arg-type]
    return handles


def _has_batch(run: StudiedRun) -> bool:
    running, batch = (run.history.curves.get(("val", kind)) for kind in ("running", "batch"))
    return running is not None and batch is not None and running.accuracy != batch.accuracy


def _draw(axes: Axes, cell: Cell, look: Look, quantity: Quantity, against: Against) -> None:
    runs = [run for run in cell.runs if ("val", "running") in run.history.curves]
    whole = [run for run in runs if run.state == "completed"]
    if len(whole) < SEEDS_FOR_A_BAND:
        for run in runs:
            curve = run.history.curves["val", "running"]
            _line(axes, _x(curve, against), _y(curve, quantity), look)
            if _has_batch(run):
                batch = run.history.curves["val", "batch"]
                axes.plot(_x(batch, against), _y(batch, quantity), color=look.color, ls=":", lw=1.1)
        return
    middle = _mean(whole, "running", quantity, against)
    _line(axes, middle.x, middle.value, look)
    axes.fill_between(middle.x, middle.low, middle.high, color=look.color, alpha=0.18, lw=0)
    if any(map(_has_batch, whole)):
        batch_mean = _mean(whole, "batch", quantity, against)
        axes.plot(batch_mean.x, batch_mean.value, color=look.color, ls=":", lw=1.3)


def _line(axes: Axes, x: Sequence[float], y: Sequence[float], look: Look) -> None:
    every = max(1, len(x) // 5)
    (line,) = axes.plot(
        x, y, color=look.color, lw=1.4, marker=look.marker, ms=3.6, markevery=(0, every)
    )
    style.dashed(line, look)


@dataclass(frozen=True, slots=True)
class _Mean:
    x: list[float]
    value: list[float]
    low: list[float]
    high: list[float]


def _mean(runs: Sequence[StudiedRun], kind: str, quantity: Quantity, against: Against) -> _Mean:
    """The mean over seeds at each evaluation that all of them have, where all are finite."""
    curves = [
        run.history.curves["val", kind] for run in runs if ("val", kind) in run.history.curves
    ]
    common = set.intersection(*(set(curve.examples) for curve in curves))
    found = _Mean([], [], [], [])
    for examples in sorted(common):
        places = [curve.examples.index(examples) for curve in curves]
        values = [_y(curve, quantity)[place] for curve, place in zip(curves, places, strict=True)]
        if not all(map(isfinite, values)):
            continue
        seconds = [curve.seconds[place] for curve, place in zip(curves, places, strict=True)]
        point = mean(values)
        half = point.half_width or 0.0
        found.x.append(examples if against == "examples" else mean(seconds).value)
        found.value.append(point.value)
        found.low.append(point.value - half)
        found.high.append(point.value + half)
    return found


def _x(curve: Curve, against: Against) -> list[float]:
    return [float(each) for each in (curve.examples if against == "examples" else curve.seconds)]


def _y(curve: Curve, quantity: Quantity) -> list[float]:
    if quantity == "accuracy":
        return [100 * value for value in curve.accuracy]
    return [value if isfinite(value) else float("nan") for value in curve.loss]


def _crosses(axes: Axes, panel: Panel, looks: dict[str, Look], against: Against) -> bool:
    """Where runs diverged, along the bottom edge."""
    found = False
    for cell in panel.cells:
        for run in cell.runs:
            place = _diverged_at(run, against)
            if place is None:
                continue
            found = True
            axes.plot(
                [place],
                [0.03],
                transform=axes.get_xaxis_transform(),
                color=looks[cell.setup].color,
                marker="x",
                ms=6,
                mew=1.6,
                ls="",
                clip_on=False,
            )
    return found


def _diverged_at(run: StudiedRun, against: Against) -> float | None:
    if run.history.diverged_at is None:
        return None
    if against == "examples":
        return float(run.history.diverged_at)
    return float((run.result or {}).get("train_seconds") or 0.0)


def caption(study: Study, choices: Sequence[Tuned]) -> str:
    """What the curves are of, in a sentence."""
    shown = [cell for panel in learning_panels(study, choices) for cell in panel.cells]
    seeds = {len(cell.completed) for cell in shown}
    lines = (
        "the mean over seeds with its 95 % interval"
        if max(seeds, default=0) >= SEEDS_FOR_A_BAND
        else "each seed a line"
    )
    varying = [key for key, values in study.axes.items() if len(values) > 1]
    where = " Each setup at its best values on validation." if varying else ""
    return f"Full lines: running statistics, {lines}; dotted: batch statistics.{where}"
