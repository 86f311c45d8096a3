"""What a run states, as scalars and images.

The step of every point is the number of images seen, so that runs of different batch sizes align;
its wall time is the start of the run plus the seconds of training work, so that TensorBoard's
"relative" axis shows training time.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

from tensorboard.compat.proto.summary_pb2 import Summary

from bnbench import events
from bnbench.sinks.tensorboard import records, tabs
from bnbench.store import Appender

LAST = (
    *(f"summary/val_{kind}_accuracy" for kind in ("running", "batch", "population")),
    "summary/train_running_loss",
)
"""Scalars of the end that are the last of a curve."""
POINTS = 1000
"""TensorBoard samples a longer series down to this many points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Plain data about a run and its experiment.

    `started`: seconds since the epoch. `reports`: how many `Step` facts will come, at most.
    `group`: what its seeds share. `columns`, `metrics`, `probes`: of the whole experiment.
    `texts`: Markdown by tag. `first_batch`: a PNG. `pictures`: PNGs of the run when it had ended,
    by name.
    """

    started: float
    examples_per_epoch: int
    reports: int
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


def tagged(fact: events.Evaluation | events.Gap | events.Reading) -> dict[str, float]:
    """The values of a measurement by tag. The test split is read once: no curve but a number."""
    match fact:
        case events.Evaluation(split="test"):
            which = f"summary/test_{fact.stats}"
            return {f"{which}_loss": fact.loss, f"{which}_accuracy": fact.accuracy}
        case events.Evaluation():
            which = f"{fact.split}_{fact.stats}"
            return {f"loss/{which}": fact.loss, f"accuracy/{which}": fact.accuracy}
        case events.Gap():
            which = "summary/test_gap" if fact.split == "test" else f"gap/{fact.split}"
            return {
                f"{which}_loss": fact.loss,
                f"{which}_accuracy": fact.accuracy,
                f"{which}_disagreement": fact.disagreement,
                f"{which}_kl": fact.kl,
            }
        case events.Reading():
            return {f"probe_{fact.probe}/{fact.layer}/{fact.name}": fact.value}


class TensorBoardSink:
    """Writes what a run states into its folder; all values of a moment in one record."""

    def __init__(self, folder: Path, card: Card) -> None:
        """Begins a file with the card's texts and picture. Beyond `POINTS` reports are thinned:
        means of losses, and the largest of the largest."""
        # A new name each time: TensorBoard's faster loader keeps reading a file that it has opened.
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        name = f"events.out.tfevents.{seconds:010d}.{nanoseconds:09d}"
        self._card = card
        self._thinning = -(-card.reports // POINTS)
        self._steps: list[events.Step] = []
        self._last: tuple[int, float] = (0, 0.0)
        self._evaluated: dict[str, float] = {}
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
        """Write the facts of a moment."""
        values = [value for fact in moment.facts for value in self._values(fact, moment)]
        if values:
            wall_time = self._card.started + moment.train_seconds
            record = records.record(values, step=moment.examples, wall_time=wall_time)
            self._file.append(records.encoded([record]))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _values(self, fact: events.Fact, at: events.Moment) -> list[Summary.Value]:
        match fact:
            case events.Step():
                return self._step(fact, at)
            case events.Evaluation() | events.Gap():
                values = tagged(fact)
                for tag, value in values.items():
                    quantity, _, which = tag.partition("/")  # loss/val_running
                    last = f"summary/{which}_{quantity}"
                    if last in LAST:
                        self._evaluated[last] = value
                return records.scalars(values)
            case events.Confusion():
                png = records.confusion_matrix(fact.counts, self._card.classes)
                shows = (
                    f"{fact.split.capitalize()} images at the end, {fact.stats} statistics: each "
                    "row is a class, and shows what its images were taken for."
                )
                return [records.image(f"images/confusion_{fact.split}", png, describes=shows)]
            case events.Correctness() | events.Found():
                return []
            case events.Reading():
                return records.scalars(tagged(fact))
            case events.Histogram():
                tag = f"histogram_{fact.name}/{fact.layer}"
                return [records.histogram(tag, fact.low, fact.high, fact.counts)]
            case events.Diverged():
                ending = {"summary/diverged": 1.0, "summary/diverged_at_step": float(at.step)}
                return self._end(at, ending, completed=False)
            case events.Finished():
                return self._end(at, {"summary/diverged": 0.0} | self._evaluated, completed=True)
            case _:
                assert_never(fact)

    def _step(self, step: events.Step, at: events.Moment) -> list[Summary.Value]:
        self._steps.append(step)
        if len(self._steps) < self._thinning:
            return []
        steps, self._steps = self._steps, []
        values = {
            "loss/train": sum(each.loss for each in steps) / len(steps),
            "loss/train_max": max(each.loss_max for each in steps),
            "lr": step.lr,
            "progress/optimizer_step": at.step,
            "progress/epoch": at.examples / self._card.examples_per_epoch,
        }
        examples, seconds = self._last
        self._last = (at.examples, at.train_seconds)
        elapsed = at.train_seconds - seconds
        if elapsed > 0:
            values["progress/images_per_second"] = (at.examples - examples) / elapsed
        return records.scalars(values)

    def _end(
        self, at: events.Moment, values: dict[str, float], *, completed: bool
    ) -> list[Summary.Value]:
        seconds = at.train_seconds
        cost = {
            "summary/steps": float(at.step),
            "summary/train_seconds": seconds,
            "summary/images_per_second": at.examples / seconds if seconds > 0 else 0.0,
        }
        session = tabs.end(completed=completed, wall_time=self._card.started + seconds)
        shows = "Drawn from the readings of the run's probes when it had ended."
        pictures = [
            records.image(f"images/{name}", png, describes=shows)
            for name, png in self._card.pictures.items()
        ]
        return [*records.scalars(values | cost), *pictures, session]
