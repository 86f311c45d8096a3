"""The callback for Hugging Face's Trainer, in the Trainer itself."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.optim.optimizer import _global_optimizer_post_hooks

from bnbench.callbacks import TransformersWatch
from tests.extras import required
from tests.watching.loops import data, network

transformers = required("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # its own


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = network(dropout=0.5)

    def forward(self, pixels: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.net(pixels)
        return {} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


@pytest.fixture(autouse=True)
def _board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))


def trained(folder: Path, *, watched: bool, accumulated: int = 1) -> tuple[nn.Module, Any]:
    rows = [{"pixels": x, "labels": y} for batch in data() for x, y in zip(*batch, strict=True)]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        report_to="tensorboard",
        per_device_train_batch_size=16,
        gradient_accumulation_steps=accumulated,
        max_steps=7,
        logging_steps=3,
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        seed=3,
    )
    model = Classifier()
    trainer = transformers.Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)
    if watched:
        how: dict[str, Any] = {"every": 3, "folder": folder}
        trainer.add_callback(TransformersWatch(trainer, **how))
    trainer.train()
    return model, trainer


def test_the_gap_is_in_its_logs_and_training_is_the_same(tmp_path: Path) -> None:
    model, trainer = trained(tmp_path / "a", watched=True)
    alone, other = trained(tmp_path / "b", watched=False)
    losses = [
        [each["loss"] for each in by.state.log_history if "loss" in each] for by in (trainer, other)
    ]
    assert losses[0] == losses[1] != []  # its own rows, at the same steps
    logged = [each for each in trainer.state.log_history if "gap/val_accuracy" in each]
    assert [each["step"] for each in logged] == [3, 6, 7]
    assert all("probe_running_error/network/mean" in each for each in logged)
    boards = [EventAccumulator(str(each)).Reload() for each in (tmp_path / "board").iterdir()]
    shown = [each for each in boards if "train/gap/val_accuracy" in each.Tags()["scalars"]]
    assert [point.step for point in shown[0].Scalars("train/gap/val_accuracy")] == [3, 6, 7]
    assert all(map(torch.equal, model.state_dict().values(), alone.state_dict().values()))
    assert not _global_optimizer_post_hooks


def test_the_network_is_let_go_after_training(tmp_path: Path) -> None:
    model, trainer = trained(tmp_path, watched=True)
    callbacks = trainer.callback_handler.callbacks
    (callback,) = (each for each in callbacks if isinstance(each, TransformersWatch))
    network = weakref.ref(model)
    del model, trainer, callbacks
    callback._trainer = None
    gc.collect()
    assert network() is None


def test_accumulated_batches_are_said(tmp_path: Path) -> None:
    _, trainer = trained(tmp_path, watched=True, accumulated=2)
    said = [each for each in trainer.state.log_history if "finding/micro-batches" in each]
    assert [each["step"] for each in said] == [2]
