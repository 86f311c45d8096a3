"""What a logger is told of a run, and when: a whole step once, whatever came before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pytest

from bnbench.events import Diverged, Evaluation, Fact, Finished, Moment, Reading, Step
from bnbench.sinks.loggers import LoggerSink, labels_of
from bnbench.sinks.scalars import Scalars
from tests.runs import MANIFEST


@dataclass
class Told:
    """Keeps what it is told; `before`: the last step of an earlier attempt, by tag."""

    before: Mapping[str, int] = field(default_factory=dict)
    rows: list[tuple[int, float, dict[str, float]]] = field(default_factory=list)
    ended: list[bool] = field(default_factory=list)

    def has(self, tag: str, step: int) -> bool:
        return step <= self.before.get(tag, -1)

    def log(self, values: Mapping[str, float], *, step: int, seconds: float) -> None:
        self.rows.append((step, seconds, dict(values)))

    def close(self, *, ended: bool) -> None:
        self.ended.append(ended)


def moment(step: int, *facts: Fact) -> Moment:
    """64 images and a quarter of a second a step."""
    return Moment(step=step, examples=64 * step, train_seconds=0.25 * step, facts=facts)


REPORT = Step(loss=1.0, loss_max=2.0, lr=0.1)
EVALUATION = Evaluation(split="val", stats="running", images=4, loss=0.5, accuracy=0.75)
READING = Reading(probe="running_error", layer="stage1.norm", name="mean", value=0.5)
RUN = (
    moment(0, EVALUATION),
    moment(10, REPORT),
    moment(10, EVALUATION, READING),
    moment(20, REPORT),
    moment(20, EVALUATION, Finished()),
)


SIZES = {
    "steps_per_epoch": 10,
    "hparams": {"data.batch_size": 64},
    "total_steps": 20,
    "log_every": 10,
}


def told(moments: Iterable[Moment], before: Mapping[str, int] | None = None) -> Told:
    """What a logger is told of a run that has ended, or has stopped."""
    logger = Told(before or {})
    sink = LoggerSink(logger, Scalars(SIZES))
    for each in moments:
        sink.take(each)
    sink.close()
    return logger


def test_what_is_stated_at_a_step_is_told_together_and_once() -> None:
    logger = told(RUN)
    assert [(step, seconds) for step, seconds, _ in logger.rows] == [(0, 0), (640, 2.5), (1280, 5)]
    assert logger.rows[0][2] == {"loss/val_running": 0.5, "accuracy/val_running": 0.75}
    assert logger.rows[1][2] == {
        "loss/train": 1.0,
        "loss/train_max": 2.0,
        "lr": 0.1,
        "progress/optimizer_step": 10,
        "progress/epoch": 1.0,
        "progress/images_per_second": 256.0,
        "loss/val_running": 0.5,
        "accuracy/val_running": 0.75,
        "probe_running_error/stage1.norm/mean": 0.5,
    }
    assert logger.rows[2][2]["summary/val_running_accuracy"] == 0.75
    assert logger.ended == [True]


def test_a_run_that_stops_anywhere_and_goes_on_is_told_as_one_that_does_not() -> None:
    whole = told(RUN).rows
    for stop in range(len(RUN) + 1):
        first = told(RUN[:stop])
        before = {tag: step for step, _, values in first.rows for tag in values}
        second = told(RUN, before)
        assert first.rows + second.rows == whole, f"stopped after {stop} moments"
        assert first.ended == [stop == len(RUN)]


def test_what_is_lacking_of_a_step_that_was_half_told_is_told() -> None:
    before = {"loss/val_running": 640, "accuracy/val_running": 0}
    rows = told(RUN, before).rows
    assert [step for step, _, values in rows if "loss/val_running" in values] == [1280]
    assert [step for step, _, values in rows if "accuracy/val_running" in values] == [640, 1280]
    assert all(values for *_, values in rows)


def test_a_run_that_diverges_has_ended() -> None:
    logger = told([moment(0, EVALUATION), moment(3, Diverged(reason="loss is not finite"))])
    step, _, values = logger.rows[-1]
    assert step == 192
    assert values["summary/diverged"] == 1.0
    assert logger.ended == [True]


def test_a_logger_that_fails_is_closed_all_the_same() -> None:
    class Broken(Told):
        def log(self, *_: object, **__: object) -> None:
            raise OSError("no network")

    logger = Broken()
    sink = LoggerSink(logger, Scalars(SIZES))
    sink.take(RUN[-1])
    with pytest.raises(OSError, match="no network"):
        sink.close()
    assert logger.ended == [True]


def test_names_come_from_the_manifest() -> None:
    manifest = MANIFEST | {
        "experiment": "small",
        "run": "bn_bs064_s03_1f3a9c2e",
        "cell": "bn_bs064_abcdef01",
        "seed": 3,
        "point": {"data.batch_size": 64, "norm.groups": None},
    }
    labels = labels_of(manifest, "0123456789abcdef", resumed=False)
    assert labels.project == "small"
    assert labels.name == "bn_bs064_s03_1f3a9c2e"
    assert labels.group == "bn_bs064_abcdef01"
    assert labels.tags == ("bn", "data.batch_size=64")
    assert labels.settings == {"setup": "bn", "seed": 3}
