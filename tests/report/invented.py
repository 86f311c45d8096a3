"""Experiments with invented numbers: what lies on disk after a sweep, without training anything."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnbench.config import files, identity, loading, plans, schema
from bnbench.report.study import Study
from bnbench.report.writing import make
from bnbench.store import ExperimentFolder, Record, Result, encode_records

KINDS = ("running", "batch", "population")


@dataclass
class Told:
    """How a run came out.

    `curve`: validation accuracies at evenly spaced evaluations; its last one is the final one.
    `population`: population minus running accuracy. `probes`: values over time by (probe, layer,
    name). `gap`: running minus batch accuracy; `gaps`: at each evaluation, where that differs.
    `right`: for each test image whether it is right at the end, under all kinds of statistics, so
    that `test` must be their mean. `steps`: of a batch each, at the end; None: ten for each
    evaluation, of 1,000 images in all.
    """

    curve: Sequence[float] = (0.5,)
    test: float = 0.5
    train_loss: float = 0.1
    gap: float = 0.0
    gaps: Sequence[float] = ()
    population: float = 0.0
    probes: Mapping[tuple[str, str, str], Sequence[float]] = field(default_factory=dict)
    state: str = "completed"
    images_per_second: float = 1000.0
    right: Sequence[bool] | None = None
    steps: int | None = None


def invented(
    path: Path, text: str, tell: Callable[[schema.RunConfig], Told | None], *sets: str
) -> ExperimentFolder:
    """An experiment folder `path`/runs/x; None from `tell`: the run has not been begun."""
    file = path / "x.yaml"
    file.write_text(text, encoding="utf-8")
    overrides = loading.Overrides(set=sets)
    experiment = loading.load_experiment(file, overrides)
    folder = ExperimentFolder(path / "runs" / "x")
    folder.begin(files.dump_experiment(experiment))
    for config in plans.stored(experiment):
        told = tell(config)
        if told is not None:
            write_run(config, folder, told)
    return folder


@contextmanager
def undrawn() -> Iterator[None]:
    """Reports without figures, which have their own tests, and take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bnbench.report.writing.drawn", lambda *_: [])
        yield


def recorded(study: Study) -> Record:
    """The record of a report without figures."""
    with undrawn():
        return make(study).record


def write_run(config: schema.RunConfig, experiment: ExperimentFolder, told: Told) -> None:
    """A run as training would leave it."""
    run = experiment.run(identity.run_id(config))
    run.begin(config_text=files.dump(config), manifest=_manifest(config, run.name, told.steps))
    records, last = _records(told)
    metrics = run.metrics(keep=0)
    metrics.append(encode_records(records))
    metrics.close()
    if told.state == "failed":
        run.fail({"error": "ValueError", "message": "it broke", "traceback": "…"})
    elif told.state != "interrupted":
        if told.steps is not None:
            images = told.steps * config.data.batch_size
            last = last | {"step": told.steps, "examples": images}
        run.finish(Result.from_record(_result(told, last)))


def _manifest(config: schema.RunConfig, name: str, steps: int | None) -> Record:
    return {
        "run": name,
        "identity": identity.identity(config),
        "experiment": config.experiment,
        "setup": config.setup,
        "cell": identity.cell(config),
        "point": identity.point(config),
        "seed": config.seed,
        "hparams": identity.hparams(config),
        "log_every": 10,
        "probes": sorted(config.probes.chosen()),
        "started": 1.0e9,
        "started_utc": "2026-01-01T00:00:00+00:00",
        "attempts": 1,
        "command": ["bnbench", "sweep", "x.yaml"],
        "versions": {"bnbench": "0", "python": "3.11", "torch": "2"},
        "git_commit": None,
        "machine": "x86_64",
        "fingerprints": [{"torch": "2", "device": "cpu", "cpu_capability": "AVX2", "threads": 1}],
        "parameters": 100,
        "trainable_parameters": 100,
        "normalization_layers": 3,
        "total_steps": steps or 100,
        "train_images": 1000,
        "validation_images": 100,
        "test_images": 100,
        "steps_per_epoch": -(-1000 // config.data.batch_size),
        "classes": [f"class {n}" for n in range(getattr(config.data, "classes", 10))],
    }


def _records(told: Told) -> tuple[list[Record], Record]:
    records: list[Record] = []
    at: Record = {}
    points = len(told.curve)
    for number, accuracy in enumerate(told.curve, start=1):
        at = {"step": 10 * number, "examples": 1000 * number, "train_seconds": 0.5 * number}
        gap = told.gaps[number - 1] if told.gaps else told.gap
        splits = ("train", "val", "test") if number == points else ("train", "val")
        if told.state != "completed" and number == points:
            splits = ("train", "val")
        for split in splits:
            for kind in KINDS:
                value = told.test if split == "test" else accuracy
                value += _off(told, kind, gap)
                loss = told.train_loss if split == "train" else 1 - value
                records.append(
                    {"event": "eval", **at, "split": split, "stats": kind, "images": 100}
                    | {"loss": loss, "accuracy": value}
                )
            records.append(
                {"event": "gap", **at, "split": split, "images": 100, "loss": -gap}
                | {"accuracy": gap, "disagreement": abs(gap), "kl": abs(gap)}
            )
    for kind in KINDS if told.right is not None and told.state == "completed" else ():
        bits = b64encode(np.packbits(np.array(told.right)).tobytes()).decode()
        records.append(
            {"event": "correct", **at, "split": "test", "stats": kind}
            | {"images": len(told.right or ()), "bits": bits}
        )
    for (probe, layer, name), values in told.probes.items():
        for number, value in enumerate(values):
            where = {"step": 10 * number, "examples": 1000 * number, "train_seconds": 0.5 * number}
            finite = {"value": value} if isfinite(value) else {"value": None, "finite": False}
            records.append(
                {"event": "probe", **where, "probe": probe, "layer": layer, "name": name} | finite
            )
    if told.state == "diverged":
        records.append({"event": "diverged", **at, "reason": "loss above 10·ln(classes)"})
    return records, at


def _off(told: Told, kind: str, gap: float) -> float:
    """Of the accuracy under running statistics."""
    return {"running": 0.0, "batch": -gap, "population": told.population}[kind]


def _result(told: Told, at: Record) -> Record:
    cost: dict[str, Any] = {
        "state": told.state,
        "steps": at["step"],
        "examples": at["examples"],
        "train_seconds": at["train_seconds"],
        "evaluation_seconds": 0.1,
        "probe_seconds": 0.0,
        "wall_seconds": at["train_seconds"] + 0.1,
        "images_per_second": told.images_per_second,
    }
    if told.state == "diverged":
        return cost | {"step": at["step"], "reason": "loss above 10·ln(classes)"}
    for split in ("train", "val", "test"):
        value = told.test if split == "test" else told.curve[-1]
        cost[split] = {
            kind: {
                "loss": told.train_loss if split == "train" else 1 - value,
                "accuracy": value + _off(told, kind, told.gaps[-1] if told.gaps else told.gap),
            }
            for kind in KINDS
        }
    return cost
