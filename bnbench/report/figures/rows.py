"""Final scores and costs with a row for each cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from bnbench.report.figures import style
from bnbench.report.quantities import possible
from bnbench.report.study import Cell, Study
from bnbench.stats.differences import SEEDS_FOR_AN_INTERVAL, mean

ROWS = 16
"""Up to so many cells are shown; of more, each setup's best one."""
COSTS = {
    "images_per_second": "training images per second (higher is better)",
    "train_seconds": "seconds of training (lower is better)",
}


def rows(study: Study) -> list[Cell]:
    """The cells that are rows of a figure: those that tuning chose, unless they are too many."""
    cells = [cell for cell in study.chosen if cell.completed]
    if len(cells) > ROWS:
        cells = [cell for cell in study.best.values() if cell.completed]
    return cells


def by_setup(
    study: Study, looks: style.Looks, labels: Mapping[str, str], *, level: float | None = None
) -> Figure | None:
    """Properties of runs by name with their labels, a panel each: a row for each cell: its seeds as
    dots, of three and more also their mean with its interval. None without a value.

    `level`: of properties that are fractions, shown in percent, what is drawn as a line.
    """
    shown = [cell for cell in rows(study) if any(map(cell.values, labels))]
    if not shown:
        return None
    keys = [key for key in study.varying if key != study.tuned_axis]
    named = [style.shortened(study.named(cell, keys), 44) for cell in shown]
    figure, panels = style.panels(
        len(labels),
        columns=2,
        height=0.6 + 0.05 * len(labels) + 0.3 * len(shown),
        left=style.room_for(named, style.SMALL),
        share_y=len(labels) > 1,
        titled=False,
    )
    for axes, (name, label) in zip(panels, labels.items(), strict=True):
        for place, cell in enumerate(shown):
            scale = 1 if name in COSTS else 100
            values, look = [scale * value for value in cell.values(name)], looks[cell.setup]
            few = len(values) < SEEDS_FOR_AN_INTERVAL
            how: dict[str, Any] = {"marker": ".", "ms": 5, "alpha": 0.4}
            how = {"marker": look.marker, "ms": 5.5} if few else how
            axes.plot(values, [place] * len(values), color=look.color, ls="", **how)
            if not few:
                axes.plot(
                    style.ends(values, possible(name, scale)),
                    [place, place],
                    color=look.color,
                    lw=1.4,
                )
                middle = mean(values).value
                axes.plot([middle], [place], color=look.color, marker=look.marker, ms=5.5, ls="")
        axes.set_yticks(range(len(shown)), named)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.yaxis.grid(visible=False)
        if level is not None:
            axes.axvline(level, **(style.CHANCE if level else style.ZERO))
        axes.set_xlabel(label)
    return figure


def costs(study: Study, looks: style.Looks) -> Figure | None:
    """Images a second and seconds of training."""
    figure = by_setup(study, looks, COSTS)
    if figure is None:
        return None
    for axes in figure.axes:
        style.count_on_x(axes)
        axes.set_xlim(0, 1.1 * axes.dataLim.x1)  # ends of intervals are data, too
    for label in figure.axes[1].get_yticklabels():
        label.set_visible(False)
    return figure


def caption(study: Study) -> str:
    """What the rows are: true of this study."""
    cells = rows(study)
    bands = {len(cell.completed) >= SEEDS_FOR_AN_INTERVAL for cell in cells}
    said = style.lines_words(bands, joined=False) + " Dots are seeds." * (True in bands)
    if len(cells) < sum(bool(cell.completed) for cell in study.chosen):
        said += " Each setup at its best values on validation."
    return said
