"""Measurements that leave no trace, one file a probe.

`statistics`: loss and accuracy under running, batch and population statistics; always logged.
`stand_in`: a copy of the network that does what training would do. Every other file is an optional
probe: its function `read` measures once. It is imported only where the probe is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping

from bnbench.events import Reading

NETWORK = "network"
"""Takes the place of the layer in readings of the whole network."""


def readings(probe: str, layers: Mapping[str, Mapping[str, float]]) -> list[Reading]:
    """A reading for each quantity of each layer."""
    return [
        Reading(probe=probe, layer=layer, name=name, value=value)
        for layer, quantities in layers.items()
        for name, value in quantities.items()
    ]
