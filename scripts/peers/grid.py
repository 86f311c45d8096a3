"""The sweep of all peers: 24 runs, one epoch each, two at a time on two cores."""

from __future__ import annotations

import itertools

GRID = {"norm": ["none", "batch", "group"], "lr": [0.03, 0.1], "seed": [0, 1, 2, 3]}
EPOCHS = 1


def points() -> list[dict]:
    return [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]
