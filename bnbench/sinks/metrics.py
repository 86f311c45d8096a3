"""`metrics.jsonl`: the events, a line of strict JSON each, and back."""

from __future__ import annotations

from dataclasses import asdict, fields
from math import isfinite
from typing import Any, assert_never

from bnbench.events import (
    Confusion,
    Diverged,
    Evaluation,
    Event,
    Finished,
    Gap,
    Histogram,
    Probe,
    Step,
)
from bnbench.store import Appender, Record, encode_records

_KINDS: dict[str, type[Event]] = {
    "step": Step,
    "eval": Evaluation,
    "gap": Gap,
    "probe": Probe,
    "histogram": Histogram,
    "confusion": Confusion,
    "diverged": Diverged,
    "finished": Finished,
}


def kind(event: Event) -> str:
    """The event's name in the file."""
    match event:
        case Step():
            return "step"
        case Evaluation():
            return "eval"
        case Gap():
            return "gap"
        case Probe():
            return "probe"
        case Histogram():
            return "histogram"
        case Confusion():
            return "confusion"
        case Diverged():
            return "diverged"
        case Finished():
            return "finished"
        case _:
            assert_never(event)


def to_record(event: Event) -> Record:
    """The event as JSON has it: numbers that are not finite become null, and say so."""
    record: Record = {"event": kind(event)}
    for name, value in asdict(event).items():
        if isinstance(value, float) and not isfinite(value):
            record[name] = None
            record["finite"] = False
        else:
            record[name] = value
    return record


def from_record(record: Record) -> Event:
    """The event that `to_record` made the record of; a lost number comes back as NaN."""
    event = _KINDS[record["event"]]
    values = {field.name: _frozen(record[field.name]) for field in fields(event)}
    if record.get("finite") is False:
        values = {name: float("nan") if v is None else v for name, v in values.items()}
    return event(**values)


def _frozen(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


class MetricsSink:
    """Appends every event to a run's `metrics.jsonl`."""

    def __init__(self, file: Appender) -> None:
        self._file = file

    def take(self, events: list[Event]) -> None:
        """Append events that belong together."""
        self._file.append(encode_records(map(to_record, events)))
