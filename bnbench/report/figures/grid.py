"""Which panels a figure has, and the words that tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bnbench.config import identity
from bnbench.report.figures import style
from bnbench.report.study import Cell, Point, Study
from bnbench.wording import in_words, key_words, listing

MOST_PANELS = 6
"""Along an axis."""


class Grid(NamedTuple):
    """Panels: a column for each value of one axis, a row for each of another.

    `points`: the values that each panel shows, row by row. `axes`: of the columns and of the rows,
    as far as there are any. `cut`: axes of which more values vary than there are panels. `best`:
    axes of which each setup has its best value on validation, since two are told apart by panels.
    `without`: by axis of the panels, the setups that have none, and are the same along it.
    """

    points: list[Point]
    axes: list[str]
    cut: list[str]
    best: list[str]
    without: dict[str, list[str]]

    @property
    def words(self) -> str:
        """What a caption must say of the choice of panels: sentences, each after a space."""
        said = [f" Not all values of {key_words(key)} are shown." for key in self.cut]
        said += [f" {key_words(key).capitalize()}: each setup's best value on validation."
                 for key in self.best]  # fmt: skip
        said += [f" Without {key_words(key)}, and so the same in each of its panels: "
                 f"{listing(setups, 'and')}." for key, setups in self.without.items()]  # fmt: skip
        return "".join(said)

    def panels(
        self, legend: Sequence[Line2D | Patch], *, height: float
    ) -> tuple[Figure, list[Axes]]:
        """A figure with them. What they show is said above a column and next to a row, or above
        each panel of a single axis, which is wrapped. `height`: of a row, in inches."""
        if len(self.axes) < 2:
            figure, panels = style.panels(
                len(self.points), legend, height=height, share_y=True, titled=any(self.points)
            )
            for axes, point in zip(panels, self.points, strict=True):
                axes.set_title(_said(point))
            return figure, panels
        column, row = self.axes
        columns = len({repr(point[column]) for point in self.points})
        figure, panels = style.panels(
            len(self.points), legend, columns=columns, height=height, share_y=True, left=0.95
        )
        for number, (axes, point) in enumerate(zip(panels, self.points, strict=True)):
            if number < columns:
                narrow = number and columns > style.MOST_COLUMNS
                axes.set_title(
                    in_words(point[column]) if narrow else _said({column: point[column]})
                )
            if number % columns == 0:
                axes.set_ylabel(_said({row: point[row]}))
        return figure, panels


def grid_of(study: Study, cells: Sequence[Cell], axes: Sequence[str]) -> Grid:
    """The panels for what varies among these cells along these axes."""
    having = {key: sum(has(cell, key) for cell in cells) for key in axes}
    # A panel of an axis that few setups have would repeat the lines of the others.
    shown = [key for key in axes if 2 * having[key] > len(cells)]
    shown = sorted(shown, key=having.__getitem__, reverse=True)[:2]
    null = {key for key in shown
            if any(has(cell, key) and cell.point[key] is None for cell in cells)}  # fmt: skip
    values = {key: [*study.axes[key], *[None] * (key in null)] for key in shown}
    shown = sorted(shown, key=lambda key: len(values[key]), reverse=True)
    points: list[Point] = [{}]
    for key in reversed(shown):
        every = values[key]
        last = min(len(every), MOST_PANELS) - 1
        some = [every[round(i * (len(every) - 1) / last)] for i in range(last + 1)]
        points = [{**point, key: value} for point in points for value in some]
    cut = [key for key in shown if len(values[key]) > MOST_PANELS]
    best = [key for key in axes if key not in shown and having[key]]
    lacking = {key: [*dict.fromkeys(cell.setup for cell in cells if not has(cell, key))]
               for key in shown}  # fmt: skip
    return Grid(points, shown, cut, best, {key: them for key, them in lacking.items() if them})


def has(cell: Cell, key: str) -> bool:
    """Whether an axis means something in a cell; null is a value."""
    return identity.value_at(cell.runs[0].config, key, identity.ANY) is not identity.ANY


def _said(point: Point) -> str:
    return ", ".join(f"{key_words(key)} {in_words(value)}" for key, value in point.items())


def axis_label(key: str) -> str:
    """An axis of the experiment with its unit."""
    unit = " (images)" if key.endswith("batch_size") else ""
    return f"{key_words(key)}{unit}"
