"""What a run's probes have read, as PNGs: shown beside its curves when it has ended."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from bnbench.store import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEAT_MAPS = {
    "running_error": "mean",
    "gap_by_layer": "loss",
    "activation_drift": "mean_drift",
    "gradient_shift": "relative",
}
"""Of each probe with readings of layers the one that is drawn as layer × time."""

DPI = 90


def probe_pictures(run: RunFolder) -> dict[str, bytes]:
    """PNGs by name; {} for a run without readings. What cannot be drawn is left out."""
    from bnbench.report.figures.probes import (  # slow to import
        landscape_bands,
        layer_heat_maps,
        percentile_bands,
        probed,
    )

    runs = [probed(run)]

    drawings: dict[str, Callable[[], Figure]] = {
        "percentiles": partial(percentile_bands, runs),
        "landscape": partial(landscape_bands, runs),
    }
    for probe, name in HEAT_MAPS.items():
        log = probe == "running_error"
        drawings[f"{probe.removesuffix('_by_layer')}_by_layer"] = partial(
            layer_heat_maps, runs, probe, name, log=log
        )
    found = {}
    for name, draw in drawings.items():
        try:
            figure = draw()
        except ValueError:
            continue  # no such readings
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI)
        found[name] = buffer.getvalue()
    return found
