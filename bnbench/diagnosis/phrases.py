"""Figures in words, for the sentences of findings."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

from bnbench.diagnosis.result import LayerReading


def names(layers: Sequence[LayerReading]) -> tuple[str, ...]:
    """Their names, in their order."""
    return tuple(each.name for each in layers)


def some(layers: Sequence[LayerReading], of: Sequence[LayerReading]) -> str:
    """How many layers, with a verb: "2 of 3 layers have"."""
    has = "has" if len(layers) == 1 else "have"
    return f"{len(layers)} of {len(of)} layers {has}"


def errors(layer: LayerReading) -> str:
    """How far a layer's running statistics are off, in words."""
    return (
        f"its running means are {layer.mean_error:.2f} standard deviations off, its variances a "
        f"factor of {exp(layer.variance_error or 0.0):.2g}"
    )


def percent(share: float) -> str:
    """A share in per cent, a decimal."""
    return f"{100 * share:.1f} %"


def number(loss: float) -> str:
    """A loss, three decimals."""
    return f"{loss:.3f}"
