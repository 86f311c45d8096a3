"""Pictures of what probes recorded: bands, curves, and heat maps of layer × time.

Each function takes the readings of runs of one experiment, and raises ValueError if none of them
has the readings.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from math import nan
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from bnbench import palette, store
from bnbench.report.figures import style
from bnbench.report.reading import Series, read_history

NETWORK = "network"
IMAGES = "training images seen"
HEAT_MAPS = {
    "running_error": "mean",
    "gap_by_layer": "loss",
    "activation_drift": "mean_drift",
    "gradient_shift": "relative",
}
"""For each probe with readings of layers the one that is drawn as layer × time."""
WORDS = {
    ("running_error", "mean"): "error of running means (standard deviations)",
    ("gap_by_layer", "loss"): "cost of running statistics (nats)",
    ("activation_drift", "mean_drift"): "drift of means (standard deviations)",
    ("gradient_shift", "relative"): "change of the gradient, over its norm",
    ("gradient_shift", "cos"): "cosine between gradients",
    ("batch_noise", "noise"): "noise (ratio of variances)",
}
"""Of readings, on axes."""
DPI = 90
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


class Readings(NamedTuple):
    """The readings of one probe in one run: layers in the order of the network."""

    setup: str
    layers: Mapping[str, Mapping[str, Series]]

    def with_name(self, name: str) -> list[str]:
        """The layers with a reading of this name, without the whole network."""
        return [layer for layer, found in self.layers.items() if name in found and layer != NETWORK]

    def table(self, layers: Sequence[str], name: str) -> tuple[list[int], Array]:
        """Images seen, and one reading as (layers, times), NaN where it is missing."""
        series = [self.layers.get(layer, {}).get(name, {}) for layer in layers]
        examples = sorted({at for each in series for at in each})
        values = [[each.get(at, nan) for at in examples] for each in series]
        return examples, np.array(values, dtype=np.float64)


class Probed(NamedTuple):
    """All readings of one run: series by probe, layer and name."""

    setup: str
    probes: Mapping[str, Mapping[str, Mapping[str, Series]]]


def probed(run: store.RunFolder) -> Probed:
    """The readings of the run in a folder."""
    record = store.read(run)
    setup = run.name if record.manifest is None else record.manifest["setup"]
    return Probed(setup, read_history(record).probes)


def probe_pictures(run: store.RunFolder) -> dict[str, bytes]:
    """PNGs by name, shown in TensorBoard after the run has ended. What cannot be drawn is left
    out."""
    runs = [probed(run)]
    manifest = run.manifest()
    alone = palette.places([] if manifest is None else [(runs[0].setup, manifest["hparams"])])
    looks = {runs[0].setup: style.look(alone.get(runs[0].setup, 0))}
    drawings: dict[str, Callable[[], Figure]] = {
        "percentiles": partial(percentile_bands, runs, looks),
        "landscape": partial(landscape_bands, runs, looks),
    }
    for probe, name in HEAT_MAPS.items():
        drawings[f"{probe.removesuffix('_by_layer')}_by_layer"] = partial(
            layer_heat_maps, runs, probe, name, log=probe == "running_error"
        )
    found = {}
    for name, draw in drawings.items():
        with suppress(ValueError), style.applied():  # ValueError: no such readings
            buffer = io.BytesIO()
            draw().savefig(buffer, format="png", dpi=DPI)
            found[name] = buffer.getvalue()
    return found


def drawings(
    runs: Sequence[Probed], looks: style.Looks
) -> dict[str, tuple[str, str, Callable[[], Figure]]]:
    """Title, words and drawing of each figure of several runs, by name. A drawing raises ValueError
    where no run has its probe."""
    return {
        "activations": (
            "Inputs of a unit while training",
            "15th, 50th and 85th percentile over fixed images (Ioffe & Szegedy 2015, figure 1).",
            partial(percentile_bands, runs, looks),
        ),
        "landscape": (
            "The landscape along the gradient",
            "Ranges of loss and gradient over steps of several sizes (Santurkar et al. 2018).",
            partial(landscape_bands, runs, looks),
        ),
        "running-error": (
            "Running against population statistics",
            "How far each layer's running mean is from the one recomputed with the same weights "
            '("precise BN"), in its standard deviations.',
            partial(layer_heat_maps, runs, "running_error", "mean", log=True),
        ),
        "gap-by-layer": (
            "Which layer the gap comes from",
            "How much lower the loss is with that layer alone on batch statistics: above zero its "
            "running statistics hurt.",
            partial(layer_heat_maps, runs, "gap_by_layer", "loss"),
        ),
        "gradient-shift": (
            "How earlier layers' steps turn a layer's gradient",
            "Cosine between the gradient before and after, mean over layers (Santurkar et al. "
            "2018); 1: no shift.",
            partial(reading_curves, runs, looks, "gradient_shift", "cos"),
        ),
        "batch-noise": (
            "Noise from the other images in a batch",
            "Variance of the logits over random batches, over that between images.",
            partial(reading_curves, runs, looks, "batch_noise", "noise"),
        ),
    }


def readings_of(runs: Sequence[Probed], probe: str, name: str | None = None) -> list[Readings]:
    """One probe's readings of each run that has some, in the order of the runs. `name`: only of
    runs that have this reading of layers."""
    found = [Readings(run.setup, run.probes[probe]) for run in runs if run.probes.get(probe)]
    if name is not None:
        found = [each for each in found if each.with_name(name)]
    if not found:
        what = "readings" if name is None else f"layers with a reading {name}"
        raise ValueError(f"no run has {what} of the probe {probe}")
    return found


def percentile_bands(runs: Sequence[Probed], looks: style.Looks) -> Figure:
    """15th, 50th and 85th percentile of a typical unit's input over training, a panel a run.

    The unit is one of the last layer that feeds an activation (Ioffe & Szegedy 2015, figure 1b and
    1c). All panels share their scale.
    """
    found = readings_of(runs, "activation_drift", "p50")
    figure, panels = style.panels(len(found), columns=4, height=2.4, share_y=True)
    for axes, readings in zip(panels, found, strict=True):
        layer = readings.with_name("p50")[-1]
        widths = {"p50": 1.5, "p15": 0.8, "p85": 0.8}
        _band(axes, readings, layer, widths, looks[readings.setup].color, alpha=0.25)
        axes.set_title(style.shortened(readings.setup, 30))
        axes.annotate(layer, (0.03, 0.04), xycoords="axes fraction", fontsize=6.5)
        style.count_on_x(axes)
    style.label(figure, IMAGES, "input of a unit (its own unit)")
    return figure


def landscape_bands(runs: Sequence[Probed], looks: style.Looks) -> Figure:
    """How loss and gradient vary along the gradient (Santurkar et al. 2018, figure 4), over
    training: raw above, at matched relative steps below; ranges as bands, a setup a colour."""
    found = readings_of(runs, "landscape")
    handles = style.keys((readings.setup for readings in found), looks)
    figure, panels = style.panels(6, handles, columns=3, height=2.7)
    for row, (names, titles, steps) in enumerate(LANDSCAPE):
        shown = panels[3 * row : 3 * row + 3]
        for readings in found:
            look = looks[readings.setup]
            for axes, name in zip(shown, names[:2], strict=False):
                widths = {f"{name}_min": 0.6, f"{name}_max": 1.2}
                _band(axes, readings, NETWORK, widths, look.color, alpha=0.3)
            _curve(shown[2], readings, [NETWORK], names[2], look)
        for axes, title in zip(shown, titles, strict=True):
            axes.set_title(title)
            style.count_on_x(axes)
            axes.set_yscale("log")
            style.plain_log_ticks(axes.yaxis)
        shown[0].set_ylabel(steps)
    figure.supxlabel(IMAGES)
    return figure


def _band(
    axes: Axes,
    readings: Readings,
    layer: str,
    widths: Mapping[str, float],
    color: str,
    *,
    alpha: float,
) -> None:
    """A line of each width for the reading of this name, filled between the last two."""
    lines = {name: readings.table([layer], name) for name in widths}
    (examples, low), (_, high) = list(lines.values())[-2:]
    axes.fill_between(examples, low[0], high[0], color=color, alpha=alpha, lw=0)
    for name, (examples, values) in lines.items():
        axes.plot(examples, values[0], color=color, lw=widths[name])


def reading_curves(runs: Sequence[Probed], looks: style.Looks, probe: str, name: str) -> Figure:
    """A reading over training, a line a run: the network's, else the mean over its layers."""
    found = readings_of(runs, probe)
    handles = style.keys((readings.setup for readings in found), looks)
    figure, (axes,) = style.panels(1, handles, height=2.6, titled=False)
    for readings in found:
        of_network = name in readings.layers.get(NETWORK, {})
        layers = [NETWORK] if of_network else readings.with_name(name)
        _curve(axes, readings, layers, name, looks[readings.setup])
    style.count_on_x(axes)
    style.label(figure, IMAGES, WORDS[probe, name])
    return figure


