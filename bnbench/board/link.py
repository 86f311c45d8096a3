"""The address that opens a curated view: what to see first, and in which colours."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from urllib.parse import quote, urlencode

from bnbench.board.bands import FOLDER
from bnbench.store import ExperimentFolder
from bnbench.wording import slug

PINNED = ("accuracy/val_running", "loss/train", "gap/val_loss")
RUNS = rf"^(?!(.*/)?{FOLDER}/)"
"""Runs, without the means over their seeds, which the Custom Scalars tab shows."""


def deep_link(experiments: Sequence[ExperimentFolder], *, port: int) -> str:
    """Opens the Time Series tab with pinned cards, unsmoothed, a colour for each setup."""
    names = {
        slug(manifest["setup"], 32)
        for experiment in experiments
        for run in experiment.runs()
        if (manifest := run.manifest_or_none()) is not None and "setup" in manifest
    }
    query = {
        "pinnedCards": json.dumps(
            [{"plugin": "scalars", "tag": tag} for tag in PINNED], separators=(",", ":")
        ),
        "smoothing": "0",
        "runFilter": RUNS,
    }
    if names:
        # The longest first: "bn" is the beginning of "bn-before".
        either = "|".join(map(re.escape, sorted(names, key=lambda name: (-len(name), name))))
        query["runColorGroup"] = f"regex:(?:^|/)({either})_"
    return f"http://127.0.0.1:{port}/?{urlencode(query, quote_via=quote)}#timeseries"
