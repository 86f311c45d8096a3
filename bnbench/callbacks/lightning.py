"""`bnbench.watch` in Lightning's Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from bnbench.errors import UsageError
from bnbench.watching import Watch
from bnbench.watching.records import Together


class LightningWatch(Callback):  # type: ignore[misc]
    """Watches the module that is fitted: `Trainer(callbacks=[LightningWatch(every=100)])`.

    Readings go to the trainer's loggers, at its `global_step`. `options`: those of `bnbench.watch`;
    `val` is the trainer's first validation loader where it is not given. Where the module has no
    `forward`, its only child with normalization layers is watched.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._watching = ExitStack()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin. Raises what `bnbench.watch` raises."""

        def write(values: Mapping[str, float], step: int) -> None:
            for logger in trainer.loggers:
                logger.log_metrics(dict(values), step=step)

        val = trainer.val_dataloaders
        if isinstance(val, list | tuple) and val and isinstance(val[0], DataLoader):
            val = val[0]
        how = {"val": val, "log": Together(write), "begun_at": trainer.global_step}
        watch = Watch(_called(pl_module, self._options), **how | self._options)
        self._watching.enter_context(watch)

    def on_train_end(self, *_: Any) -> None:
        """Measure a last time."""
        self._watching.close()

    def on_exception(self, *given: Any) -> None:
        """Let go of the module; `given`: trainer, module, error."""
        self._watching.__exit__(type(given[-1]), given[-1], None)


def _called(module: LightningModule, options: Mapping[str, Any]) -> nn.Module:
    """What takes a batch. Raises UsageError where that is not known."""
    if "forward" in options or type(module).forward is not LightningModule.forward:
        return module  # type: ignore[no-any-return]
    children = [
        child
        for child in module.children()
        if any("Norm" in type(each).__name__ for each in child.modules())
    ]
    if len(children) != 1:
        raise UsageError(
            f"{type(module).__name__} has no forward()",
            do="say how a batch goes through it: LightningWatch(forward=lambda module, batch: …)",
        )
    return children[0]  # type: ignore[no-any-return]
