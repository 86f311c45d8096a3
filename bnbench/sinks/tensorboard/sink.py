"""What a run states, as scalars and images.

The step of every point is the number of images seen, so that runs of different batch sizes align;
its wall time is the start of the run plus the seconds of training work, so that TensorBoard's
"relative" axis shows training time.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import assert_never

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from bnbench import events
from bnbench.sinks.scalars import Scalars
from bnbench.sinks.tensorboard import records, tabs
from bnbench.store import Appender

AT_ONCE = 256
"""Moments whose records are in memory together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Plain data about a run and its experiment.

    `started`: seconds since the epoch. `group`: what its seeds share. `columns`, `metrics`,
    `probes`: of the whole experiment. `texts`: Markdown by tag. `first_batch`: a PNG. `pictures`:
    PNGs of the run when it had ended, by name.
    """

    started: float
    group: str
    hparams: Mapping[str, tabs.Plain]
    columns: tuple[tabs.Column, ...]
    metrics: tuple[str, ...] = tuple(tabs.METRICS)
    probes: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    first_batch: bytes | None = None
    pictures: Mapping[str, bytes] = field(default_factory=dict)


def header(card: Card) -> tuple[str, bytes]:
    """Name and content of the file with the run's row of the HParams tab and the charts.

    It is a file of its own, so that it can be replaced when the experiment has grown: the name
    tells what is in it, and TensorBoard takes the first value of a tag. Its slower loader never
    returns to a file that sorts before the one it reads; hence the zeros.
    """
    several = any(each.name == "data.batch_size" and each.differs for each in card.columns)
    values = [
        tabs.experiment(card.columns, card.metrics),
        tabs.layout(probes=card.probes, several_batch_sizes=several),
        tabs.start(card.hparams, group=card.group, wall_time=card.started),
    ]
    content = b"".join(value.SerializeToString(deterministic=True) for value in values)
    digest = hashlib.sha256(content).hexdigest()[:8]
    record = records.record(values, step=0, wall_time=card.started)
    file = records.encoded([records.version(wall_time=card.started), record])
    return f"events.out.tfevents.0000000000.{digest}.hparams", file


class TensorBoardSink:
    """Writes what a run states into its folder; all values of a moment in one record."""

    def __init__(self, folder: Path, card: Card, scalars: Scalars) -> None:
        # A new name each time: TensorBoard's faster loader keeps reading a file that it has opened.
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        name = f"events.out.tfevents.{seconds:010d}.{nanoseconds:09d}"
        self._card, self._scalars = card, scalars
        values = [records.text(tag, markdown) for tag, markdown in card.texts.items()]
        if card.first_batch is not None:
            shows = "The first images of the first batch, as trained: augmented, standardized."
            values.append(records.image("images/first_batch", card.first_batch, describes=shows))
        begin = records.record(values, step=0, wall_time=card.started)
        self._file = Appender(folder / name)
        try:
            self._file.append(records.encoded([records.version(wall_time=card.started), begin]))
        except BaseException:
            self._file.close()
            raise

    def take(self, moment: events.Moment) -> None:
        self.take_all([moment])

    def take_all(self, moments: Iterable[events.Moment]) -> None:
        """Many moments, in less time than one after the other."""
        found = map(self._record, moments)
        while together := list(islice(found, AT_ONCE)):
            self._file.append(records.encoded(each for each in together if each is not None))

    def _record(self, moment: events.Moment) -> Event | None:
        values = [value for fact in moment.facts for value in self._values(fact, moment)]
        if not values:
            return None
        wall_time = self._card.started + moment.train_seconds
        return records.record(values, step=moment.examples, wall_time=wall_time)

    def close(self) -> None:
        self._file.close()

    def _values(self, fact: events.Fact, at: events.Moment) -> list[Summary.Value]:
        values = records.scalars(self._scalars.of(fact, at))
        match fact:
            case events.Confusion():
                png = records.confusion_matrix(fact.counts, self._card.classes)
                shows = (
                    f"{fact.split.capitalize()} images at the end, {fact.stats} statistics: each "
                    "row is a class, and shows what its images were taken for."
                )
                values.append(records.image(f"images/confusion_{fact.split}", png, describes=shows))
            case events.Histogram():
                tag = f"histogram_{fact.name}/{fact.layer}"
                values.append(records.histogram(tag, fact.low, fact.high, fact.counts))
            case events.Diverged() | events.Finished():
                values += self._end(at, completed=isinstance(fact, events.Finished))
            case events.Step() | events.Evaluation() | events.Gap() | events.Reading():
                pass  # numbers alone
            case events.Correctness() | events.Found():
                pass
            case _:
                assert_never(fact)
        return values

    def _end(self, at: events.Moment, *, completed: bool) -> list[Summary.Value]:
        session = tabs.end(completed=completed, wall_time=self._card.started + at.train_seconds)
        shows = "Drawn from the readings of the run's probes when it had ended."
        pictures = [
            records.image(f"images/{name}", png, describes=shows)
            for name, png in self._card.pictures.items()
        ]
        return [*pictures, session]
