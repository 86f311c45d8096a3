"""TensorBoard's files, read by TensorBoard's own readers."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_ndarray

from bnbench.events import (
    Confusion,
    Diverged,
    Evaluation,
    Fact,
    Finished,
    Gap,
    Moment,
    Reading,
    Step,
)
from bnbench.probes.histograms import histogram
from bnbench.sinks.scalars import POINTS, Scalars
from bnbench.sinks.tensorboard import records
from bnbench.sinks.tensorboard.records import encoded, first_images, is_whole
from bnbench.sinks.tensorboard.sink import Card, TensorBoardSink, header
from bnbench.sinks.tensorboard.tabs import METRICS, Plain, columns, layout

STARTED = 1_700_000_000.0


def card(**changes: Any) -> Card:
    """What is known of an invented run."""
    values: dict[str, Any] = {
        "started": STARTED,
        "group": "bn_bs064",
        "hparams": HPARAMS,
        "columns": columns([HPARAMS]),
        "texts": {"about": "what it is about"},
        "classes": ("cat", "dog"),
    }
    return Card(**(values | changes))


HPARAMS: dict[str, Plain] = {
    "setup": "bn",
    "data.batch_size": 64,
    "optim.lr": 0.1,
    "norm.affine": True,
}


def sink(folder: Path, *, reports: int = 10) -> TensorBoardSink:
    """A view of an invented run."""
    return TensorBoardSink(folder, card(), scalars(reports))


def scalars(reports: int = 10) -> Scalars:
    """The numbers of an invented run."""
    steps = {"steps_per_epoch": 10, "hparams": {"data.batch_size": 100}}
    return Scalars(steps | {"total_steps": reports, "log_every": 1})


def read(folder: Path) -> EventAccumulator:
    """What TensorBoard makes of a folder, nothing left out."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def moment(step: int, *facts: Fact) -> Moment:
    """A moment of an invented run: 64 images a step, a quarter of a second each."""
    return Moment(step=step, examples=64 * step, train_seconds=0.25 * step, facts=facts)


def report(loss: float = 1.0, loss_max: float = 2.0) -> Step:
    """What training since the last report was like."""
    return Step(loss=loss, loss_max=loss_max, lr=0.1)


EVALUATION = Evaluation(split="val", stats="running", images=4, loss=0.5, accuracy=0.75)
GAP = Gap(split="val", images=4, loss=0.1, accuracy=-0.25, disagreement=0.5, kl=0.125)


def points(accumulator: EventAccumulator, tag: str) -> list[tuple[int, float, float]]:
    """(step, seconds since the start, value) of every point."""
    return [
        (event.step, event.wall_time - STARTED, event.value) for event in accumulator.Scalars(tag)
    ]


def test_the_step_is_images_seen_and_the_time_is_training_time(tmp_path: Path) -> None:
    view = sink(tmp_path)
    view.take(moment(10, report(), EVALUATION))
    view.take(moment(20, report(loss=0.5, loss_max=0.75)))
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


def test_all_scalars_of_a_moment_are_one_record(tmp_path: Path) -> None:
    view = sink(tmp_path)
    view.take(moment(10, EVALUATION, GAP))
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
    readings = [
        Reading(probe="running_error", layer="stage1.norm", name=name, value=value)
        for name, value in (("mean", 0.5), ("variance", 0.25))
    ]
    view.take(moment(10, *readings))
    view.close()
    found = read(tmp_path)
    assert points(found, "probe_running_error/stage1.norm/mean") == [(640, 2.5, 0.5)]
    assert points(found, "probe_running_error/stage1.norm/variance") == [(640, 2.5, 0.25)]


def test_histograms_are_those_that_tensorboard_would_make() -> None:
    """Its own builder makes the same edges and counts from the same values."""
    values = np.random.default_rng(0).normal(size=500)
    made = histogram("stage1.norm", "weight", torch.from_numpy(values))
    assert made is not None
    ours = records.histogram("tag", made.low, made.high, made.counts)
    (theirs,) = histogram_pb("tag", values, buckets=30).value
    assert make_ndarray(ours.tensor) == pytest.approx(make_ndarray(theirs.tensor))
    assert ours.metadata == theirs.metadata


