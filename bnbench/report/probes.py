"""Pictures of what probes have read: bands, curves, and heat maps of layer × time.

Each function takes run folders of one experiment, reads nothing but their events, and raises
ValueError where none of them has the readings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, nan

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, NullFormatter

from bnbench.report.curves import COLORS
from bnbench.store import RunFolder

NETWORK = "network"
Series = dict[int, float]
"""A reading by images seen; NaN where it was not finite."""


@dataclass(frozen=True, slots=True)
class Readings:
    """What one probe has read in one run: layers in the order of the network."""

    setup: str
    layers: dict[str, dict[str, Series]] = field(default_factory=dict)

    def of(self, layer: str, name: str) -> tuple[list[int], list[float]]:
        """Images seen and values, for drawing."""
        series = self.layers.get(layer, {}).get(name, {})
        return list(series), list(series.values())

    def with_name(self, name: str) -> list[str]:
        """The layers that have a reading of this name, the whole network aside."""
        return [layer for layer, found in self.layers.items() if name in found and layer != NETWORK]


def readings_of(runs: Sequence[RunFolder], probe: str) -> list[Readings]:
    """One probe's readings of each run that has some, in the order of the runs."""
    found = []
    for run in runs:
        readings = Readings((run.manifest() or {}).get("setup", run.name))
        for record in run.records():
            if record["event"] == "probe" and record["probe"] == probe:
                series = readings.layers.setdefault(record["layer"], {})
                value = record["value"]
                here = series.setdefault(record["name"], {})
                here[record["examples"]] = nan if value is None else value
        if readings.layers:
            found.append(readings)
    if not found:
        raise ValueError(f"no run has readings of the probe {probe}")
    return found


def percentile_bands(runs: Sequence[RunFolder], *, layer: str | None = None) -> Figure:
    """15th, 50th and 85th percentile of a typical unit's input over training, a panel a run.

    `layer`: whose unit; by default the last that feeds an activation (Ioffe & Szegedy 2015, figure
    1b and 1c). All panels share their scale.
    """
    found = readings_of(runs, "activation_drift")
    figure, panels = _panels(len(found), columns=4, height=2.4, share_y=True)
    for axes, readings in zip(panels, found, strict=True):
        shown = layer or readings.with_name("p50")[-1]
        examples, low = readings.of(shown, "p15")
        _, middle = readings.of(shown, "p50")
        _, high = readings.of(shown, "p85")
        axes.fill_between(examples, low, high, color=COLORS[0], alpha=0.25, lw=0)
        axes.plot(examples, middle, color=COLORS[0], lw=1.5)
        for edge in (low, high):
            axes.plot(examples, edge, color=COLORS[0], lw=0.8)
        axes.set_title(f"{readings.setup}\n{shown}", fontsize=9)
    figure.supylabel("input of a unit: 15, 50, 85 %", fontsize=9)
    figure.supxlabel("training images seen", fontsize=9)
    return figure


