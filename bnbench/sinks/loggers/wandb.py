"""Weights & Biases: online where the user is logged in, else in files that `wandb sync` sends."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb
from wandb.errors import AuthenticationError, CommError, UsageError

from bnbench.sinks.loggers import Labels, lost, require_room

TAG_LENGTH = 64
"""W&B refuses longer tags."""

SECONDS_TO_CONNECT, SECONDS_TO_SEND = 30.0, 60.0
"""Then a run goes on without W&B's server; what it was not sent is in the local files."""


class Run:
    """A run of W&B. `WANDB_MODE`, `WANDB_ENTITY`, `WANDB_DIR` and the like hold."""

    unreachable = False
    """Whether a run of this process has found no server: the others would wait as long."""

    def __init__(self, labels: Labels, folder: Path | None) -> None:
        place = Path(os.environ.get("WANDB_DIR") or folder or ".").absolute()
        self._place = place
        require_room(place, "WANDB_DIR")
        try:
            self._run = _begun(labels, place, offline=self.unreachable)
        except (AuthenticationError, CommError, UsageError) as error:
            Run.unreachable = True
            wandb.teardown()  # of what has begun
            why = str(error).partition("\n")[0].rstrip(".")
            said = f"offline ({why}): wandb sync {place / 'wandb'}/offline-run-*"
            warnings.warn(said, stacklevel=2)
            self._run = _begun(labels, place, offline=True)
        self._from = 0
        if not self._run.offline:
            self._from = self._run.starting_step
            return
        if folder is None:
            self.close(ended=False)
            raise lost("offline files", "set WANDB_API_KEY there")
        # A new folder each time, which is given the whole run: the earlier ones would be sent, too.
        ours = Path(self._run.dir).parent
        for each in ours.parent.glob(f"offline-run-*-{labels.identifier}"):
            if each != ours:
                shutil.rmtree(each, ignore_errors=True)

    def has(self, tag: str, step: int) -> bool:  # noqa: ARG002 - steps are whole
        """W&B says from which step on a run is resumed."""
        return step < self._from

    def log(self, values: Mapping[str, float], *, step: int, seconds: float) -> None:  # noqa: ARG002
        """W&B keeps the time by the clock."""
        self._run.log(dict(values), step=step)

    def close(self, *, ended: bool) -> None:
        """End the run, and W&B's own process. Raises RunError where its files may be cut."""
        self._run.finish(exit_code=0 if ended else 1)
        wandb.teardown()
        require_room(self._place, "WANDB_DIR")


def _begun(labels: Labels, place: Path, *, offline: bool) -> Any:
    """The run, new or resumed. Nothing is printed or asked, and no code is read or kept."""
    settings = wandb.Settings(
        console="off",
        silent=True,
        disable_git=True,
        save_code=False,
        symlink=False,
        init_timeout=SECONDS_TO_CONNECT,
        finish_timeout=SECONDS_TO_SEND,
        x_disable_stats=True,
    )
    return wandb.init(
        project=labels.project,
        group=labels.group,
        name=labels.name,
        id=labels.identifier,
        resume="allow",
        mode="offline" if offline else None,  # None: as W&B's own settings say
        tags=[tag[:TAG_LENGTH] for tag in labels.tags],
        config=dict(labels.settings),
        dir=place,
        settings=settings,
    )
