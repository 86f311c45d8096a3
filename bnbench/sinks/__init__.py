"""Where events go: `metrics` (the truth), `tensorboard` and `terminal` (views of it).

A sink has `take(events)`, which gets the events of one moment together; `tensorboard` is
imported by name where it is needed, since TensorBoard takes a while to import.
"""

from typing import Protocol

from bnbench.events import Event
from bnbench.sinks.metrics import MetricsSink, from_record, to_record
from bnbench.sinks.terminal import TerminalSink, progress_bar, progress_lines


class Sink(Protocol):
    """Something that shows or keeps events."""

    def take(self, events: list[Event]) -> None:
        """Take in events of one moment, which share their step."""


class View(Sink, Protocol):
    """A sink that may fail without harm, and that holds something until it is closed."""

    def close(self) -> None:
        """Let go."""


__all__ = [
    "MetricsSink",
    "Sink",
    "TerminalSink",
    "View",
    "from_record",
    "progress_bar",
    "progress_lines",
    "to_record",
]
