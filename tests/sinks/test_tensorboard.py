"""TensorBoard's files, read by TensorBoard's own readers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bnbench.events import Diverged, Evaluation, Gap, Probe, Step
from bnbench.sinks.tensorboard import POINTS, TensorBoardSink

STARTED = 1_700_000_000.0


def sink(folder: Path, *, reports: int = 10) -> TensorBoardSink:
    """A view of an invented run."""
    return TensorBoardSink(
        folder, started=STARTED, examples_per_epoch=1000, reports=reports, about="the config"
    )


def read(folder: Path) -> EventAccumulator:
    """What TensorBoard makes of a folder, nothing left out."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def step(number: int, *, loss: float = 1.0, loss_max: float = 2.0) -> Step:
    """A report of an invented run: 64 images a step, a quarter of a second each."""
    return Step(
        step=number,
        examples=64 * number,
        train_seconds=0.25 * number,
        loss=loss,
        loss_max=loss_max,
        lr=0.1,
    )


def points(accumulator: EventAccumulator, tag: str) -> list[tuple[int, float, float]]:
    """(step, seconds since the start, value) of every point."""
    return [
        (event.step, event.wall_time - STARTED, event.value) for event in accumulator.Scalars(tag)
    ]


def test_the_step_is_images_seen_and_the_time_is_training_time(tmp_path: Path) -> None:
    view = sink(tmp_path)
    view.take([step(10), step_evaluation(10)])
    view.take([step(20, loss=0.5, loss_max=0.75)])
    view.close()
    found = read(tmp_path)
    assert points(found, "loss/train") == [(640, 2.5, 1.0), (1280, 5.0, 0.5)]
    assert points(found, "loss/train_max") == [(640, 2.5, 2.0), (1280, 5.0, 0.75)]
    assert points(found, "accuracy/val_running") == [(640, 2.5, 0.75)]
    assert points(found, "progress/optimizer_step") == [(640, 2.5, 10.0), (1280, 5.0, 20.0)]
    epochs = [value for _, _, value in points(found, "progress/epoch")]
    assert epochs == pytest.approx([0.64, 1.28])
    # 640 images in 2.5 s, both times.
    assert points(found, "progress/images_per_second") == [(640, 2.5, 256.0), (1280, 5.0, 256.0)]


def step_evaluation(number: int) -> Evaluation:
    """An evaluation of the same moment as `step`."""
    return Evaluation(
        step=number,
        examples=64 * number,
        train_seconds=0.25 * number,
        split="val",
        stats="running",
        images=4,
        loss=0.5,
        accuracy=0.75,
    )


def test_all_scalars_of_a_moment_are_one_record(tmp_path: Path) -> None:
    view = sink(tmp_path)
    gap = Gap(
        step=10,
        examples=640,
        train_seconds=2.5,
        split="val",
        images=4,
        loss=0.1,
        accuracy=-0.25,
        disagreement=0.5,
        kl=0.125,
    )
    view.take([step_evaluation(10), gap])
    view.close()
    (path,) = tmp_path.glob("events.out.tfevents.*")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    records = [event for event in EventFileLoader(str(path)).Load() if event.summary.value]
    tags = [sorted(value.tag for value in event.summary.value) for event in records]
    assert tags == [
        ["about"],
        [
            "accuracy/val_running",
            "gap/val_accuracy",
            "gap/val_disagreement",
            "gap/val_kl",
            "gap/val_loss",
            "loss/val_running",
        ],
    ]


def test_readings_of_probes_are_curves_by_layer_and_name(tmp_path: Path) -> None:
    view = sink(tmp_path)
    where = {"step": 10, "examples": 640, "train_seconds": 2.5, "probe": "running_error"}
    view.take(
        [
            Probe(**where, layer="stage1.norm", name=name, value=value)  # type: ignore[arg-type]
            for name, value in (("mean", 0.5), ("variance", 0.25))
        ]
    )
    view.close()
    found = read(tmp_path)
    assert points(found, "probe_running_error/stage1.norm/mean") == [(640, 2.5, 0.5)]
    assert points(found, "probe_running_error/stage1.norm/variance") == [(640, 2.5, 0.25)]


def test_what_is_read_once_is_no_curve(tmp_path: Path) -> None:
    view = sink(tmp_path)
    view.take([replace(step_evaluation(10), split="test")])
    view.close()
    assert sorted(read(tmp_path).Tags()["scalars"]) == [
        "summary/test_running_accuracy",
        "summary/test_running_loss",
    ]


def test_a_long_series_is_thinned_without_losing_a_spike(tmp_path: Path) -> None:
    view = sink(tmp_path, reports=2 * POINTS)
    view.take([step(1, loss=1.0, loss_max=9.0)])
    view.take([step(2, loss=3.0, loss_max=4.0)])
    view.take([step(3, loss=5.0, loss_max=5.0)])
    view.close()
    found = read(tmp_path)
    assert points(found, "loss/train") == [(128, 0.5, 2.0)]
    assert points(found, "loss/train_max") == [(128, 0.5, 9.0)]


def test_a_divergence_and_what_the_run_is_are_shown(tmp_path: Path) -> None:
    view = sink(tmp_path)
    view.take([Diverged(step=31, examples=1984, train_seconds=1.0, reason="loss is not finite")])
    view.close()
    found = read(tmp_path)
    assert points(found, "summary/diverged_at_step") == [(1984, 1.0, 31.0)]
    (text,) = found.Tensors("about")
    said = text.tensor_proto.string_val[0].decode()
    assert "Step = images seen" in said
    assert "the config" in said
