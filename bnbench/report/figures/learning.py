"""Learning curves: a panel for each value of an axis, a line for each setup."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bnbench.report.figures import style
from bnbench.report.study import Cell, StudiedRun, Study, best_at
from bnbench.stats.differences import mean

SEEDS_FOR_A_BAND = 3
X_LABELS = {"examples": "training images seen", "seconds": "seconds of training"}
Y_LABELS = {"accuracy": "validation accuracy, %", "loss": "validation loss, nats"}


class Panel(NamedTuple):
    """Cells that are drawn together, one of each setup, and what they have in common."""

    title: str
    cells: list[Cell]


def learning_panels(study: Study) -> list[Panel]:
    """A panel for each value of an axis, with each setup at its best cell on validation.

    The axis: of those that vary after tuning, the first that most setups have.
    """
    left = [key for key in study.varying if key != study.tuned_axis]
    having = {key: sum(cell.point.get(key) is not None for cell in study.chosen) for key in left}
    found = []
    for point in style.panel_points(study, max(left, key=having.__getitem__, default=None)):
        best = [best_at(study.chosen, setup, point) for setup in study.setups]
        cells = [cell for cell in best if cell is not None]
        found += [Panel(study.cell_words(point), cells)] if cells else []
    return found


def learning_curves(
    shown: Sequence[Panel], looks: style.Looks, *, quantity: str, against: str
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
            _draw(axes, cell, looks[cell.setup], quantity, against)
            for run in cell.runs:
                if run.history.diverged_at is not None:
                    seconds = 0.0 if run.result is None else run.result.train_seconds
                    place = run.history.diverged_at if against == "examples" else seconds
                    style.cross(axes, place, 0.03, looks[cell.setup])
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


def _draw(axes: Axes, cell: Cell, look: style.Look, quantity: str, against: str) -> None:
    runs = [run for run in cell.runs if ("val", "running") in run.history.curves]
    whole = [run for run in runs if run.state == "completed"]
    band = len(whole) >= SEEDS_FOR_A_BAND
    for some in [whole] if band else [[run] for run in runs]:
        x, middle, half = _mean(some, "running", quantity, against)
        every = max(1, len(x) // 5)
        axes.plot(x, middle, lw=1.4, ms=3.6, markevery=(0, every), **look.line)
        if band:
            axes.fill_between(x, middle - half, middle + half, color=look.color, alpha=0.18, lw=0)
        if any(map(_has_batch, some)):
            x, middle, _ = _mean(some, "batch", quantity, against)
            axes.plot(x, middle, color=look.color, ls=":", lw=1.3 if band else 1.1)


def _mean(runs: Sequence[StudiedRun], kind: str, quantity: str, against: str) -> np.ndarray:
    """x, mean over seeds and half of its interval at each evaluation that all seeds have; of
    several seeds, where all are finite."""
    curves = [
        run.history.curves["val", kind] for run in runs if ("val", kind) in run.history.curves
    ]
    seeds = []
    for curve in curves:
        x = curve.examples if against == "examples" else curve.seconds
        y = [100 * value for value in curve.accuracy] if quantity == "accuracy" else curve.loss
        seeds.append(dict(zip(curve.examples, zip(x, y, strict=True), strict=True)))
    found = []
    for at in sorted(set(seeds[0]).intersection(*seeds)):
        places, values = zip(*(seed[at] for seed in seeds), strict=True)
        if all(map(isfinite, values)):
            point = mean(values)
            found.append((mean(places).value, point.value, point.half_width or 0.0))
        elif len(seeds) == 1:
            found.append((*places, nan, nan))
    return np.array(found, dtype=float).reshape(-1, 3).T


def caption(study: Study, panels: Sequence[Panel]) -> str:
    """What the curves are of, in a sentence."""
    seeds = max((len(cell.completed) for panel in panels for cell in panel.cells), default=0)
    lines = "each seed a line"
    if seeds >= SEEDS_FOR_A_BAND:
        lines = "the mean over seeds with its 95 % interval"
    where = " Each setup at its best values on validation." if study.varying else ""
    return f"Full lines: running statistics, {lines}; dotted: batch statistics.{where}"