def landscape_bands(runs: Sequence[RunFolder]) -> Figure:
    """How loss and gradient vary along the gradient (Santurkar et al. 2018, figure 4), over
    training: raw above, at matched relative steps below; ranges as bands, a colour a run."""
    found = readings_of(runs, "landscape")
    figure, panels = _panels(6, columns=3, height=2.7)
    rows = (
        ("", "change", "beta", "steps η"),
        ("relative_", "relative_change", "relative_beta_w2", "relative steps"),
    )
    titles = ("range of the loss", "range of ‖change of gradient‖", "effective β")
    scale_free = ("range of the loss", "the same, scale-free, over ‖gradient‖", "β·‖w‖²")
    for row, (prefix, change, beta, steps) in enumerate(rows):
        loss, gradient, smoothness = panels[3 * row : 3 * row + 3]
        for color, readings in zip(COLORS, found, strict=False):
            for axes, name in ((loss, f"{prefix}loss"), (gradient, change)):
                examples, low = readings.of(NETWORK, f"{name}_min")
                _, high = readings.of(NETWORK, f"{name}_max")
                axes.fill_between(examples, low, high, color=color, alpha=0.3, lw=0)
                axes.plot(examples, high, color=color, lw=1.2)
                axes.plot(examples, low, color=color, lw=0.6)
            smoothness.plot(*readings.of(NETWORK, beta), color=color, lw=1.5, label=readings.setup)
        words = titles if row == 0 else scale_free
        for axes, title in zip((loss, gradient, smoothness), words, strict=True):
            axes.set_title(title, fontsize=9)
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(NullFormatter())
        loss.set_ylabel(steps, fontsize=9)
    figure.legend(*panels[2].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.supxlabel("training images seen", fontsize=9)
    return figure


def reading_curves(
    runs: Sequence[RunFolder], probe: str, name: str, *, layers: str | None = None
) -> Figure:
    """A reading over training, a line a run: the network's, else the mean over its layers.

    `layers`: only those that also have a reading of this name (`p50`: those that feed an
    activation).
    """
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for color, readings in zip(COLORS, readings_of(runs, probe), strict=False):
        if layers is None and name in readings.layers.get(NETWORK, {}):
            examples, values = readings.of(NETWORK, name)
        else:
            table = _table(readings, name, within=layers)
            examples, values = table.examples, list(table.values.mean(0))
        axes.plot(examples, values, color=color, lw=1.5, label=readings.setup)
    _plain(axes)
    axes.set_xlabel("training images seen")
    axes.set_ylabel(f"{probe}: {name}")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


def layer_heat_maps(
    runs: Sequence[RunFolder], probe: str, name: str, *, log: bool = False
) -> Figure:
    """Layer × time, a panel a run, one colour scale for all; the first layer on top.

    Readings below zero get a scale that is white at zero. What was not finite is grey, and so is,
    where `log`, what is not positive.
    """
    tables = {
        readings.setup: _table(readings, name)
        for readings in readings_of(runs, probe)
        if readings.with_name(name)
    }
    if not tables:
        raise ValueError(f"no run has layers with a reading {name} of the probe {probe}")
    values = np.concatenate([table.values.ravel() for table in tables.values()])
    finite = values[np.isfinite(values) & (values > 0 if log else True)]
    colors, norm = _scale(finite, log=log)
    tallest = max(len(table.layers) for table in tables.values())
    figure, panels = _panels(len(tables), columns=2, height=0.9 + 0.2 * tallest)
    for axes, (setup, table) in zip(panels, tables.items(), strict=True):
        shown = np.ma.masked_invalid(table.values)
        shown = np.ma.masked_less_equal(shown, 0) if log else shown
        drawn = axes.pcolormesh(
            _edges(table.examples),
            np.arange(len(table.layers) + 1),
            shown,
            cmap=colors,
            norm=norm,
        )
        axes.set_facecolor("0.8")
        axes.set_yticks(np.arange(len(table.layers)) + 0.5, table.layers, fontsize=6)
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.set_title(setup, fontsize=9)
    figure.colorbar(drawn, ax=panels, label=f"{probe}: {name}", aspect=30)
    figure.supxlabel("training images seen", fontsize=9)
    return figure


@dataclass(frozen=True, slots=True)
class _Table:
    """One reading of all layers at all times: values are (layers, times), NaN where missing."""

    layers: list[str]
    examples: list[int]
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def _table(readings: Readings, name: str, *, within: str | None = None) -> _Table:
    layers = readings.with_name(name)
    if within is not None:
        layers = [layer for layer in layers if within in readings.layers[layer]]
    if not layers:
        raise ValueError(f"{readings.setup}: no layer has a reading {name}")
    examples = sorted({at for layer in layers for at in readings.layers[layer][name]})
    values = [[readings.layers[layer][name].get(at, nan) for at in examples] for layer in layers]
    return _Table(layers, examples, np.array(values, dtype=np.float64))


def _scale(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], *, log: bool
) -> tuple[str, Normalize]:
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


def _edges(examples: Sequence[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Where each reading's column begins and ends: half-way to its neighbours."""
    at = np.array(examples, dtype=np.float64)
    if len(at) == 1:
        return np.array([at[0] - 0.5, at[0] + 0.5])
    middles = (at[1:] + at[:-1]) / 2
    return np.concatenate([[at[0]], middles, [at[-1]]])


def _panels(
    count: int, *, columns: int, height: float, share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, in rows; those left over are taken out."""
    wide = min(count, columns)
    rows = ceil(count / wide)
    figure = Figure(figsize=(1.2 + 2.7 * wide, 0.4 + height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(rows, wide, sharey=share_y, squeeze=False).ravel())
    for left_over in panels[count:]:
        left_over.remove()
    for axes in panels[:count]:
        _plain(axes)
    return figure, panels[:count]


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 5k
