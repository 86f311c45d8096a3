"""The callback for Lightning, in its own Trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.optim.optimizer import _global_optimizer_post_hooks

from bnbench.callbacks import LightningWatch
from bnbench.errors import UsageError
from tests.extras import required
from tests.watching.loops import data, network, optimizer

lightning = required("lightning.pytorch")
loggers = required("lightning.pytorch.loggers")
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own: workers, logging intervals


def module(with_forward: bool = True, fails_at: int = -1) -> Any:
    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = network(dropout=0.5)

        def training_step(self, batch: list[Tensor], _: int) -> Tensor:
            if self.global_step == fails_at:
                raise ArithmeticError("broken")
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch: list[Tensor], _: int) -> None:
            self.net(batch[0])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return optimizer(self)

    if with_forward:
        Module.forward = lambda self, x: self.net(x)
    return Module()


def fitted(folder: Path, model: nn.Module, callbacks: list[Any]) -> EventAccumulator:
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=loggers.TensorBoardLogger(str(folder), "", "board"),
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    torch.manual_seed(1)
    trainer.fit(model, data(shuffle=True), data())
    return EventAccumulator(str(folder / "board")).Reload()


@pytest.mark.parametrize("with_forward", [True, False])
def test_the_gap_is_in_its_logger_and_training_is_the_same(
    tmp_path: Path, with_forward: bool
) -> None:
    watched, alone = module(with_forward), module(with_forward)
    callback = LightningWatch(every=3, folder=tmp_path / "watch")
    board = fitted(tmp_path / "a", watched, [callback])
    fitted(tmp_path / "b", alone, [])
    assert [each.step for each in board.Scalars("gap/val_accuracy")] == [3, 6, 8]
    assert not any(tag.startswith("finding") for tag in board.Tags()["scalars"])
    assert all(map(torch.equal, watched.state_dict().values(), alone.state_dict().values()))
    assert (tmp_path / "watch/results.jsonl").exists()
    assert not _global_optimizer_post_hooks


def test_hooks_are_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArithmeticError):
        fitted(tmp_path, module(fails_at=3), [LightningWatch(every=3, folder=None)])
    assert not _global_optimizer_post_hooks


def test_what_takes_a_batch_must_be_known(tmp_path: Path) -> None:
    model = module(with_forward=False)
    model.other = nn.BatchNorm2d(3)
    forward: Callable[..., Any] = lambda module, batch: module.net(batch[0])  # noqa: E731
    with pytest.raises(UsageError, match=r"Module has no forward\(\)"):
        fitted(tmp_path / "a", model, [LightningWatch(folder=None)])
    fitted(tmp_path / "b", model, [LightningWatch(folder=None, forward=forward)])