def test_what_is_read_once_is_no_curve(tmp_path: Path) -> None:
    view = sink(tmp_path)
    view.take(moment(10, replace(EVALUATION, split="test")))
    view.close()
    assert sorted(read(tmp_path).Tags()["scalars"]) == [
        "summary/test_running_accuracy",
        "summary/test_running_loss",
    ]


def test_a_long_series_is_thinned_without_losing_a_spike(tmp_path: Path) -> None:
    view = sink(tmp_path, reports=2 * POINTS)
    view.take(moment(1, report(loss=1.0, loss_max=9.0)))
    view.take(moment(2, report(loss=3.0, loss_max=4.0)))
    view.take(moment(3, report(loss=5.0, loss_max=5.0)))
    view.close()
    found = read(tmp_path)
    assert points(found, "loss/train") == [(128, 0.5, 2.0)]
    assert points(found, "loss/train_max") == [(128, 0.5, 9.0)]


def status(accumulator: EventAccumulator) -> tuple[int, float]:
    """How the session ended, and when."""
    content = accumulator.SummaryMetadata(metadata.SESSION_END_INFO_TAG).plugin_data.content
    ended = metadata.parse_session_end_info_plugin_data(content)
    return ended.status, ended.end_time_secs - STARTED


def test_a_divergence_is_told_from_a_result(tmp_path: Path) -> None:
    view = sink(tmp_path)
    view.take(moment(10, EVALUATION))
    view.take(moment(31, Diverged(reason="loss is not finite")))
    view.close()
    found = read(tmp_path)
    assert points(found, "summary/diverged_at_step") == [(1984, 7.75, 31.0)]
    assert points(found, "summary/diverged") == [(1984, 7.75, 1.0)]
    assert points(found, "summary/steps") == [(1984, 7.75, 31.0)]
    assert "summary/val_running_accuracy" not in found.Tags()["scalars"]
    assert status(found) == (api_pb2.STATUS_FAILURE, 7.75)


KINDS: tuple[tuple[Literal["batch", "population"], float], ...] = (
    ("batch", 0.125),
    ("population", 0.25),
)


def test_a_finished_run_has_every_metric(tmp_path: Path) -> None:
    view = sink(tmp_path)
    view.take(moment(10, EVALUATION))
    last = replace(EVALUATION, accuracy=0.875)
    train = replace(last, split="train", loss=0.25)
    test = replace(last, split="test", accuracy=0.625)
    others = [
        replace(each, stats=stats, accuracy=each.accuracy - lower)
        for each in (last, test)
        for stats, lower in KINDS
    ]
    gap = replace(GAP, split="test", accuracy=-0.125)
    view.take(moment(20, last, train, test, *others, gap, Finished()))
    view.close()
    found = read(tmp_path)
    values = {tag: [value for _, _, value in points(found, tag)] for tag in METRICS}
    assert values == {
        "summary/test_running_accuracy": [0.625],
        "summary/diverged": [0.0],
        "summary/test_gap_accuracy": [-0.125],
        "summary/test_running_loss": [test.loss],
        "summary/val_running_accuracy": [0.875],
        "summary/test_batch_accuracy": [0.5],
        "summary/test_population_accuracy": [0.375],
        "summary/val_batch_accuracy": [0.75],
        "summary/val_population_accuracy": [0.625],
    }
    for tag, value in (
        ("summary/steps", 20.0),
        ("summary/train_running_loss", 0.25),
        ("summary/images_per_second", 256.0),
    ):
        assert [each for _, _, each in points(found, tag)] == [value]
    assert status(found) == (api_pb2.STATUS_SUCCESS, 5.0)


