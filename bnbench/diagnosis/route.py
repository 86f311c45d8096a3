"""How a batch goes through a network where the user does not say."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from torch import Tensor, nn

from bnbench.diagnosis.foreign import described
from bnbench.diagnosis.grouping import Path
from bnbench.errors import UsageError

LABELS = ("labels", "label", "targets", "target", "y")
"""What labels are called in batches that are dicts."""

Forward: TypeAlias = Callable[[nn.Module, Any], Any]
"""How a batch goes through the model: forward(model, batch) → output."""

CALLED = """\
say how a batch goes through the model:
    def forward(model, batch):
        return model(batch[0])
  then call diagnose(model, loader, forward=forward), or, for the command, return
    {"model": model, "train": loader, "forward": forward}"""


@dataclass(frozen=True, slots=True)
class Route:
    """How a batch goes through the model where the user does not say: which parts of it are
    arguments, and where its labels are, if it has any."""

    args: tuple[Path, ...]
    names: tuple[str, ...]
    labels: Path | None

    def __call__(self, model: nn.Module, batch: Any) -> Any:
        return model(
            *(part(batch, path) for path in self.args), **{name: batch[name] for name in self.names}
        )


def part(batch: Any, path: Path) -> Any:
    """What is there in a batch."""
    for key in path:
        batch = batch[key]
    return batch


def route(model: nn.Module, batch: Any) -> Route:
    """How this batch goes through the model. Raises UsageError."""
    needed, accepted, any_name = _parameters(model)
    if isinstance(batch, Mapping):
        at = labels_in(batch)
        names = [name for name in batch if name in accepted or any_name]
        if not set(needed) <= set(names):
            others = [name for name in batch if (name,) != at and isinstance(batch[name], Tensor)]
            if len(others) != 1 or len(needed) > 1:
                raise UsageError(
                    f"the model takes {', '.join(needed)}, and the loader yields "
                    f"{described(batch)}",
                    do=CALLED,
                )
            return Route(((others[0],),), (), at)
        return Route((), tuple(names), at)
    if isinstance(batch, Tensor):
        return Route(((),), (), None)
    first = min(max(len(needed), 1), len(batch))
    return Route(tuple((k,) for k in range(first)), (), (first,) if len(batch) > first else None)


def _parameters(model: nn.Module) -> tuple[list[str], set[str], bool]:
    """Arguments of its forward: those that must be given, all, whether it takes any name."""
    inner = model.module if isinstance(model, nn.DataParallel) else model
    try:
        parameters = inspect.signature(cast(nn.Module, inner).forward).parameters.values()
    except (TypeError, ValueError):
        return [], set(), False
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p.name for p in parameters if p.kind in places and p.default is p.empty]
    named = {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    return needed, named, any(p.kind is p.VAR_KEYWORD for p in parameters)


def beside(model: nn.Module, forward: Forward | None, batch: Any) -> set[Path]:
    """What of a batch goes into the model beside its first input; where the user says how it goes,
    what may. Raises UsageError."""
    if forward is None:
        way = route(model, batch)
        return {*way.args[1:], *((name,) for name in way.names)} - {way.labels}
    keys = list(batch) if isinstance(batch, Mapping) else range(1, len(batch))
    return {(key,) for key in keys} - {labels_in(batch)}


def labels_in(batch: Any) -> Path | None:
    """Where labels are, as a rule, where the user says how a batch goes through the model."""
    if isinstance(batch, Mapping):
        return next(((name,) for name in LABELS if name in batch), None)
    if isinstance(batch, tuple) and len(batch) > 1 and isinstance(batch[-1], Tensor):
        return (len(batch) - 1,)
    return None
