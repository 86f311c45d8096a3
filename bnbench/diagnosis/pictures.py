"""What is drawn of a diagnosis: how far each layer is off, and its channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import exp, isfinite
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from torch import Tensor

from bnbench import palette
from bnbench.diagnosis import criteria
from bnbench.diagnosis.result import Diagnosis, LayerReading
from bnbench.diagnosis.words import badness, below_zero
from bnbench.report.figures import Drawn, as_svg, style

NAME = 32
"""Characters of a layer's name that are shown, the last ones: they tell more."""

ROW, LOWEST_ROW, TALLEST = 0.21, 0.05, 12.0
"""Inches: of a row with its name, of one of many rows, of all of them."""

MOST_LAYERS = 3
"""Of which channels are drawn: the worst."""

MOST_CHANNELS = 256
"""Of a layer: dots that can still be told apart."""

MOST_FACTOR = 1e12
"""Between variances: more is drawn as that."""

FAR: dict[str, Any] = {"color": palette.COLORS[4], "marker": "D", "ms": 4.5}
NEAR: dict[str, Any] = {"color": style.SLATE, "marker": "o", "ms": 3.5}
CALLS = tuple(palette.COLORS[place] for place in (1, 3, 2, 6, 8))
"""Of a layer's calls in a forward pass."""


def drawn(diagnosis: Diagnosis) -> list[Drawn]:
    """The pictures that there is something for."""
    with style.applied():
        return [
            Drawn(name, "layers", title, caption, as_svg(figure, name), {})
            for name, title, caption, figure in (*_off(diagnosis), *_channels(diagnosis))
        ]


# --- layers -----------------------------------------------------------------------------------


def _off(diagnosis: Diagnosis) -> Iterator[tuple[str, str, str, Figure]]:
    """How far running statistics are off, and what that costs: a row for each layer."""
    layers = [each for each in diagnosis.layers if _finite(each.mean_error)]
    if not layers:
        return
    blamed = sum(_finite(each.blame) for each in layers)
    row = max(LOWEST_ROW, min(ROW, TALLEST / len(layers)))
    labels = _labels(layers, row)
    figure, panels = style.panels(
        2 + bool(blamed),
        height=0.75 + row * len(layers),
        left=style.room_for(labels.values(), style.SMALL - 1),
        share_y=True,
    )
    means = [each.mean_error or 0.0 for each in layers]
    factors = [min(exp(min(each.variance_error or 0.0, 50.0)), MOST_FACTOR) for each in layers]
    _rows(panels[0], means, criteria.OFF, "means off, |Δμ|/σ (standard deviations)")
    _rows(panels[1], factors, exp(criteria.OFF_VARIANCE), "variances off by a factor of")
    subs = (1, 2, 5) if max(means) < 5 else (1,)
    ticks = [sub * 10.0**k for k in range(-1, 13) for sub in subs]
    panels[0].set_xscale("symlog", linthresh=criteria.OFF)
    panels[0].set_xlim(0, 1.5 * max(*means, 2 * criteria.OFF))
    panels[0].xaxis.set_major_locator(FixedLocator([0, *ticks]))
    panels[1].set_xscale("log")
    panels[1].set_xlim(1, max(factors) ** 1.1 if max(factors) > 2 else 2.2)
    ticks = [1, 1.5, 2, 3, 5, 10, 20, 50] if max(factors) < 60 else [10.0**k for k in range(13)]
    panels[1].xaxis.set_major_locator(FixedLocator(ticks))
    if blamed:
        _blame(panels[2], layers, diagnosis.readings[0].unit)
    for axes in panels[:2]:
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panels[0].set_yticks(list(labels), list(labels.values()))
    panels[0].set_ylim(len(layers) - 0.5, -0.5)
    title = "How far the running statistics of each layer are off"
    left_out = len(diagnosis.layers) - len(layers)
    yield "layers-off", title, _off_caption(layers, left_out, labels, blamed), figure


def _rows(axes: Axes, values: Sequence[float], limit: float, label: str) -> None:
    """A dot for each layer; those beyond the limit stand out."""
    axes.axvline(limit, **style.CHANCE)
    for place, value in enumerate(values):
        axes.plot([value], [place], ls="", clip_on=False, **(FAR if value >= limit else NEAR))
    axes.set_xlabel(label)
    axes.yaxis.grid(visible=False)


def _blame(axes: Axes, layers: Sequence[LayerReading], unit: str) -> None:
    """A line from 0 for each layer that has one."""
    axes.axvline(0, **style.ZERO)
    least = criteria.HARM_LOSS if unit else 0.0  # so that trifles do not look large
    axes.plot([-least, least], [0, 0], ls="")
    for place, each in enumerate(layers):
        if each.blame is not None and isfinite(each.blame):
            axes.plot([0, each.blame], [place, place], color=style.SLATE, lw=1.2)
            axes.plot([each.blame], [place], ls="", **NEAR)
    axes.set_xlabel(f"blame (loss{unit and f', {unit}'})")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.grid(visible=False)


