"""trackio: on this machine, in its own folder, or in the Space that `TRACKIO_SPACE_ID` names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import trackio
from trackio import sqlite_storage

from bnbench.sinks.loggers import Labels, lost, require_room


class Run:
    """A run of trackio, found again by its name."""

    def __init__(self, labels: Labels, folder: Path | None) -> None:
        if not {"TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"} & {*os.environ}:
            if folder is None:
                raise lost("trackio's database", "set TRACKIO_SPACE_ID or TRACKIO_SERVER_URL there")
            require_room(sqlite_storage.TRACKIO_DIR, "TRACKIO_DIR")
        self._run = trackio.init(
            labels.project,
            name=labels.name,
            group=labels.group,
            config={**labels.settings, "tags": list(labels.tags)},
            # After --restart there is another run of this name.
            resume="allow" if labels.resumed else "never",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self._from: int = self._run._next_step  # of a new run 0; it has no public name

    def has(self, tag: str, step: int) -> bool:  # noqa: ARG002 - steps are whole
        """trackio keeps the values of a step together."""
        return step < self._from

    def log(self, values: Mapping[str, float], *, step: int, seconds: float) -> None:  # noqa: ARG002
        """trackio keeps the time by the clock."""
        self._run.log(dict(values), step=step)

    def close(self, *, ended: bool) -> None:  # noqa: ARG002 - it has no word for it
        """Wait until everything is stored."""
        trackio.finish()
