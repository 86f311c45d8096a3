"""`bnbench.watch` in a loop with Accelerate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from torch import nn

from bnbench.watching import Watch
from bnbench.watching.records import Together


class AccelerateWatch(Watch):
    """Watches a model that was prepared: `with AccelerateWatch(accelerator, model, val=loader):`.

    Readings go to the accelerator's trackers. `options`: those of `bnbench.watch`.
    """

    def __init__(self, accelerator: Accelerator, model: nn.Module, **options: Any) -> None:
        def write(values: Mapping[str, float], step: int) -> None:
            accelerator.log(dict(values), step=step)

        super().__init__(accelerator.unwrap_model(model), **{"log": Together(write)} | options)
