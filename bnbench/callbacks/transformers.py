"""`bnbench.watch` in Hugging Face's Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState

from bnbench.probes import NETWORK
from bnbench.watching import Watch
from bnbench.watching.records import Together


class TransformersWatch(TrainerCallback):  # type: ignore[misc]
    """Watches the model that is trained: `trainer.add_callback(TransformersWatch(trainer))`.

    Readings go where the trainer's own figures go, those of single layers aside, which
    `metrics.jsonl` has. `options`: those of `bnbench.watch`; `val` is the trainer's evaluation
    dataset where it is not given.
    """

    def __init__(self, trainer: Trainer, **options: Any) -> None:
        self._trainer, self._options = trainer, options
        self._watching = ExitStack()
        self._watch: Watch | None = None
        self._held: list[Mapping[str, float]] = []

    def on_train_begin(self, *given: Any, model: nn.Module, **_: Any) -> None:
        """Begin. Raises what `bnbench.watch` raises."""
        unended = RuntimeError("the training before did not end")
        self._watching.__exit__(RuntimeError, unended, None)
        state: TrainerState = given[1]
        how = {"log": Together(self._hold), "begun_at": state.global_step} | self._options
        if "val" not in how and self._trainer.eval_dataset is not None:
            how["val"] = self._trainer.get_eval_dataloader()
        self._watch = self._watching.enter_context(Watch(model, **how))

    def _hold(self, values: Mapping[str, float], _: int) -> None:
        """The trainer has not counted this step yet."""
        self._held.append(
            {
                tag: value
                for tag, value in values.items()
                if not tag.startswith("probe_running_error/") or f"/{NETWORK}/" in tag
            }
        )

    def on_step_end(self, *given: Any, **_: Any) -> None:
        """Log what was read; after the last step, read."""
        control: TrainerControl = given[2]
        due = control.should_log
        if control.should_training_stop and self._watch is not None:
            self._watch.read()
        self._log()
        control.should_log = due  # the trainer takes what we log for its own figures of this step

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Let go of the model."""
        self._watching.close()
        self._watch = None
        self._log()

    def _log(self) -> None:
        held, self._held = self._held, []
        for values in held:
            if values:
                self._trainer.log(dict(values))
