"""Runs reduced to one number: the metrics of claims, each computed within a seed; cells to a mean.

A run that diverged has the worst value of a metric (−inf accuracy, +inf examples to a target), and
so has a target that was never reached. What is missing is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import pairwise
from math import inf, isfinite, log2, log10
from statistics import median
from typing import Literal, assert_never

import numpy as np

from bnbench.config import metrics
from bnbench.config.metrics import LR
from bnbench.report.reading import Curve
from bnbench.report.study import METRICS, Cell, StudiedRun
from bnbench.stats.differences import Floats, Range, mean
from bnbench.store import Record

NETWORK = "network"
POINTS = 100.0
"""Accuracies, errors and disagreement are fractions and count in percentage points."""
INPUTS = "inputs"
When = Literal["last", "first", "mean"]


def quantity(
    metric: metrics.Metric, runs: Sequence[StudiedRun], *, target: float | None, when: When
) -> float | None:
    """The metric of one seed: of its single run, or (`UsableLr`) of its runs at all rates."""
    if isinstance(metric, metrics.UsableLr):
        return usable_lr(runs, metric.quantity, target=target or 0.0)
    (run,) = runs
    if run.result is None:
        return None
    if run.state == "diverged" and (end := metrics.worst(metric)) is not None:
        return inf if end == "high" else -inf
    match metric:
        case metrics.EndReading():
            accuracy = run.score(metric.split, metric.statistics)
            if accuracy is None:
                return None
            if metric.quantity != "loss":
                share = POINTS * accuracy
                return share if metric.quantity == "accuracy" else POINTS - share
            loss = run.score(metric.split, metric.statistics, "loss")
            return inf if loss is None else loss  # it was not finite
        case metrics.GapReading():
            gap = run.history.gaps.get(metric.split, {}).get(metric.quantity)
            if gap is None or not isfinite(gap) or run.state != "completed":
                return None  # the last gap of a diverged run is not at its end
            return gap * (POINTS if metric.quantity in ("accuracy", "disagreement") else 1.0)
        case metrics.ToTarget():
            curve = run.history.curves.get((metric.split, metric.statistics))
            return None if curve is None else to_target(curve, metric.quantity, target or 0.0)
        case metrics.Speed():
            value = run.metric(metric.quantity)
            return log2(value) if value else None
        case metrics.ProbeReading():
            return _probe(metric, run, when)
        case metrics.Column():
            return None  # of a table: no run has it
        case _:
            assert_never(metric)


def of_images(metric: metrics.Metric, run: StudiedRun) -> Floats | None:
    """(images,): what each test image adds to the metric of a run, so that it is their mean; None
    of another metric, and where the run does not say which images were right."""
    match metric:
        case metrics.EndReading("test", statistics, "accuracy" | "error" as name):
            right = _right(run, statistics)
            return right if right is None or name == "accuracy" else POINTS - right
        case metrics.GapReading("test", "accuracy"):
            running, batch = _right(run, "running"), _right(run, "batch")
            return None if running is None or batch is None else running - batch
        case _:
            return None


def _right(run: StudiedRun, statistics: str) -> Floats | None:
    """(images,): 100 for each test image that was right at the end, else 0."""
    if run.state != "completed" or statistics not in run.history.correct:
        return None
    images, bits = run.history.correct[statistics]
    unpacked = np.unpackbits(np.frombuffer(bits, np.uint8), count=images)
    return np.float32(POINTS) * unpacked.astype(np.float32)


def to_target(curve: Curve, name: str, target: float) -> float:
    """log₂ of the examples, steps or seconds until the accuracy is at least `target` at two
    evaluations in a row: at the first of the two. inf if it never is."""
    at: Sequence[float] = getattr(curve, name.removesuffix("_to_target"))
    pairs = zip(at, pairwise(curve.accuracy), strict=False)
    return next((log2(x) for x, both in pairs if min(both) >= target and x > 0), inf)


def usable_lr(runs: Sequence[StudiedRun], name: str, *, target: float) -> float | None:
    """The usable learning rates of one seed, in decades: log₁₀ of the largest, or of the widest
    unbroken range's ends' ratio.

    A rate is usable where the run completed with a final validation accuracy (running statistics)
    of `target` or more. −inf where none is. None while a run of the seed is missing.
    """
    if not runs or not all(run.result is not None for run in runs):
        return None
    # Rates of a grid have six digits: without rounding, a step of it would be above its size.
    found = sorted((round(log10(run.point[LR]), 5), usable(run, target)) for run in runs)
    if not any(works for _, works in found):
        return -inf
    if name == "usable_lr_max":
        return max(decades for decades, works in found if works)
    widest, begin = 0.0, None
    for decades, works in found:
        begin = None if not works else decades if begin is None else begin
        if begin is not None:
            widest = max(widest, decades - begin)
    return widest


def usable(run: StudiedRun, target: float) -> bool:
    """Whether a run trained to `target`, a validation accuracy under running statistics."""
    return (run.metric("val_accuracy") or 0.0) >= target


def _probe(metric: metrics.ProbeReading, run: StudiedRun, when: When) -> float | None:
    """The mean over the metric's layers; None if one of their readings is not finite."""
    layers = run.history.probes.get(metric.probe, {})
    named = [layer for layer, readings in layers.items() if metric.quantity in readings]
    if metric.layers == "*":
        named = [NETWORK] if NETWORK in named else named
    elif metric.layers == INPUTS:
        # Percentiles are read where an activation follows: after the norm, if there is one.
        named = [layer for layer in named if "p50" in layers[layer]]
    else:
        named = [layer for layer in named if fnmatchcase(layer, metric.layers)]
    series = [list(layers[layer][metric.quantity].values()) for layer in named]
    values = [
        sum(each) / len(each) if when == "mean" else each[-1 if when == "last" else 0]
        for each in series
    ]
    return sum(values) / len(values) if values and all(map(isfinite, values)) else None


# --- cells: a mean over their seeds, with its interval ------------------------------------


def possible(name: str, scale: float = 1.0) -> Range:
    """Which values one of `METRICS` can have, scaled."""
    low, high = METRICS[name]
    return Range(scale * low, scale * high)


def metrics_of(cell: Cell) -> Record:
    """All of them."""
    return {name: over_seeds(cell, name) for name in METRICS}


def over_seeds(cell: Cell, name: str) -> Record | None:
    """One of `METRICS` of the runs that have it; None where none has.

    mean, interval (None below three seeds), median, n, values.
    """
    values = cell.values(name)
    if not values:
        return None
    found = mean(values, within=possible(name))
    return {
        "mean": found.value,
        "interval": found.interval,
        "median": median(values),
        "n": len(values),
        "values": values,
    }
