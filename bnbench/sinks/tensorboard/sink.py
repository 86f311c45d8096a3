"""The events of a run as scalars and images.

The step of every point is the number of images seen, so that runs of different batch sizes align;
its wall time is the start of the run plus the seconds of training work, so that TensorBoard's
"relative" axis shows training time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import assert_never

from tensorboard.compat.proto.summary_pb2 import Summary

from bnbench.events import (
    Confusion,
    Diverged,
    Evaluation,
    Event,
    Fact,
    Finished,
    Gap,
    Histogram,
    Probe,
    Step,
)
from bnbench.sinks.tensorboard import hparams, records
from bnbench.sinks.tensorboard.card import Card
from bnbench.sinks.tensorboard.pictures import confusion_matrix
from bnbench.store import Appender

POINTS = 1000
"""TensorBoard samples a longer series down to this many points."""


def readings(event: Evaluation | Gap) -> dict[str, float]:
    """The tags and values of a measurement. The test split is read once: no curve but a number."""
    match event:
        case Evaluation(split="test"):
            which = f"summary/test_{event.stats}"
            return {f"{which}_loss": event.loss, f"{which}_accuracy": event.accuracy}
        case Evaluation():
            which = f"{event.split}_{event.stats}"
            return {f"loss/{which}": event.loss, f"accuracy/{which}": event.accuracy}
        case Gap():
            which = "summary/test_gap" if event.split == "test" else f"gap/{event.split}"
            return {
                f"{which}_loss": event.loss,
                f"{which}_accuracy": event.accuracy,
                f"{which}_disagreement": event.disagreement,
                f"{which}_kl": event.kl,
            }


def _flat(tag: str) -> str:
    """`loss/val_running` as `val_running_loss`."""
    quantity, _, which = tag.partition("/")
    return f"{which}_{quantity}"


class TensorBoardSink:
    """Writes the events of one run into its folder; all values of a moment in one record."""

    def __init__(self, folder: Path, card: Card) -> None:
        """Begins a file with the card's texts and picture. Beyond `POINTS` reports are thinned:
        means of losses, and the largest of the largest."""
        # A new name each time: TensorBoard's faster loader holds on to a file that it has opened.
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        name = f"events.out.tfevents.{seconds:010d}.{nanoseconds:09d}"
        self._file = Appender(folder / name, keep=0)
        self._card = card
        self._thinning = -(-card.reports // POINTS)
        self._steps: list[Step] = []
        self._last: tuple[int, float] = (0, 0.0)
        self._evaluated: dict[str, float] = {}
        values = [records.text(tag, markdown) for tag, markdown in card.texts.items()]
        if card.first_batch is not None:
            shows = "The first images of the first batch, as trained: augmented, standardized."
            values.append(records.image("images/first_batch", card.first_batch, describes=shows))
        begin = records.record(values, step=0, wall_time=card.started)
        try:
            self._file.append(records.encoded([records.version(wall_time=card.started), begin]))
        except BaseException:
            self._file.close()
            raise

    def take(self, events: list[Event]) -> None:
        """Write events that belong together: they share a step."""
        for train_seconds, moment in groupby(events, key=lambda event: event.train_seconds):
            facts = list(moment)
            values = [value for event in facts for value in self._values(event)]
            if values:
                self._add(values, step=facts[0].examples, train_seconds=train_seconds)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _values(self, event: Event) -> list[Summary.Value]:
        match event:
            case Step():
                return self._step(event)
            case Evaluation() | Gap():
                values = readings(event)
                if isinstance(event, Evaluation) and event.split != "test":
                    last = {f"summary/{_flat(tag)}": value for tag, value in values.items()}
                    wanted = last.keys() & hparams.METRICS.keys()
                    self._evaluated |= {tag: last[tag] for tag in wanted}
                return records.scalars(values)
            case Confusion():
                return [self._confusion(event)]
            case Probe():
                tag = f"probe_{event.probe}/{event.layer}/{event.name}"
                return records.scalars({tag: event.value})
            case Histogram():
                tag = f"histogram_{event.name}/{event.layer}"
                return [records.histogram(tag, event.low, event.high, event.counts)]
            case Diverged():
                ending = {"summary/diverged": 1.0, "summary/diverged_at_step": float(event.step)}
                return self._end(event, ending, completed=False)
            case Finished():
                return self._end(event, {"summary/diverged": 0.0} | self._evaluated, completed=True)
            case _:
                assert_never(event)

    def _step(self, step: Step) -> list[Summary.Value]:
        self._steps.append(step)
        if len(self._steps) < self._thinning:
            return []
        steps, self._steps = self._steps, []
        values = {
            "loss/train": sum(each.loss for each in steps) / len(steps),
            "loss/train_max": max(each.loss_max for each in steps),
            "lr": step.lr,
            "progress/optimizer_step": step.step,
            "progress/epoch": step.examples / self._card.examples_per_epoch,
        }
        examples, seconds = self._last
        self._last = (step.examples, step.train_seconds)
        elapsed = step.train_seconds - seconds
        if elapsed > 0:
            values["progress/images_per_second"] = (step.examples - examples) / elapsed
        return records.scalars(values)

    def _confusion(self, event: Confusion) -> Summary.Value:
        png = confusion_matrix(event.counts, self._card.classes)
        shows = (
            f"{event.split.capitalize()} images at the end, {event.stats} statistics: each row is "
            "a class, and shows what its images were taken for."
        )
        return records.image(f"images/confusion_{event.split}", png, describes=shows)

    def _end(self, at: Fact, values: dict[str, float], *, completed: bool) -> list[Summary.Value]:
        seconds = at.train_seconds
        cost = {
            "summary/steps": float(at.step),
            "summary/train_seconds": seconds,
            "summary/images_per_second": at.examples / seconds if seconds > 0 else 0.0,
        }
        session = hparams.end(completed=completed, wall_time=self._card.started + seconds)
        shows = "Drawn from the readings of the run's probes when it had ended."
        pictures = [
            records.image(f"images/{name}", png, describes=shows)
            for name, png in self._card.pictures.items()
        ]
        return [*records.scalars(values | cost), *pictures, session]

    def _add(self, values: Iterable[Summary.Value], *, step: int, train_seconds: float) -> None:
        wall_time = self._card.started + train_seconds
        self._file.append(records.encoded([records.record(values, step=step, wall_time=wall_time)]))
