"""What a run states, as numbers by tag: the same names in TensorBoard and in every other logger."""

from __future__ import annotations

from typing import assert_never

from bnbench import events
from bnbench.store import Record

LAST = (
    *(f"summary/val_{kind}_accuracy" for kind in ("running", "batch", "population")),
    "summary/train_running_loss",
)
"""Scalars of the end that are the last of a curve."""
POINTS = 1000
"""TensorBoard samples a longer series down to this many points."""


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


class Scalars:
    """The numbers of one run, whose facts come in their order, from the first on."""

    def __init__(self, manifest: Record) -> None:
        """Of the run with this manifest. Beyond `POINTS` reports of steps are thinned: means of
        losses, and the largest of the largest."""
        batch_size = manifest["hparams"]["data.batch_size"]
        self._examples_per_epoch = manifest["steps_per_epoch"] * batch_size
        reports = -(-manifest["total_steps"] // manifest["log_every"])  # at most
        self._thinning = -(-reports // POINTS)
        self._steps: list[events.Step] = []
        self._last: tuple[int, float] = (0, 0.0)
        self._evaluated: dict[str, float] = {}

    def of(self, fact: events.Fact, at: events.Moment) -> dict[str, float]:
        """The numbers of a fact, by tag."""
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
                return values
            case events.Reading():
                return tagged(fact)
            case events.Diverged():
                ending = {"summary/diverged": 1.0, "summary/diverged_at_step": float(at.step)}
                return ending | _cost(at)
            case events.Finished():
                return {"summary/diverged": 0.0} | self._evaluated | _cost(at)
            case events.Confusion() | events.Correctness() | events.Histogram() | events.Found():
                return {}
            case _:
                assert_never(fact)

    def _step(self, step: events.Step, at: events.Moment) -> dict[str, float]:
        self._steps.append(step)
        if len(self._steps) < self._thinning:
            return {}
        steps, self._steps = self._steps, []
        values = {
            "loss/train": sum(each.loss for each in steps) / len(steps),
            "loss/train_max": max(each.loss_max for each in steps),
            "lr": step.lr,
            "progress/optimizer_step": at.step,
            "progress/epoch": at.examples / self._examples_per_epoch,
        }
        examples, seconds = self._last
        self._last = (at.examples, at.train_seconds)
        elapsed = at.train_seconds - seconds
        if elapsed > 0:
            values["progress/images_per_second"] = (at.examples - examples) / elapsed
        return values


def _cost(at: events.Moment) -> dict[str, float]:
    seconds = at.train_seconds
    return {
        "summary/steps": float(at.step),
        "summary/train_seconds": seconds,
        "summary/images_per_second": at.examples / seconds if seconds > 0 else 0.0,
    }
