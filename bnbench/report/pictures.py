"""What a run's probes recorded, as PNGs: shown next to its curves after it has ended."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
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
"""For each probe with readings of layers the one that is drawn as layer × time."""

DPI = 90


def probe_pictures(run: RunFolder) -> dict[str, bytes]:
    """PNGs by name; {} for a run without readings. What cannot be drawn is left out."""
    from bnbench.report.figures import probes, style  # slow to import

    runs = [probes.probed(run)]
    drawings: dict[str, Callable[[], Figure]] = {
        "percentiles": partial(probes.percentile_bands, runs),
        "landscape": partial(probes.landscape_bands, runs),
    }
    for probe, name in HEAT_MAPS.items():
        drawings[f"{probe.removesuffix('_by_layer')}_by_layer"] = partial(
            probes.layer_heat_maps, runs, probe, name, log=probe == "running_error"
        )
    found = {}
    for name, draw in drawings.items():
        with suppress(ValueError), style.applied():  # ValueError: no such readings
            buffer = io.BytesIO()
            draw().savefig(buffer, format="png", dpi=DPI)
            found[name] = buffer.getvalue()
    return found
