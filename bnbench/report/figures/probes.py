"""Pictures of what probes recorded: bands, curves, and heat maps of layer × time.

Each function takes the readings of runs of one experiment, and raises ValueError if none of them
has the readings. `looks`: of the setups, where the figure is one of several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bnbench import store
from bnbench.report.figures import style
from bnbench.report.figures.style import Look, Looks
from bnbench.report.reading import Series, read_history

NETWORK = "network"
IMAGES = "training images seen"
LANDSCAPE = (
    (
        ("loss", "change", "beta"),
        ("range of the loss", "range of ‖change of gradient‖", "effective β"),
        "steps η",
    ),
    (
        ("relative_loss", "relative_change", "relative_beta_w2"),
        ("range of the loss", "the same, scale-free, over ‖gradient‖", "β·‖w‖²"),
        "relative steps",
    ),
)
"""For each row of panels: readings, titles, what the ranges are over."""
Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Readings:
    """The readings of one probe in one run: layers in the order of the network."""

    setup: str
    layers: Mapping[str, Mapping[str, Series]]

    def of(self, layer: str, name: str) -> tuple[list[int], list[float]]:
        """Images seen and values, for drawing."""
        series = self.layers.get(layer, {}).get(name, {})
        return list(series), list(series.values())

    def with_name(self, name: str) -> list[str]:
        """The layers with a reading of this name, without the whole network."""
        return [layer for layer, found in self.layers.items() if name in found and layer != NETWORK]


@dataclass(frozen=True, slots=True)
class Probed:
    """All readings of one run: series by probe, layer and name."""

    setup: str
    probes: Mapping[str, Mapping[str, Mapping[str, Series]]]


def probed(run: store.RunFolder) -> Probed:
    """The readings of the run in a folder."""
    record = store.read(run)
    setup = run.name if record.manifest is None else record.manifest["setup"]
    return Probed(setup, read_history(record).probes)


def readings_of(runs: Sequence[Probed], probe: str) -> list[Readings]:
    """One probe's readings of each run that has some, in the order of the runs."""
    found = [Readings(run.setup, run.probes[probe]) for run in runs if run.probes.get(probe)]
    if not found:
        raise ValueError(f"no run has readings of the probe {probe}")
    return found


def _looks(found: Sequence[Readings], looks: Looks | None) -> Looks:
    setups = dict.fromkeys(readings.setup for readings in found)
    return looks or {setup: style.look(number) for number, setup in enumerate(setups)}


def percentile_bands(runs: Sequence[Probed], *, looks: Looks | None = None) -> Figure:
    """15th, 50th and 85th percentile of a typical unit's input over training, a panel a run.

    The unit is one of the last layer that feeds an activation (Ioffe & Szegedy 2015, figure 1b and
    1c). All panels share their scale.
    """
    found = [each for each in readings_of(runs, "activation_drift") if each.with_name("p50")]
    if not found:
        raise ValueError("no run has percentiles of the probe activation_drift")
    seen = _looks(found, looks)
    figure, panels = style.panels(len(found), columns=4, height=2.4, share_y=True)
    for axes, readings in zip(panels, found, strict=True):
        shown = readings.with_name("p50")[-1]
        color = seen[readings.setup].color
        examples, low = readings.of(shown, "p15")
        _, middle = readings.of(shown, "p50")
        _, high = readings.of(shown, "p85")
        axes.fill_between(examples, low, high, color=color, alpha=0.25, lw=0)
        axes.plot(examples, middle, color=color, lw=1.5)
        for edge in (low, high):
            axes.plot(examples, edge, color=color, lw=0.8)
        axes.set_title(style.shortened(f"{readings.setup}, {shown}"))
        style.count_on_x(axes)
    figure.supxlabel(IMAGES)
    figure.supylabel("input of a unit: 15, 50, 85 %")
    return figure


def landscape_bands(runs: Sequence[Probed], *, looks: Looks | None = None) -> Figure:
    """How loss and gradient vary along the gradient (Santurkar et al. 2018, figure 4), over
    training: raw above, at matched relative steps below; ranges as bands, a setup a colour."""
    found = readings_of(runs, "landscape")
    seen = _looks(found, looks)
    figure, panels = style.panels(6, _keys(found, seen), columns=3, height=2.7)
    for row, (names, titles, steps) in enumerate(LANDSCAPE):
        loss, gradient, smoothness = panels[3 * row : 3 * row + 3]
        for readings in found:
            look = seen[readings.setup]
            for axes, name in zip((loss, gradient), names[:2], strict=True):
                examples, low = readings.of(NETWORK, f"{name}_min")
                _, high = readings.of(NETWORK, f"{name}_max")
                axes.fill_between(examples, low, high, color=look.color, alpha=0.3, lw=0)
                axes.plot(examples, high, color=look.color, lw=1.2)
                axes.plot(examples, low, color=look.color, lw=0.6)
            _curve(smoothness, *readings.of(NETWORK, names[2]), look)
        for axes, title in zip((loss, gradient, smoothness), titles, strict=True):
            axes.set_title(title)
            style.count_on_x(axes)
            axes.set_yscale("log")
            style.plain_log_ticks(axes)
        loss.set_ylabel(steps)
    figure.supxlabel(IMAGES)
    return figure


