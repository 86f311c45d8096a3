"""Small runs for tests: seconds matter, images do not."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from bnbench.config import schema
from bnbench.errors import StorageError
from bnbench.events import Moment
from bnbench.runner.settings import Stop
from bnbench.store import ExperimentFolder, Record, Result, RunFolder, Score, encode_records


class StopAt:
    """A view that asks the run to stop once it has seen a step."""

    def __init__(self, stop: Stop, step: int) -> None:
        self._stop, self._step = stop, step

    def take(self, moment: Moment) -> None:
        """Look at the step."""
        if moment.step >= self._step:
            self._stop.exit_code = 130

    def close(self) -> None:
        """Nothing is held."""


SMALL_DATA = schema.SyntheticData(
    dataset="synthetic",
    train_images=96,
    test_images=32,
    classes=4,
    image_size=8,
    validation_size=32,
    batch_size=8,
    eval_batch_size=16,
)


def small_config(**changes: Any) -> schema.RunConfig:
    """Sixteen steps of a network with two convolutions, dropout and augmentation."""
    values: dict[str, Any] = {
        "experiment": "small",
        "setup": "bn",
        "data": SMALL_DATA.model_copy(update={"augment": "flip-crop"}),
        "model": schema.PlainModel(widths=(4, 8), blocks=1, dropout=0.2),
        "norm": schema.BatchNormConfig(),
        "optim": schema.SGDConfig(lr=0.05),
        "train": schema.TrainConfig(
            epochs=2.0, evaluations=4, evaluation_images=16, log_every=3, checkpoint_every=4
        ),
    }
    return schema.RunConfig(**(values | changes))


def slow_norm(file: Path, quick: int) -> dict[str, Any]:
    """`custom_layers.Slow` in a configuration."""
    target = f"{Path(__file__).with_name('custom_layers.py')}:Slow"
    return {"kind": "custom", "target": target, "options": {"file": str(file), "quick": quick}}


def no_norm_config(**changes: Any) -> schema.RunConfig:
    """The same without normalization."""
    return small_config(setup="none", norm=schema.NoNorm(kind="none"), **changes)


def all_probes(every: int = 1) -> schema.ProbesConfig:
    """Every probe there is, with few images."""
    few: dict[str, dict[str, Any]] = {
        "running_error": {"images": 32},
        "gap_by_layer": {"images": 16},
        "decomposition": {"images": 16},
        "batch_noise": {"images": 8, "companions": 3},
        "activation_drift": {"images": 16},
        "landscape": {"steps": (0.1,), "relative_steps": (0.1,)},
        "step_stability": {"steps": (0.01, 1.0), "batches": 1},
    }
    return schema.ProbesConfig.model_validate(
        {name: {"every": every, **few.get(name, {})} for name in schema.ProbesConfig.model_fields}
    )


SMALL_YAML = """\
data:
  dataset: synthetic
  train_images: 96
  test_images: 32
  classes: 4
  image_size: 8
  validation_size: 32
  batch_size: 8
  eval_batch_size: 16
model: {widths: [4, 8], blocks: 1}
train: {epochs: 2, evaluations: 2, checkpoint_every: 4}
"""
"""A file that describes one small run, of 16 steps."""


def write_experiment(path: Path, more: str = "") -> Path:
    """A file with `SMALL_YAML` and more; running statistics catch up in its few steps."""
    momentum = "" if "\nnorm:" in f"\n{more}" else "norm: {momentum: 0.2}\n"
    path.write_text(SMALL_YAML + more + momentum)
    return path


def run_state(folder: RunFolder) -> dict[str, Any]:
    """What the last checkpoint holds of the run."""
    checkpoint = folder.checkpoint()
    assert checkpoint is not None
    state = torch.load(io.BytesIO(checkpoint), weights_only=True)
    assert isinstance(state, dict)
    return state


def committed_step(folder: RunFolder) -> int:
    """The step of the last checkpoint; 0 without one, or just between two renames."""
    try:
        return int(run_state(folder)["run"]["step"])
    except (StorageError, AssertionError):
        return 0


def tensor_digests(state: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """sha256 of every tensor in nested mappings, by path."""
    digests = {}
    for key, value in state.items():
        if isinstance(value, torch.Tensor):
            content = value.contiguous().cpu().numpy().tobytes()
            digests[f"{prefix}{key}"] = hashlib.sha256(content).hexdigest()
        elif isinstance(value, Mapping):
            digests |= tensor_digests(value, f"{prefix}{key}.")
    return digests


def without_seconds(record: Record) -> Record:
    """An event or a result without what the clock decides."""
    seconds = ("train_seconds", "evaluation_seconds", "probe_seconds", "wall_seconds")
    clock = (*seconds, "images_per_second")
    return {key: value for key, value in record.items() if key not in clock}


def result_of(folder: RunFolder) -> Record:
    """What `result.json` holds."""
    result = folder.result()
    assert result is not None
    return result.as_record()


MANIFEST: Record = {
    "setup": "bn",
    "seed": 0,
    "cell": "c",
    "point": {},
    "hparams": {"setup": "bn"},
    "started": 1.0e9,
    "started_utc": "2026-01-01T00:00:00+00:00",
    "command": ["bnbench"],
    "versions": {"torch": "2"},
    "fingerprints": [{"device": "cpu"}],
}
"""What every reader of a manifest relies on, and no more."""


def a_result(**changes: Any) -> Result:
    """An invented result; completed, unless the changes say otherwise."""
    scores = {split: {"running": Score(0.9, 0.5)} for split in ("val", "test")}
    values: dict[str, Any] = {"state": "completed", "steps": 16, "examples": 128}
    values |= {"train_seconds": 1.0, "evaluation_seconds": 0.5, "probe_seconds": 0.0}
    values |= {"wall_seconds": 2.0, "images_per_second": 128.0, "scores": scores}
    return Result(**(values | changes))


def end(folder: RunFolder, config_text: str, result: Result) -> None:
    """Let a run have ended in this way, with one event."""
    folder.begin(config_text=config_text, manifest=MANIFEST)
    last = {"event": "finished", "step": 16, "examples": 128, "train_seconds": 1.0}
    (folder.path / "metrics.jsonl").write_bytes(encode_records([last]))
    folder.finish(result)


def seal_again(folder: RunFolder) -> None:
    """After a change to the files of a run that has ended, as if it had ended with them."""
    result = folder.result()
    assert result is not None
    folder.finish(result)


def evidence(folder: RunFolder) -> dict[str, Any]:
    """Everything about a finished run that must not depend on interruptions."""
    return {
        "result": without_seconds(result_of(folder)),
        "events": [without_seconds(record) for record in folder.records()],
        "tensors": tensor_digests(run_state(folder)["run"]),
    }


def experiment_in(path: Path) -> ExperimentFolder:
    """An experiment's folder below a temporary one."""
    return ExperimentFolder(path / "small")


def quiet_console() -> Console:
    """Where nobody looks."""
    return Console(file=io.StringIO(), quiet=True)
