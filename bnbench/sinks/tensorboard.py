"""TensorBoard's view of a run, written without torch and rebuildable from the events.

The step of every point is the number of images seen, so that runs of different batch sizes align;
its wall time is the start of the run plus the seconds of training work, so that TensorBoard's
"relative" axis shows training time.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import assert_never

from tensorboard.compat.proto.event_pb2 import Event as TensorBoardEvent
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from bnbench.events import Diverged, Evaluation, Event, Finished, Gap, Probe, Step

POINTS = 1000
"""TensorBoard samples a longer series down to this many points."""

ABOUT = (
    "**Step = images seen**, so that runs with different batch sizes align. "
    "**Relative time = seconds of training work** (evaluation and logging left out). "
    "`progress/optimizer_step` and `progress/epoch` translate."
)


class TensorBoardSink:
    """Writes the events of one run into its folder; all scalars of a moment in one record."""

    def __init__(
        self,
        folder: Path,
        *,
        started: float,
        examples_per_epoch: int,
        reports: int,
        about: str,
    ) -> None:
        """`started`: seconds since the epoch. `reports`: how many `Step` events will come, at
        most; beyond `POINTS` they are thinned: means of losses, and the largest of the largest.
        `about`: Markdown shown in the Text tab."""
        self._writer = EventFileWriter(str(folder))
        self._started = started
        self._examples_per_epoch = examples_per_epoch
        self._thinning = -(-reports // POINTS)
        self._steps: list[Step] = []
        self._last: tuple[int, float] = (0, 0.0)
        self._write_text("about", f"{ABOUT}\n\n{about}")

    def take(self, events: list[Event]) -> None:
        """Write events that belong together: they share a step."""
        scalars: dict[str, float] = {}
        for event in events:
            scalars |= self._scalars(event)
        if scalars:
            at = events[0]
            self._add(
                [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()],
                step=at.examples,
                train_seconds=at.train_seconds,
            )

    def close(self) -> None:
        """Put everything on disk and let go of the file."""
        self._writer.close()

    def _scalars(self, event: Event) -> dict[str, float]:
        match event:
            case Step():
                self._steps.append(event)
                if len(self._steps) < self._thinning:
                    return {}
                steps, self._steps = self._steps, []
                return {
                    "loss/train": sum(step.loss for step in steps) / len(steps),
                    "loss/train_max": max(step.loss_max for step in steps),
                    "lr": event.lr,
                    "progress/optimizer_step": event.step,
                    "progress/epoch": event.examples / self._examples_per_epoch,
                } | self._rate(event)
            case Evaluation(split="test"):  # read once: a number, not a curve
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
            case Probe():
                return {f"probe_{event.probe}/{event.layer}/{event.name}": event.value}
            case Diverged():
                return {"summary/diverged_at_step": event.step}
            case Finished():
                return {}
            case _:
                assert_never(event)

    def _rate(self, step: Step) -> dict[str, float]:
        """Images per second of training since the last point."""
        examples, seconds = self._last
        self._last = (step.examples, step.train_seconds)
        elapsed = step.train_seconds - seconds
        if elapsed <= 0:
            return {}
        return {"progress/images_per_second": (step.examples - examples) / elapsed}

    def _write_text(self, tag: str, markdown: str) -> None:
        text = TensorProto(
            dtype=DT_STRING,
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
            string_val=[markdown.encode()],
        )
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        self._add([Summary.Value(tag=tag, tensor=text, metadata=metadata)], 0, 0.0)

    def _add(self, values: Iterable[Summary.Value], step: int, train_seconds: float) -> None:
        self._writer.add_event(
            TensorBoardEvent(
                wall_time=self._started + train_seconds,
                step=step,
                summary=Summary(value=values),
            )
        )