def reading_curves(
    runs: Sequence[Probed], probe: str, name: str, *, looks: Looks | None = None
) -> Figure:
    """A reading over training, a line a run: the network's, else the mean over its layers."""
    found = readings_of(runs, probe)
    seen = _looks(found, looks)
    figure, (axes,) = style.panels(1, _keys(found, seen), height=2.6)
    for readings in found:
        if name in readings.layers.get(NETWORK, {}):
            examples, values = readings.of(NETWORK, name)
        else:
            _, examples, table = _table(readings, name)
            values = list(table.mean(0))
        _curve(axes, examples, values, seen[readings.setup])
    style.count_on_x(axes)
    figure.supxlabel(IMAGES)
    figure.supylabel(f"{probe}: {name}")
    return figure


def _curve(axes: Axes, examples: list[int], values: list[float], look: Look) -> None:
    (line,) = axes.plot(examples, values, color=look.color, lw=1.5, marker=look.marker, ms=3.6)
    style.dashed(line, look)


def _keys(found: Sequence[Readings], looks: Looks) -> list[Line2D | Patch]:
    setups = dict.fromkeys(readings.setup for readings in found)
    return [style.key(setup, looks[setup]) for setup in setups]


def layer_heat_maps(runs: Sequence[Probed], probe: str, name: str, *, log: bool = False) -> Figure:
    """Layer × time, a panel a run, one colour scale for all; the first layer on top.

    Readings below zero get a scale that is white at zero. Values that are not finite are grey; with
    `log`, values that are not positive, too.
    """
    tables = [
        (readings.setup, _table(readings, name))
        for readings in readings_of(runs, probe)
        if readings.with_name(name)
    ]
    if not tables:
        raise ValueError(f"no run has layers with a reading {name} of the probe {probe}")
    values = np.concatenate([table.ravel() for _, (_, _, table) in tables])
    finite = values[np.isfinite(values) & (values > 0 if log else True)]
    colors, norm = _scale(finite, log=log)
    layers = [layer for _, (some, _, _) in tables for layer in some]
    tallest = max(len(some) for _, (some, _, _) in tables)
    figure, panels = style.panels(
        len(tables), columns=2, height=0.9 + 0.16 * tallest, left=style.room_for(layers, 6)
    )
    for axes, (setup, (some, examples, table)) in zip(panels, tables, strict=True):
        shown = np.ma.masked_invalid(table)
        shown = np.ma.masked_less_equal(shown, 0) if log else shown
        rows = np.arange(len(some) + 1)
        drawn = axes.pcolormesh(_edges(examples), rows, shown, cmap=colors, norm=norm)
        axes.patch.set(facecolor="0.8", alpha=1)
        axes.set_yticks(rows[:-1] + 0.5, some, fontsize=6)
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.set_title(style.shortened(setup))
        style.count_on_x(axes)
    bar = figure.colorbar(drawn, ax=panels, aspect=30)
    bar.set_label(f"{probe}: {name}")
    if isinstance(norm, LogNorm):
        style.plain_log_ticks(bar.ax)
    figure.supxlabel(IMAGES)
    return figure


def _table(readings: Readings, name: str) -> tuple[list[str], list[int], Array]:
    """Layers, images seen, and one reading as (layers, times), NaN where it is missing."""
    layers = readings.with_name(name)
    if not layers:
        raise ValueError(f"{readings.setup}: no layer has a reading {name}")
    series = [readings.layers[layer][name] for layer in layers]
    examples = sorted({at for each in series for at in each})
    values = [[each.get(at, nan) for at in examples] for each in series]
    return layers, examples, np.array(values, dtype=np.float64)


def _scale(values: Array, *, log: bool) -> tuple[str, Normalize]:
    """Colours and their range; values that are all alike get a range around them."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if low < 0:
        most = max(-low, high)
        return "RdBu_r", Normalize(-most, most)
    if high <= low:
        low, high = (low / 2, low * 2) if low > 0 else (0.0, 1.0)
    if log and low > 0:
        return "viridis", LogNorm(low, high)
    return "viridis", Normalize(0.0, high)


def _edges(examples: Sequence[int]) -> Array:
    """Where each reading's column begins and ends: half-way to its neighbours."""
    at = np.array(examples, dtype=np.float64)
    if len(at) == 1:
        return np.array([at[0] - 0.5, at[0] + 0.5])
    middles = (at[1:] + at[:-1]) / 2
    return np.concatenate([[at[0]], middles, [at[-1]]])
