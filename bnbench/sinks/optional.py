"""What only shows a run, and must not stop it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from bnbench.events import Moment
from bnbench.sinks import Sink


class OptionalSink:
    """A sink that may fail without harm: it is left out with one warning."""

    def __init__(self, open_sink: Callable[[], Sink], announce: Callable[[str], None]) -> None:
        self._announce = announce
        self._sink: Sink | None = None
        with self._guarded():
            self._sink = open_sink()

    def take(self, moment: Moment) -> None:
        """Show the moment, if the sink has not failed."""
        with self._guarded():
            if self._sink is not None:
                self._sink.take(moment)

    def close(self) -> None:
        """Close the sink, if it has not failed."""
        with self._guarded():
            if self._sink is not None:
                self._sink.close()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            failed, self._sink = self._sink, None
            if failed is not None:
                with suppress(Exception):
                    failed.close()
            self._announce(
                f"warning: a view of the run failed and is left out ({error}); training goes on"
            )
