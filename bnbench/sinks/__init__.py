"""Where moments go: `metrics` (the truth), `tensorboard` and `terminal` (views of it).

TensorBoard takes a while to import: import the module that is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Protocol

from bnbench.events import Moment


class Sink(Protocol):
    """Something that shows or keeps what a run states. `runner.execution` chooses a run's sinks."""

    def take(self, moment: Moment) -> None:
        """Show or keep the facts of one moment."""

    def close(self) -> None:
        """Release files and live lines; called once, also after a failure."""


class OptionalSink:
    """A sink that may fail without harm: it is left out with one warning.

    `name`: of a logger, whose code is `entered` each time.
    """

    def __init__(
        self,
        open_sink: Callable[[], Sink],
        announce: Callable[[str], None],
        name: str = "a view of the run",
        entered: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._announce, self._name, self._entered = announce, name, entered
        self._sink: Sink | None = None
        with self._guarded():
            self._sink = open_sink()

    def take(self, moment: Moment) -> None:
        """Show the moment, if the sink has not failed."""
        if self._sink is not None:
            with self._guarded():
                self._sink.take(moment)

    def close(self) -> None:
        """Close the sink, if it has not failed."""
        if self._sink is not None:
            with self._guarded():
                self._sink.close()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            with self._entered():
                yield
        except Exception as error:
            failed, self._sink = self._sink, None
            if failed is not None:
                with suppress(Exception), self._entered():
                    failed.close()
            why = " ".join(str(error).split())
            self._announce(
                f"warning: {self._name} failed and is left out ({why}); training goes on"
            )
