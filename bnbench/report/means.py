"""Cells reduced to a mean over their seeds, with its interval."""

from __future__ import annotations

from statistics import median

from bnbench.report.study import METRICS, Cell
from bnbench.stats.differences import Range, mean
from bnbench.store import Record


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
