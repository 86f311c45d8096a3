"""The one style of all figures: colours, sizes, panels with a legend above them.

A setup has the colour that `palette` gives it, and a marker and a dash pattern that go with it: a
figure can be read without its colours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import ceil, floor, log10, nan
from typing import Any, TypeAlias

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import (
    EngFormatter,
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
)

from bnbench import palette
from bnbench.config import identity
from bnbench.report.study import StudiedRun, Study
from bnbench.stats.differences import Range, mean
from bnbench.wording import RAISED, slug

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
DASHES = ((), (6, 1.5), (4, 1.5, 1, 1.5), (8, 1.5, 3, 1.5), (8, 1.5, 1, 1.5, 1, 1.5))

# The page replaces these by its own colours, light or dark: each is used for nothing else.
INK = "#1f2328"
FAINT = "#6a7078"
GRID = "#d8dbdf"
SLATE = "#425066"  # what belongs to no setup
SMALL = 8.5  # points
# Inches.
PANEL_WIDTH = 2.75
GAP = 0.15
ABOVE = 0.3  # for a line of the legend
MORE_ABOVE = 0.19  # for each further line
BELOW = 0.25  # for the shared label
BETWEEN_ROWS = 0.5  # for ticks and the title of the next row
UNTITLED = 0.1  # above panels without titles
MOST_COLUMNS = 3  # of full width
MANY = 10_000  # from there on 12k
LEAST_PLAIN, MOST_PLAIN = 1e-3, 1e5
BETWEEN_TICKS = 0.15  # of the values' range, at least, so that no word runs into the next

ZERO: dict[str, Any] = {"color": FAINT, "lw": 1.0}
CHANCE: dict[str, Any] = {"color": FAINT, "lw": 1.1, "ls": (0, (1, 1.2, 4, 1.2))}

SETTINGS: dict[Any, Any] = {
    "figure.facecolor": "white",
    "figure.labelsize": SMALL,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "text.color": INK,
    "text.parse_math": False,  # dollars in names are dollars
    "axes.facecolor": "none",
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelsize": SMALL,
    "axes.labelcolor": INK,
    "axes.titlesize": SMALL,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    **{f"{axis}tick.labelsize": SMALL - 1 for axis in "xy"},
    **{f"{axis}tick.color": FAINT for axis in "xy"},
    **{f"{axis}tick.labelcolor": INK for axis in "xy"},
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "legend.handlelength": 3.6,  # a marker would hide the one gap between two dashes
    "legend.columnspacing": 1.4,
    "legend.borderaxespad": 0.2,
    "path.simplify_threshold": 0.3,
    "svg.fonttype": "none",  # text stays text
    "pdf.fonttype": 42,  # TrueType: journals refuse type 3
}


def applied() -> AbstractContextManager[None]:
    """In force while figures are made and written."""
    return rc_context(SETTINGS)


@dataclass(frozen=True, slots=True)
class Look:
    """How a setup is drawn."""

    color: str
    marker: str
    dashes: tuple[float, ...]

    @property
    def line(self) -> dict[str, Any]:
        """The same as arguments of a line."""
        return {"color": self.color, "marker": self.marker, "dashes": self.dashes}


Looks: TypeAlias = Mapping[str, Look]
"""By setup."""


def looks(study: Study) -> Looks:
    """A look for each setup; the order is that in which setups began to train."""
    found = [(_group(run), run.manifest) for run in study.runs if run.manifest is not None]
    # TensorBoard shows the others, too.
    manifests = [run.folder.manifest_or_none() for run in study.others]
    found += [(slug(each["setup"], 32), each) for each in manifests if each is not None]
    # Those that have not begun come last.
    waiting = (run for run in study.runs if run.manifest is None)
    order = [(_group(run), identity.hparams(run.config)) for run in waiting]
    taken = palette.places([*palette.begun(found), *order])
    return {run.setup: look(taken[_group(run)]) for run in study.runs}


def _group(run: StudiedRun) -> str:
    """Runs of a colour: TensorBoard's are those of a setup. Single runs of different configurations
    have one each."""
    return slug(run.setup, 32) if run.setup == run.config.setup else run.setup


def look(place: int) -> Look:
    """The look of the setup at this place of the palette."""
    return Look(palette.color(place), MARKERS[place % len(MARKERS)], DASHES[place % len(DASHES)])


def lines_words(bands: Collection[bool], *, joined: bool = True) -> str:
    """How seeds are drawn, in a sentence. `bands`: whether there are intervals, of all that is
    drawn; `joined`: whether points of a setup are."""
    of_seed, of_mean = ("line", "band") if joined else ("marker", "line")
    if True not in bands:
        return f"Each seed a {of_seed}."
    whole = f"The mean over seeds with its 95 % interval as a {of_mean}"
    return whole + (f"; of fewer than three seeds each a {of_seed}." if False in bands else ".")


def varied(look: Look, number: int) -> Look:
    """The same colour with the dashes and the marker that come so many places later."""
    dashes = DASHES[(DASHES.index(look.dashes) + number) % len(DASHES)]
    return Look(look.color, MARKERS[(MARKERS.index(look.marker) + number) % len(MARKERS)], dashes)


def panels(
    count: int,
    legend: Sequence[Line2D | Patch] = (),
    *,
    columns: int = 3,
    height: float = 2.5,
    share_y: bool = False,
    left: float = 0.75,
    titled: bool = True,
    labelled: bool = True,
) -> tuple[Figure, list[Axes]]:
    """A figure with this many panels, in rows, and its legend above them. Many columns are narrow.

    `height` of a row with its title and ticks, and room at the `left` of the first panel, in
    inches. `titled`, `labelled`: whether panels have titles, and x a label: else there is no room
    for them. Margins are fixed: a layout that measures every word doubles the time to draw.
    """
    wide = min(count, columns)
    rows = ceil(count / wide)
    between = GAP if share_y else GAP + left
    width = left + 0.15 + max(2, min(wide, MOST_COLUMNS)) * PANEL_WIDTH
    labels = [shortened(str(handle.get_label()), 36) for handle in legend]
    widths = [0.74 + 0.58 * SMALL / 72 * len(label) for label in labels]
    in_a_row = len(labels) if sum(widths) <= width else max(1, int(width / max(widths)))
    above = ABOVE + MORE_ABOVE * (ceil(len(labels) / in_a_row) - 1) if labels else 0.0
    above += BETWEEN_ROWS / 2 if titled else UNTITLED
    below = BELOW * labelled + BETWEEN_ROWS / 2
    tall = above + below + height * rows - BETWEEN_ROWS
    figure = Figure(figsize=(width, tall))
    panel = (width - left - 0.15 - between * (wide - 1)) / wide
    margins = {
        "left": left / width,
        "right": 1 - 0.15 / width,
        "top": 1 - above / tall,
        "bottom": below / tall,
        "wspace": between / panel,
        "hspace": BETWEEN_ROWS / (height - BETWEEN_ROWS),
    }
    found = figure.subplots(rows, wide, sharey=share_y, squeeze=False, gridspec_kw=margins).ravel()
    for left_over in found[count:]:
        left_over.remove()
    if labels:
        # A label that begins with _ would be left out: the texts are set afterwards.
        made = figure.legend(legend, ["setup"] * len(labels), loc="upper left", ncols=in_a_row)
        for text, label in zip(made.get_texts(), labels, strict=True):
            text.set_text(label)
    return figure, list(found[:count])


def room_for(labels: Iterable[str], points: float) -> float:
    """The width of words next to an axis, in inches."""
    return 0.2 + max(map(len, labels), default=0) * 0.62 * points / 72


def count_on_x(axes: Axes) -> None:
    """Images or seconds: few ticks, all of them in thousands where that makes them short."""
    engineering = EngFormatter(sep="")

    def said(x: float, _: object) -> str:
        many = x != 0 and axes.get_xlim()[1] >= MANY
        return engineering.format_eng(x) if many else f"{x:,g}"

    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(said))


def plain_log_ticks(axis: Axis) -> None:
    """Numbers on a logarithmic axis that shows its data, all of them plain or all of them powers:
    formulas are slow to draw."""
    low, high = axis.get_view_interval()
    if high < 10 * low:
        axis.set_major_locator(MaxNLocator(5))
    else:  # LogLocator thins powers of ten, not what is between them
        between = (2.0, 5.0) if high < 1000 * low else ()
        axis.set_major_locator(LogLocator(subs=(1.0, *between), numticks=8))
    plain = low >= LEAST_PLAIN and high < MOST_PLAIN
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}" if plain else _power(x)))
    axis.set_minor_locator(NullLocator())


def _power(value: float) -> str:
    """`2·10⁻⁵`."""
    if value <= 0:  # a tick outside of the axis
        return ""
    exponent = floor(log10(value) + 1e-9)
    lead = f"{value / 10.0**exponent:.3g}·".removeprefix("1·")
    return f"{lead}10{str(exponent).translate(RAISED)}"


def label(figure: Figure, x: str, y: str) -> None:
    """Words along the panels, on both sides."""
    boxes = [axes.get_position() for axes in figure.axes]
    left, right = min(box.x0 for box in boxes), max(box.x1 for box in boxes)
    figure.supxlabel(x, x=(left + right) / 2)
    low, high = min(box.y0 for box in boxes), max(box.y1 for box in boxes)
    figure.supylabel(y, y=(low + high) / 2)


def values_on_x(axes: Axes, values: Sequence[float], words: Sequence[str], *, log: bool) -> None:
    """A tick at each of these rising values that is far enough from the tick before it."""
    if log:
        axes.set_xscale("log")
    places = np.log(values) if log else np.asarray(values, dtype=float)
    shown = [0]
    for number in range(1, len(places)):
        if places[number] - places[shown[-1]] > BETWEEN_TICKS * (places[-1] - places[0]):
            shown.append(number)
    axes.xaxis.set_major_locator(FixedLocator([values[number] for number in shown]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([words[number] for number in shown])


def shortened(text: str, most: int = 60) -> str:
    """Text of users on one line, cut at `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def keys(setups: Iterable[str], looks: Looks) -> list[Line2D | Patch]:
    """A line in the legend for each setup that is drawn, in the order of the looks."""
    there = set(setups)
    return [
        Line2D([], [], lw=1.6, ms=4.5, label=setup, **look.line)
        for setup, look in looks.items()
        if setup in there
    ]


def symbol(label: str, marker: str, **drawn: Any) -> Line2D:
    """A symbol without a line in the legend."""
    return Line2D([], [], ls="", marker=marker, label=label, **({"color": FAINT} | drawn))


def chance_key(words: str) -> Line2D:
    """Its line in the legend."""
    return Line2D([], [], label=words, **CHANCE)


def ends(values: Sequence[float], within: Range) -> tuple[float, float]:
    """Of the 95 % interval of the mean; NaN for fewer seeds than it takes."""
    interval = mean(values, within=within).interval if values else None
    return interval or (nan, nan)


def band(
    axes: Axes,
    x: Sequence[float] | np.ndarray,
    ends: np.ndarray,
    color: str,
    *,
    joined: bool = True,
) -> None:
    """Intervals (n, 2) at n places: a band, and a line where one has no neighbour to join."""
    there = np.isfinite(ends).all(1)
    next_to = np.zeros_like(there)
    if joined:
        next_to[1:] |= there[:-1]
        next_to[:-1] |= there[1:]
        axes.fill_between(x, *ends.T, color=color, alpha=0.16, lw=0)
    alone = there & ~next_to
    if alone.any():
        axes.vlines(np.asarray(x)[alone], *ends[alone].T, color=color, lw=1.1)


def cross(axes: Axes, x: float, y: float, look: Look) -> None:
    """A lost run at this x, at a fraction y of the axes' height."""
    where = axes.get_xaxis_transform()
    axes.plot([x], [y], "x", transform=where, color=look.color, ms=5.5, mew=1.5, clip_on=False)
