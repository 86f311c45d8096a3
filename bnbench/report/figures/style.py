"""The one style of all figures: colours, sizes, plain axes.

A setup keeps its colour through all figures and in TensorBoard, whose colours cannot be set from
outside: its palette, in its order. That palette alone is not safe. Simulated after Machado et al.
2009 (https://www.inf.ufrgs.br/~oliveira/pubs_files/CVD_Simulation/CVD_Simulation.html, severity 1),
the nearest pair of its first five colours is 10.5 apart (CIEDE2000; Okabe & Ito's five: 10.9),
but yellow and light green only 4.7 (protanopia), light green and orange 6.0 (deuteranopia). So each
setup has a marker and a dash pattern of its own, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, TypeVar

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.legend import Legend
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

from bnbench.config import identity
from bnbench.report.study import Study

# TensorBoard 2.21, webfiles.zip, index.js, `colorPalette`: its light theme.
PALETTE = ("#425066", "#12b5cb", "#e52592", "#f9ab00", "#9334e6", "#7cb342", "#e8710a")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
DASHES = ((), (6, 1.5), (4, 1.5, 1, 1.5), (3, 1), (8, 1.5, 1, 1.5, 1, 1.5))

# The page replaces these by its own colours, light or dark: each is used for nothing else.
INK = "#1f2328"
FAINT = "#6a7078"
GRID = "#d8dbdf"
SMALL = 8.5  # points
# Inches.
PANEL_WIDTH = 2.75
GAP = 0.15
ABOVE = 0.3  # for a line of the legend
BELOW = 0.25  # for the shared label
BETWEEN_ROWS = 0.5  # for ticks and the title of the next row
MOST_PANELS = 6


@dataclass(frozen=True, slots=True)
class Look:
    """How a setup is drawn."""

    color: str
    marker: str
    dashes: tuple[float, ...]


Looks = Mapping[str, Look]
"""By setup."""


def looks(study: Study) -> Looks:
    """A look for each setup: TensorBoard's order is that in which setups began to train."""
    manifests = [run.manifest for run in study.runs]
    # TensorBoard shows every run in the folder.
    manifests += [run.manifest_or_none() for run in study.others]
    begun: dict[str, tuple[float, str]] = {}
    for manifest in manifests:
        if manifest is not None:
            first = (float(manifest["started"]), str(manifest.get("run", "")))
            group = identity.slug(manifest["setup"], 32)
            begun[group] = min(first, begun.get(group, first))
    order = sorted(begun, key=lambda group: begun[group])
    order += [
        identity.slug(setup, 32) for setup in study.setups
    ]  # those that have not begun come last
    places = {group: place for place, group in enumerate(dict.fromkeys(order))}
    return {setup: look(places[identity.slug(setup, 32)]) for setup in study.setups}


Value = TypeVar("Value")


def evenly(values: Sequence[Value], most: int) -> list[Value]:
    """At most this many of them, the first and the last included."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def look(number: int) -> Look:
    """The look of the setup that comes at this place, from 0."""
    return Look(
        PALETTE[number % len(PALETTE)],
        MARKERS[number % len(MARKERS)],
        DASHES[number % len(DASHES)],
    )


def panels(
    count: int,
    *,
    columns: int = 3,
    height: float = 2.5,
    share_y: bool = False,
    left: float = 0.75,
) -> tuple[Figure, list[Axes]]:
    """A figure with this many plain panels, in rows.

    `height` of a row with its title and ticks, and room at the `left` of the first panel, in
    inches. Margins are fixed: a layout that measures every word doubles the time to draw.
    """
    wide = 2 if count == 4 and columns > 2 else min(count, columns)
    rows = ceil(count / wide)
    between = GAP if share_y else GAP + left
    width = left + 0.15 + PANEL_WIDTH * max(wide, 2)
    tall = ABOVE + BELOW + height * rows
    figure = Figure(figsize=(width, tall))
    FigureCanvasAgg(figure)
    panel = (width - left - 0.15 - between * (wide - 1)) / wide
    each = height - BETWEEN_ROWS
    found = list(
        figure.subplots(
            rows,
            wide,
            sharey=share_y,
            squeeze=False,
            gridspec_kw={
                "left": left / width,
                "right": 1 - 0.15 / width,
                "top": 1 - (ABOVE + BETWEEN_ROWS / 2) / tall,
                "bottom": (BELOW + BETWEEN_ROWS / 2) / tall,
                "wspace": between / panel,
                "hspace": BETWEEN_ROWS / each,
            },
        ).ravel()
    )
    for left_over in found[count:]:
        left_over.remove()
    for axes in found[:count]:
        plain(axes)
    return figure, found[:count]


def room_for(labels: Iterable[str], points: float) -> float:
    """The width of words next to an axis, in inches."""
    return 0.2 + max(map(len, labels), default=0) * 0.62 * points / 72


def plain(axes: Axes) -> None:
    """Few lines, small words, no frame."""
    axes.patch.set_alpha(0)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(labelsize=SMALL - 1, colors=FAINT, labelcolor=INK)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(INK)
        axis.label.set_fontsize(SMALL)
    axes.title.set_color(INK)
    axes.title.set_fontsize(SMALL)


def count_on_x(axes: Axes) -> None:
    """Images or seconds: few ticks, 5k instead of 5000."""
    axes.xaxis.set_major_locator(MaxNLocator(4))
    engineering = EngFormatter(sep="")
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{x:g}" if abs(x) < 1000 else engineering.format_eng(x))
    )


def log_on_y(axes: Axes) -> None:
    """A logarithmic scale with plain numbers: formulas are slow to draw."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def values_on_x(axes: Axes, values: Sequence[float], words: Sequence[str], *, log: bool) -> None:
    """A tick at each value of an axis; if there are many, at some of them."""
    if log:
        axes.set_xscale("log")
    every = ceil(len(values) / 7)
    axes.xaxis.set_major_locator(FixedLocator(list(values[::every])))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels(list(words[::every]))


