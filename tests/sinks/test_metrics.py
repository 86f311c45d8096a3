"""`metrics.jsonl`: the contract's lines, and back without loss."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import get_args

from bnbench.events import (
    KINDS,
    Confusion,
    Correctness,
    Diverged,
    Evaluation,
    Fact,
    Finished,
    Gap,
    Histogram,
    Moment,
    Reading,
    Step,
)
from bnbench.sinks.metrics import MetricsSink, to_moments, to_records
from bnbench.store import RunFolder

MOMENTS = [
    Moment(
        step=10,
        examples=640,
        train_seconds=0.41,
        facts=(Step(loss=1.9321, loss_max=2.5, lr=0.1),),
    ),
    Moment(
        step=140,
        examples=8960,
        train_seconds=5.2,
        facts=(
            Evaluation(split="val", stats="running", images=1000, loss=0.61, accuracy=0.781),
            Gap(
                split="val", images=1000, loss=0.02, accuracy=-0.004, disagreement=0.031, kl=0.0071
            ),
            Reading(probe="running_error", layer="stage2.block1.norm", name="mean", value=0.13),
            Histogram(
                probe="histograms",
                layer="stage2.block1.norm",
                name="weight",
                low=0.5,
                high=1.5,
                counts=(1, 3),
            ),
        ),
    ),
    # The same step: a report, and what was found after it.
    Moment(
        step=140,
        examples=8960,
        train_seconds=5.25,
        facts=(
            Confusion(split="test", stats="running", counts=((7, 1), (0, 8))),
            Correctness(split="test", stats="batch", images=9, bits="8IA="),
            Diverged(reason="loss above 10·ln(classes)"),
            Finished(),
        ),
    ),
]


def test_the_lines_are_those_of_the_contract(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    sink = MetricsSink(folder.metrics(keep=0))
    for moment in MOMENTS:
        sink.take(moment)
    sink.close()
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
        '{"event": "probe", "step": 140, "examples": 8960, "train_seconds": 5.2, '
        '"probe": "running_error", "layer": "stage2.block1.norm", "name": "mean", "value": 0.13}'
    )
    assert lines[5:] == [
        '{"event": "confusion", "step": 140, "examples": 8960, "train_seconds": 5.25, '
        '"split": "test", "stats": "running", "counts": [[7, 1], [0, 8]]}',
        '{"event": "correct", "step": 140, "examples": 8960, "train_seconds": 5.25, '
        '"split": "test", "stats": "batch", "images": 9, "bits": "8IA="}',
        '{"event": "diverged", "step": 140, "examples": 8960, "train_seconds": 5.25, '
        '"reason": "loss above 10·ln(classes)"}',
        '{"event": "finished", "step": 140, "examples": 8960, "train_seconds": 5.25}',
    ]
    assert list(to_moments(folder.records())) == MOMENTS


def test_every_fact_has_a_name() -> None:
    assert set(KINDS.values()) == set(get_args(Fact))


def test_numbers_that_are_not_finite_become_null_and_say_so() -> None:
    facts = (
        Step(loss=math.nan, loss_max=math.inf, lr=0.1),
        Reading(probe="landscape", layer="network", name="beta", value=math.inf),
    )
    moment = Moment(step=1, examples=2, train_seconds=0.1, facts=facts)
    step, lost = to_records(moment)
    assert (step["loss"], step["loss_max"], step["finite"]) == (None, None, False)
    json.dumps(step, allow_nan=False)
    assert lost == {
        "event": "probe",
        "step": 1,
        "examples": 2,
        "train_seconds": 0.1,
        "probe": "landscape",
        "layer": "network",
        "name": "beta",
        "value": None,
        "finite": False,
    }
    (back,) = to_moments([step])
    (fact,) = back.facts
    assert isinstance(fact, Step)
    assert math.isnan(fact.loss)
    assert fact.lr == 0.1
