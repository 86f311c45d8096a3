"""While training: learning curves and the gap between both modes, a panel for each value of the
axes and a line for each setup."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import repeat
from math import inf, isfinite, log, nan
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bnbench.report.figures import style
from bnbench.report.figures.grid import Grid, grid_of
from bnbench.report.reading import Curve
from bnbench.report.study import Cell, StudiedRun, Study, best_at
from bnbench.report.words import GAP_IS
from bnbench.stats.differences import SEEDS_FOR_AN_INTERVAL, Range, mean

X_LABELS = {
    "examples": "training images seen",
    "seconds": "training time (s)",
    "steps": "training steps",
}
Y_LABELS = {
    "accuracy": "validation accuracy (%)",
    "loss": "validation loss (nats)",
    "gap": "eval mode better by (points)",
}
LINEAR_TO = 20
"""Points: where all gaps are smaller, a linear scale shows tenths, too."""
GAPS = (-50, -20, -10, -5, -2, -1, 0, 1, 2, 5, 10, 20, 50)
POSSIBLE = {"accuracy": Range(0.0, 100.0), "loss": Range(0.0, inf), "gap": Range(-100.0, 100.0)}


class Curves(NamedTuple):
    """What is drawn: the panels, and for each its cells, one of each setup."""

    grid: Grid
    cells: list[list[Cell]]
    classes: int | None

    @property
    def runs(self) -> list[StudiedRun]:
        """Of all panels."""
        return [run for panel in self.cells for cell in panel for run in cell.runs]


def curves(study: Study, shown: Sequence[Cell]) -> Curves:
    """A panel for each value of what varies after tuning; of these chosen cells."""
    left = [key for key in study.varying if key != study.tuned_axis]
    grid = grid_of(study, shown, left)
    best = [[best_at(shown, setup, point) for setup in study.setups] for point in grid.points]
    cells = [[cell for cell in panel if cell is not None] for panel in best]
    return Curves(grid, cells, study.classes)


def learning_curves(
    shown: Curves, looks: style.Looks, *, quantity: str = "accuracy", against: str = "examples"
) -> Figure | None:
    """Validation accuracy (a fraction, shown in percent) or loss while training, against images or
    seconds.

    Dotted lines: batch statistics, if a setup has any; others: running statistics. Three seeds and
    more: their mean with its 95 % interval; fewer: each seed. A cross is where one diverged. None
    without evaluations.
    """
    if not any(run.history.curves for run in shown.runs):
        return None
    handles = style.keys((run.setup for run in shown.runs), looks)
    if any(map(_has_batch, shown.runs)):
        handles.append(Line2D([], [], color=style.FAINT, ls=":", lw=1.3, label="batch statistics"))
    level = None
    if shown.classes is not None:
        level = 100 / shown.classes if quantity == "accuracy" else log(shown.classes)
        unit = "%" if quantity == "accuracy" else "nats"
        handles.append(style.chance_key(f"chance ({level:.3g} {unit})"))
    if any(run.history.diverged_at is not None for run in shown.runs):
        handles.append(style.symbol("diverged", "x", ms=5.5, mew=1.5))
    figure, panels = shown.grid.panels(handles, height=2.6)
    for axes, cells in zip(panels, shown.cells, strict=True):
        if level is not None:
            axes.axhline(level, **style.CHANCE)
        for cell in cells:
            _draw(axes, cell, looks[cell.setup], quantity, against)
            _mark_diverged(axes, cell, looks[cell.setup], against)
        style.count_on_x(axes)
        axes.set_xlim(left=0)
    if quantity == "loss":
        panels[0].set_yscale("log")
        style.plain_log_ticks(panels[0].yaxis)
    style.label(figure, X_LABELS[against], Y_LABELS[quantity])
    return figure


def with_gap(cells: Iterable[Cell]) -> list[Cell]:
    """Those whose gap was read at least three times while they trained."""
    return [
        cell
        for cell in cells
        if any(len(run.history.evaluated) > 2 and _has_batch(run) for run in cell.runs)
    ]


def gap_curves(shown: Curves, looks: style.Looks) -> Figure | None:
    """How many points of validation accuracy eval mode is better, against training steps; seeds as
    in `learning_curves`. None without cells.

    Where gaps are large (early ones may be tens of points, while which mode is ahead at the end is
    a matter of tenths), the scale is logarithmic beyond a point.
    """
    if not shown.runs:
        return None
    zero = Line2D([], [], label="above: eval mode better", **style.ZERO)
    handles = [*style.keys((run.setup for run in shown.runs), looks), zero]
    figure, panels = shown.grid.panels(handles, height=3.3)
    for axes, cells in zip(panels, shown.cells, strict=True):
        axes.axhline(0, **style.ZERO)
        for cell in cells:
            _draw(axes, cell, looks[cell.setup], "gap", "steps")
        axes.set_xscale("log")
        style.plain_log_ticks(axes.xaxis)
    if max(map(abs, panels[0].get_ylim())) > LINEAR_TO:
        panels[0].set_yscale("symlog", linthresh=1, linscale=0.4)
        axis = panels[0].yaxis
        axis.set_major_locator(FixedLocator(GAPS))
        axis.set_major_formatter(FuncFormatter(lambda gap, _: f"{gap:g}".replace("-", "−")))
        axis.set_minor_locator(NullLocator())
    style.label(figure, X_LABELS["steps"], Y_LABELS["gap"])
    return figure


def _has_batch(run: StudiedRun) -> bool:
    running, batch = (run.history.curves.get(("val", kind)) for kind in ("running", "batch"))
    return running is not None and batch is not None and running.accuracy != batch.accuracy


def _mark_diverged(axes: Axes, cell: Cell, look: style.Look, against: str) -> None:
    for run in cell.runs:
        if run.history.diverged_at is not None:
            seconds = 0.0 if run.result is None else run.result.train_seconds
            place = run.history.diverged_at if against == "examples" else seconds
            style.cross(axes, place, 0.03, look)


def _draw(axes: Axes, cell: Cell, look: style.Look, quantity: str, against: str) -> None:
    runs = [run for run in cell.runs if ("val", "running") in run.history.curves]
    whole = [run for run in runs if run.state == "completed"]
    of_all = len(whole) >= SEEDS_FOR_AN_INTERVAL
    for some in [whole] if of_all else [[run] for run in runs]:
        x, middle, *ends = _mean(some, "running", quantity, against)
        every = max(1, len(x) // 5)
        axes.plot(x, middle, lw=1.4, ms=3.6, markevery=(0, every), **look.line)
        if of_all:
            style.band(axes, x, np.array(ends).T, look.color)
        if quantity != "gap" and any(map(_has_batch, some)):
            x, middle, *_ = _mean(some, "batch", quantity, against)
            axes.plot(x, middle, color=look.color, ls=":", lw=1.3 if of_all else 1.1)


def _mean(runs: Sequence[StudiedRun], kind: str, quantity: str, against: str) -> np.ndarray:
    """x, mean over seeds and the ends of its interval at each evaluation that all seeds have; of
    several seeds, where all are finite."""
    seeds = []
    for run in runs:
        curve = run.history.curves.get(("val", kind))
        if curve is not None:
            xy = zip(getattr(curve, against), _values(run, curve, quantity), strict=False)
            seeds.append(dict(zip(curve.examples, xy, strict=False)))
    points = []
    for at in sorted(set(seeds[0]).intersection(*seeds)):
        places, values = zip(*(seed[at] for seed in seeds), strict=True)
        if all(map(isfinite, values)):
            ends = style.ends(values, POSSIBLE[quantity])
            points.append((mean(places).value, mean(values).value, *ends))
        elif len(seeds) == 1:
            points.append((*places, nan, nan, nan))
    return np.array(points, dtype=float).reshape(-1, 4).T


def _values(run: StudiedRun, curve: Curve, quantity: str) -> Iterable[float]:
    """Of one of a run's curves; of a gap what it is above that of batch statistics, as far as that
    goes, since a run may have ended between the two."""
    if quantity == "loss":
        return curve.loss
    less = run.history.curves.get(("val", "batch"), Curve()).accuracy
    pairs = zip(curve.accuracy, less if quantity == "gap" else repeat(0.0), strict=False)
    return (100 * (accuracy - other) for accuracy, other in pairs)


def caption(shown: Curves, gaps: Figure | None = None) -> str:
    """What these curves are of, or those of their gap in this figure."""
    runs = shown.runs
    completed = Counter(run.cell for run in runs if run.state == "completed")
    bands = {completed[run.cell] >= SEEDS_FOR_AN_INTERVAL for run in runs}
    said = [style.lines_words(bands)]
    if gaps is not None:
        said.append(f"{GAP_IS}.")
        if gaps.axes[0].get_yscale() == "symlog":
            said.append("The scale is linear from −1 to 1 and logarithmic beyond.")
    elif any(map(_has_batch, runs)):
        said.append(
            "Dotted: the same weights under batch statistics; other lines: running statistics."
        )
    if any(run.history.diverged_at is not None for run in runs):
        said += ["×: where a seed diverged."] * (gaps is None)
        said += ["Seeds that diverged are in no mean."] * (True in bands)
    return " ".join(said) + shown.grid.words