def _curve(
    axes: Axes, readings: Readings, layers: Sequence[str], name: str, look: style.Look
) -> None:
    examples, values = readings.table(layers, name)
    axes.plot(examples, values.mean(0), lw=1.5, ms=3.6, **look.line)


def layer_heat_maps(runs: Sequence[Probed], probe: str, name: str, *, log: bool = False) -> Figure:
    """Layer × time, a panel a run, one colour scale for all; the first layer on top.

    Readings below zero get a scale that is white at zero. Values that are not finite are grey; with
    `log`, values that are not positive, too.
    """
    found = readings_of(runs, probe, name)
    named = [readings.with_name(name) for readings in found]
    tables = [each.table(layers, name) for each, layers in zip(found, named, strict=True)]
    values = np.concatenate([table.ravel() for _, table in tables])
    colors, norm = _scale(values[np.isfinite(values) & (not log or values > 0)], log=log)
    figure, panels = style.panels(
        len(tables),
        columns=2,
        height=0.9 + 0.16 * max(map(len, named)),
        left=style.room_for([layer for layers in named for layer in layers], 6),
    )
    for axes, readings, layers, (examples, table) in zip(panels, found, named, tables, strict=True):
        shown = np.ma.masked_invalid(table)
        shown = np.ma.masked_less_equal(shown, 0) if log else shown
        rows = np.arange(len(layers) + 1)
        drawn = axes.pcolormesh(_edges(examples), rows, shown, cmap=colors, norm=norm)
        axes.patch.set(facecolor="0.8", alpha=1)
        axes.set_yticks(rows[:-1] + 0.5, layers, fontsize=6)
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.set_title(style.shortened(readings.setup))
        style.count_on_x(axes)
    bar = figure.colorbar(drawn, ax=panels, aspect=30)
    bar.set_label(WORDS[probe, name])
    if isinstance(norm, LogNorm):
        style.plain_log_ticks(bar.ax.yaxis)
    figure.supxlabel(IMAGES)
    return figure


def _scale(values: Array, *, log: bool) -> tuple[str, Normalize]:
    """Colours and their range; values that are all alike get a range around them."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if low < 0:
        most = max(-low, high)
        return "RdBu_r", Normalize(-most, most)
    if high <= low:
        low, high = (low / 2, low * 2) if low > 0 else (0.0, 1.0)
    return "viridis", LogNorm(low, high) if log and low > 0 else Normalize(0.0, high)


def _edges(examples: Sequence[int]) -> list[float]:
    """Where each reading's column begins and ends: half-way to its neighbours."""
    if len(examples) == 1:
        return [examples[0] - 0.5, examples[0] + 0.5]
    middles = [(before + after) / 2 for before, after in pairwise(examples)]
    return [examples[0], *middles, examples[-1]]
