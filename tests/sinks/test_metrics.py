"""`metrics.jsonl`: the contract's lines, and back without loss."""

from __future__ import annotations

import json
import math
from pathlib import Path

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
from bnbench.sinks import MetricsSink, from_record, to_record
from bnbench.store import RunFolder

EVENTS: list[Event] = [
    Step(step=10, examples=640, train_seconds=0.41, loss=1.9321, loss_max=2.5, lr=0.1),
    Evaluation(
        step=140,
        examples=8960,
        train_seconds=5.2,
        split="val",
        stats="running",
        images=1000,
        loss=0.61,
        accuracy=0.781,
    ),
    Gap(
        step=140,
        examples=8960,
        train_seconds=5.2,
        split="val",
        images=1000,
        loss=0.02,
        accuracy=-0.004,
        disagreement=0.031,
        kl=0.0071,
    ),
    Confusion(
        step=423,
        examples=27072,
        train_seconds=16.0,
        split="test",
        stats="running",
        counts=((7, 1), (0, 8)),
    ),
    Diverged(step=31, examples=1984, train_seconds=1.1, reason="loss above 10·ln(classes)"),
    Probe(
        step=140,
        examples=8960,
        train_seconds=5.2,
        probe="running_error",
        layer="stage2.block1.norm",
        name="mean",
        value=0.13,
    ),
    Histogram(
        step=140,
        examples=8960,
        train_seconds=5.2,
        probe="histograms",
        layer="stage2.block1.norm",
        name="weight",
        low=0.5,
        high=1.5,
        counts=(1, 3),
    ),
    Finished(step=423, examples=27072, train_seconds=16.0),
]


def test_the_lines_are_those_of_the_contract(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    file = folder.metrics(keep=0)
    sink = MetricsSink(file)
    for event in EVENTS:
        sink.take([event])
    file.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert lines[0] == (
        '{"event": "step", "step": 10, "examples": 640, "train_seconds": 0.41, '
        '"loss": 1.9321, "loss_max": 2.5, "lr": 0.1}'
    )
    assert lines[1] == (
        '{"event": "eval", "step": 140, "examples": 8960, "train_seconds": 5.2, "split": "val", '
        '"stats": "running", "images": 1000, "loss": 0.61, "accuracy": 0.781}'
    )
    assert lines[3] == (
        '{"event": "confusion", "step": 423, "examples": 27072, "train_seconds": 16.0, '
        '"split": "test", "stats": "running", "counts": [[7, 1], [0, 8]]}'
    )
    assert lines[4] == (
        '{"event": "diverged", "step": 31, "examples": 1984, "train_seconds": 1.1, '
        '"reason": "loss above 10·ln(classes)"}'
    )
    assert lines[5] == (
        '{"event": "probe", "step": 140, "examples": 8960, "train_seconds": 5.2, '
        '"probe": "running_error", "layer": "stage2.block1.norm", "name": "mean", "value": 0.13}'
    )
    assert [from_record(record) for record in folder.records()] == EVENTS


def test_numbers_that_are_not_finite_become_null_and_say_so() -> None:
    record = to_record(
        Step(step=1, examples=2, train_seconds=0.1, loss=math.nan, loss_max=math.inf, lr=0.1)
    )
    assert record["loss"] is None
    assert record["loss_max"] is None
    assert record["finite"] is False
    json.dumps(record, allow_nan=False)
    where = {"step": 1, "examples": 2, "train_seconds": 0.1, "probe": "landscape"}
    lost = to_record(Probe(**where, layer="network", name="beta", value=math.inf))  # type: ignore[arg-type]
    assert lost == {
        "event": "probe",
        **where,
        "layer": "network",
        "name": "beta",
        "value": None,
        "finite": False,
    }
    back = from_record(record)
    assert isinstance(back, Step)
    assert math.isnan(back.loss)
    assert back.lr == 0.1