def headed(axes: Axes, title: str) -> None:
    """A panel's title, at the left."""
    axes.set_title(words(title), fontsize=SMALL, color=INK, loc="left")


def labelled(figure: Figure, *, x: str | None = None, y: str | None = None) -> None:
    """Labels that all panels share."""
    if x is not None:
        figure.supxlabel(words(x), fontsize=SMALL, color=INK)
    if y is not None:
        figure.supylabel(words(y), fontsize=SMALL, color=INK)


def words(text: str, most: int = 60) -> str:
    """Text of users as it is: no formula between dollars, on one line, cut at `most`."""
    line = " ".join(text.split())
    line = line if len(line) <= most else f"{line[: most - 1]}…"
    return line.replace("$", r"\$")


def keyed(figure: Figure, handles: Iterable[Line2D | Patch]) -> Legend:
    """The legend, above all panels."""
    shown = list(handles)
    labels = [words(str(handle.get_label()), 26) for handle in shown]
    width = figure.get_size_inches()[0]
    widths = [0.62 + 0.58 * SMALL / 72 * len(label) for label in labels]
    fitting = len(shown) if sum(widths) <= width else max(1, int(width / max(widths)))
    columns = min(len(shown), fitting)
    _make_taller(figure, 0.19 * (ceil(len(shown) / columns) - 1))
    legend = figure.legend(
        handles=shown,
        labels=["setup"] * len(shown),  # a label that begins with _ would be left out
        loc="upper left",
        ncols=columns,
        frameon=False,
        fontsize=SMALL,
        labelcolor=INK,
        handlelength=2.6,
        columnspacing=1.4,
        borderaxespad=0.2,
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)
    return legend


def _make_taller(figure: Figure, inches: float) -> None:
    """Room at the top for more lines of the legend; panels keep their size."""
    if not inches or not figure.axes:
        return
    width, tall = figure.get_size_inches()
    grid = figure.axes[0].get_gridspec()
    assert isinstance(grid, GridSpec)
    old, shrunk = grid.get_subplot_params(figure), tall / (tall + inches)
    figure.set_size_inches(width, tall + inches)
    grid.update(top=old.top * shrunk, bottom=old.bottom * shrunk)
    for axes in figure.axes:
        place = axes.get_subplotspec()
        if place is not None:
            axes.set_position(place.get_position(figure))


def key(label: str, look: Look) -> Line2D:
    """A setup's line in the legend."""
    line = Line2D([], [], color=look.color, lw=1.6, label=label, ms=4.5)
    line.set_dashes(look.dashes) if look.dashes else line.set_linestyle("-")
    line.set_marker(look.marker)
    return line


def symbol(label: str, marker: str, **drawn: Any) -> Line2D:
    """A symbol without a line in the legend."""
    return Line2D([], [], ls="", marker=marker, label=label, **({"color": FAINT} | drawn))


def dashed(line: Line2D, look: Look) -> None:
    """Give a line its setup's pattern."""
    if look.dashes:
        line.set_dashes(look.dashes)


def cross(axes: Axes, x: float, y: float, look: Look, size: float) -> None:
    """A lost run at this x, at a fraction y of the axes' height."""
    axes.plot(
        [x],
        [y],
        transform=axes.get_xaxis_transform(),
        color=look.color,
        marker="x",
        ms=size,
        mew=1.5,
        ls="",
        clip_on=False,
    )
