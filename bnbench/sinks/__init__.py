"""Where moments go: `metrics` (the truth), `tensorboard` and `terminal` (views of it).

TensorBoard takes a while to import: import the module that is needed.
"""

from __future__ import annotations

from typing import Protocol

from bnbench.events import Moment


class Sink(Protocol):
    """Something that shows or keeps what a run states. `runner.execution` chooses a run's sinks."""

    def take(self, moment: Moment) -> None:
        """Show or keep the facts of one moment."""

    def close(self) -> None:
        """Release files and live lines; called once, also after a failure."""
