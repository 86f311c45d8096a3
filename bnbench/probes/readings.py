"""What a probe has read, as events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from bnbench.events import Probe

NETWORK = "network"
"""Stands for the layer in readings of the whole network."""


class Where(TypedDict):
    """Where in the run the measurement stands (see `events.Fact`)."""

    step: int
    examples: int
    train_seconds: float


def readings(probe: str, layers: Mapping[str, Mapping[str, float]], where: Where) -> list[Probe]:
    """An event for each quantity of each layer."""
    return [
        Probe(probe=probe, layer=layer, name=name, value=value, **where)
        for layer, quantities in layers.items()
        for name, value in quantities.items()
    ]