def test_what_the_run_is_is_said_before_its_first_event(tmp_path: Path) -> None:
    sink(tmp_path).close()
    (text,) = read(tmp_path).Tensors("about")
    assert text.tensor_proto.string_val[0].decode() == "what it is about"


def picture(accumulator: EventAccumulator, tag: str) -> tuple[int, Image.Image]:
    """The step and the picture of a tag."""
    assert accumulator.SummaryMetadata(tag).plugin_data.plugin_name == "images"
    (event,) = accumulator.Tensors(tag)
    width, height, png = event.tensor_proto.string_val
    image = Image.open(io.BytesIO(png))
    image.load()
    assert image.size == (int(width), int(height))
    return event.step, image


def test_pictures_of_the_first_images_and_of_the_confusion(tmp_path: Path) -> None:
    images = np.zeros((3, 1, 8, 8), np.float32)
    png = first_images(images, ["cat", "dog", "cat"])
    view = TensorBoardSink(tmp_path, card(first_batch=png), scalars())
    view.take(moment(20, Confusion(split="test", stats="running", counts=((3, 1), (0, 4)))))
    view.close()
    found = read(tmp_path)
    assert picture(found, "images/first_batch")[0] == 0
    assert picture(found, "images/confusion_test")[0] == 1280


def test_the_header_is_the_same_bytes_and_its_name_tells_what_is_in_it(tmp_path: Path) -> None:
    name, content = header(card())
    assert header(card()) == (name, content)
    # The slower loader reads files by name and never returns to an earlier one.
    assert name < "events.out.tfevents.1700000000.host.1.0"
    changed = [
        card(group="bn_bs032"),
        card(hparams=HPARAMS | {"optim.lr": 0.2}),
        card(columns=columns([HPARAMS, HPARAMS | {"optim.lr": 0.2}])),
        card(columns=columns([HPARAMS, HPARAMS | {"data.batch_size": 32}])),
        card(metrics=("summary/test_running_accuracy",)),
        card(probes=("running_error",)),
    ]
    names = {header(each)[0] for each in changed}
    assert len(names | {name}) == 7
    (tmp_path / name).write_bytes(content)
    tags = set(read(tmp_path).Tags()["tensors"])
    assert tags == {
        "_hparams_/experiment",
        "_hparams_/session_start_info",
        "custom_scalars__config__",
    }


def test_a_file_is_whole_only_at_the_end_of_a_record(tmp_path: Path) -> None:
    view = sink(tmp_path)
    view.take(moment(10, report()))
    view.close()
    (path,) = tmp_path.iterdir()
    assert is_whole(path)
    content = path.read_bytes()
    ends = []
    for size in range(len(content)):
        path.write_bytes(content[:size])
        if is_whole(path):
            ends.append(size)
    assert len(ends) == 2, "after the version and after the texts"
    assert not is_whole(tmp_path / "nothing")


def test_records_are_those_that_tensorboard_writes() -> None:
    texts = ["", "a", "images " * 1000, "μ ± σ"]
    random = np.random.default_rng(0)
    for length in (*range(230, 260), *range(490, 515), 70_000):
        texts.append("".join(map(chr, random.integers(32, 127, length))))
    events = [Event(wall_time=7.5, step=step, file_version=text) for step, text in enumerate(texts)]
    events.append(Event())  # of no bytes
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        writer.write(event.SerializeToString())
    assert encoded(events) == buffer.getvalue()


@pytest.mark.parametrize("several", [False, True])
def test_each_band_has_a_chart_of_its_own(several: bool) -> None:
    """TensorBoard warns of "Missing Tags" for each run that lacks other than all three of one."""
    value = layout(probes=(), several_batch_sizes=several)
    content = Layout.FromString(value.tensor.string_val[0])
    charts = [chart for category in content.category for chart in category.chart]
    series = [len(chart.margin.series) for chart in charts if chart.HasField("margin")]
    assert series == [1] * (3 if several else 4)