def _labels(layers: Sequence[LayerReading], row: float) -> dict[int, str]:
    """Names by row: of all layers, or, where rows are lower than words, of the worst ones."""
    apart = -(-style.SMALL * 1.35 // (72 * row))  # rows, rounded up
    places: list[int] = []
    for place in sorted(range(len(layers)), key=lambda each: badness(layers[each]), reverse=True):
        if all(abs(place - other) >= apart for other in places):
            places.append(place)
    return {place: _short(layers[place].name) for place in sorted(places)}


def _off_caption(
    layers: Sequence[LayerReading], left_out: int, labels: dict[int, str], blamed: int
) -> str:
    known = f" whose error is known, {len(layers)} of {len(layers) + left_out}" if left_out else ""
    named = "" if len(labels) == len(layers) else "; the worst ones have their names"
    far = "Red diamonds are far off, at"
    if not any(map(criteria.off, layers)):
        far = "None is far off, at"
    said = (
        f"A row for each BatchNorm layer{known}, in the network’s order{named}. First panel: "
        "running against population means, in standard deviations, averaged over channels (an even "
        f"scale up to {criteria.OFF:g}, a logarithmic one from there). Second panel: the factor "
        "between running and population variances, averaged over channels on a logarithmic scale. "
        f"{far} the broken lines, {criteria.OFF:g} standard deviations and a factor of "
        f"{exp(criteria.OFF_VARIANCE):.2f}, or beyond."
    )
    if blamed:
        which = "" if blamed == len(layers) else f", measured for {blamed} of the layers"
        said += (
            " Third panel: blame, the loss under a layer’s running statistics minus that under the "
            f"batch’s{which}{below_zero(layers, ' ')}."
        )
    return said


# --- channels ---------------------------------------------------------------------------------


def _channels(diagnosis: Diagnosis) -> Iterator[tuple[str, str, str, Figure]]:
    """Running against population statistics of the worst layers: a dot for each channel."""
    first = diagnosis.findings[0].layers if diagnosis.findings else ()
    known = [
        each
        for each in diagnosis.layers
        if each.name in diagnosis.running and each.name in diagnosis.population
    ]
    worst = sorted(known, key=lambda each: (each.name in first, badness(each)), reverse=True)
    shown = [each for each in known if each in worst[:MOST_LAYERS]]
    if not shown:
        return
    pools = [diagnosis.population[each.name] for each in shown]
    calls = max(len(pool.calls) for pool in pools)
    legend = []
    if calls > 1:
        legend = [
            style.symbol(f"call {k + 1}", style.MARKERS[k], color=color, ms=4.5)
            for k, color in enumerate(CALLS[:calls])
        ]
    # One column would be far wider than high.
    columns = max(len(shown), 2)
    figure, panels = style.panels(2 * len(shown), legend, columns=columns, height=2.7)
    for k, (each, pool) in enumerate(zip(shown, pools, strict=True)):
        several = pool.calls[: len(CALLS)] if len(pool.calls) > 1 else [pool]
        for part, axes in enumerate((panels[k], panels[k + len(shown)])):
            running = diagnosis.running[each.name][part]
            others = [(call.mean, call.variance)[part] for call in several]
            _against(axes, running, others, log_scale=part == 1)
            axes.set_xlabel(f"running {('mean', 'variance')[part]}")
            axes.set_ylabel(f"population {('mean', 'variance')[part]}")
            if part == 0:
                axes.set_title(_short(each.name))
    title = "Running against population statistics, channel by channel"
    yield "channels", title, _channels_caption(shown, len(known), calls), figure


def _against(axes: Axes, running: Tensor, others: Sequence[Tensor], *, log_scale: bool) -> None:
    """A dot for each channel, of each call; on the line both are the same."""
    step = -(-len(running) // MOST_CHANNELS)
    log_scale = log_scale and any(bool((each > 0).any()) for each in (running, *others))
    if log_scale:
        axes.set(xscale="log", yscale="log")
    for k, other in enumerate(others):
        color = style.SLATE if len(others) == 1 else CALLS[k]
        axes.plot(
            running[::step].tolist(),
            other[::step].tolist(),
            ls="",
            marker=style.MARKERS[k],
            color=color,
            ms=3.5,
            alpha=0.75,
        )
    axes.margins(0)
    reach = (*axes.get_xlim(), *axes.get_ylim())
    ends = (min(reach), max(reach))
    axes.plot(ends, ends, zorder=1, **style.ZERO)
    axes.margins(0.06)  # of what both axes show, or dots of a narrow one are cut by the frame
    ends = axes.get_xlim()
    axes.set(xlim=ends, ylim=ends)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        if log_scale and ends[1] < 10 * ends[0]:
            axis.set_major_locator(MaxNLocator(4))
        elif log_scale:  # so many in a decade that they reach both ends
            wide = ends[1] / ends[0]
            subs = [1.0, 2.0, 5.0] if wide < 100 else [1.0, 3.0] if wide < 1000 else [1.0]
            axis.set_major_locator(LogLocator(subs=subs, numticks=5))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))


def _channels_caption(shown: Sequence[LayerReading], known: int, calls: int) -> str:
    which = "each layer" if len(shown) == known else f"the {len(shown)} worst of {known} layers"
    every = ""
    if any(each.channels > MOST_CHANNELS for each in shown):
        every = f" (of more than {MOST_CHANNELS} every second, third, … one)"
    said = (
        f"Of {which}: across, the statistic that eval() uses; up, the one that the training images "
        f"have with these weights. A dot is a channel{every}; on the line both are the same. "
        "Means are in the unit of the layer’s inputs, variances in its square, on logarithmic axes."
    )
    if calls > 1:
        more = f", the first {len(CALLS)} of them" if calls > len(CALLS) else ""
        said += (
            f" Where a forward pass calls a layer several times, each call has its own{more}: one "
            "running statistic cannot be on the line for all."
        )
    return said


def _short(name: str) -> str:
    name = " ".join((name or "(the model)").split())
    return name if len(name) <= NAME else f"…{name[1 - NAME :]}"


def _finite(value: float | None) -> bool:
    return value is not None and isfinite(value)
