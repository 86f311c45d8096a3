"""`metrics.jsonl`: facts, a line of strict JSON each, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from itertools import groupby
from math import isfinite
from typing import Any

from bnbench import events
from bnbench.store import Appender, Record, encode_records

_NAMES = {kind: name for name, kind in events.KINDS.items()}
_FIELDS = {kind: tuple(each.name for each in fields(kind)) for kind in _NAMES}


def to_records(moment: events.Moment) -> Iterator[Record]:
    """The facts as JSON has them: numbers that are not finite become null, with `finite: false`."""
    for fact in moment.facts:
        record: Record = {
            "event": _NAMES[type(fact)],
            "step": moment.step,
            "examples": moment.examples,
            "train_seconds": moment.train_seconds,
        }
        for name, value in asdict(fact).items():
            if isinstance(value, float) and not isfinite(value):
                record[name] = None
                record["finite"] = False
            else:
                record[name] = value
        yield record


def to_fact(record: Record) -> events.Fact:
    """The fact in an event that this version of bnbench knows; a lost number comes back as NaN."""
    kind = events.KINDS[record["event"]]
    values = {name: _frozen(record[name]) for name in _FIELDS[kind]}
    if record.get("finite") is False:
        values = {name: float("nan") if v is None else v for name, v in values.items()}
    return kind(**values)


def to_moments(records: Iterable[Record]) -> Iterator[events.Moment]:
    """The moments of a whole file, without events that only a later version knows."""
    known = (each for each in records if each["event"] in events.KINDS)
    for _, group in groupby(known, key=lambda each: (each["step"], each["train_seconds"])):
        together = list(group)
        facts = tuple(map(to_fact, together))
        position = {name: together[0][name] for name in ("step", "examples", "train_seconds")}
        yield events.Moment(**position, facts=facts)


def _frozen(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


class MetricsSink:
    """Appends every fact to a run's `metrics.jsonl`."""

    def __init__(self, file: Appender) -> None:
        self._file = file

    def take(self, moment: events.Moment) -> None:
        self._file.append(encode_records(to_records(moment)))

    def close(self) -> None:
        self._file.close()
