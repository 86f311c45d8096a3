"""A checkpoint of the user's: read, put into a model, and written with other statistics."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnbench.diagnosis.foreign import described
from bnbench.diagnosis.result import Diagnosis
from bnbench.errors import StorageError, UsageError
from bnbench.store import files

PLACES: tuple[tuple[str, ...], ...] = (
    ("state_dict",),
    ("model_state_dict",),
    ("model",),
    ("run", "model"),  # bnbench's own
)
"""Where a state dict is in a checkpoint that is not one itself."""

WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before each name."""

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
SHOWN = 3


@dataclass(frozen=True, slots=True, eq=False)
class SavedModel:
    """What a file holds: `content`, and the state dict within it, the same object."""

    name: str
    content: Any
    state: MutableMapping[str, Tensor]


def read_checkpoint(path: Path) -> SavedModel:
    """The checkpoint in a file; only tensors and plain values are read. Raises StorageError."""
    content = files.read(path)
    if content is None:
        raise StorageError(f"{path}: no such file", do="name the checkpoint with --checkpoint FILE")
    return parse_checkpoint(str(path), content)


def parse_checkpoint(name: str, content: bytes) -> SavedModel:
    """The checkpoint in these bytes; `name` is what errors call it. Raises StorageError."""
    try:
        loaded = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        unknown = re.search(r"GLOBAL ([\w.]+)", str(error))
        if unknown is None:
            raise StorageError(f"{name} is not a checkpoint of PyTorch", do=_SAVE) from error
        raise StorageError(
            f"{name} holds more than tensors ({unknown[1]}), and running what a file says is not "
            "safe",
            do=f"{_SAVE}; or load it in your function, without --checkpoint",
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StorageError(
            f"{name} is not a checkpoint of PyTorch, or damaged: {reason}", do=_SAVE
        ) from error
    for place in ((), *PLACES):
        found = loaded
        for key in place:
            found = found.get(key) if isinstance(found, dict) else None
        if _is_state_dict(found):
            return SavedModel(name, loaded, found)
    places = ", ".join(repr(place[0]) for place in PLACES[:3])
    raise StorageError(
        f"{name} holds {described(loaded)}: no state dict",
        do=f"expected one, or a dict that has one as {places}",
    )


_SAVE = "save it with torch.save(model.state_dict(), FILE)"


def _is_state_dict(found: object) -> bool:
    return (
        isinstance(found, dict)
        and len(found) > 0
        and all(isinstance(key, str) for key in found)
        and any(isinstance(value, Tensor) for value in found.values())
        and not any(isinstance(value, dict) for value in found.values())
    )


def put_into(model: nn.Module, checkpoint: SavedModel) -> list[str]:
    """Load it, whatever it was wrapped in; notes on statistics that it lacks. Raises UsageError."""
    theirs, _ = _bare(checkpoint.state)
    own, _ = _bare(model.state_dict())
    missing = [key for key in own if key not in theirs]
    lacking = [key for key in missing if key.rpartition(".")[2] in STATISTICS]
    absent = [key for key in missing if key not in lacking]
    unexpected = [key for key in theirs if key not in own]
    if absent or unexpected:
        parts = [
            f"{len(keys):,} {kind} ({_some(keys)})"
            for kind, keys in (("missing", absent), ("unexpected", unexpected))
            if keys
        ]
        raise UsageError(
            f"{checkpoint.name} is of another model: {', '.join(parts)}",
            do="build the model as it was trained",
        )
    now = model.state_dict()
    shapes = [
        f"{bare} {tuple(value.shape)}, in the model {tuple(now[own[bare]].shape)}"
        for bare, key in theirs.items()
        if isinstance(value := checkpoint.state[key], Tensor)
        and isinstance(now[own[bare]], Tensor)
        and value.shape != now[own[bare]].shape
    ]
    if shapes:
        raise UsageError(
            f"{checkpoint.name} is of another model: {'; '.join(shapes[:SHOWN])}",
            do="build the model as it was trained",
        )
    model.load_state_dict(
        {own[bare]: checkpoint.state[key] for bare, key in theirs.items()}, strict=False
    )
    running = [key for key in lacking if not key.endswith("num_batches_tracked")]
    if not running:
        return []
    return [f"{checkpoint.name} has no running statistics for {_some(running)}"]


def recalibrate(checkpoint: SavedModel, diagnosis: Diagnosis) -> bytes:
    """The same checkpoint with the population's statistics; nothing else in it changes."""
    theirs, wrapper = _bare(checkpoint.state)
    for bare, value in diagnosis.recalibrated(
        {bare: checkpoint.state[key] for bare, key in theirs.items()}
    ).items():
        key = theirs.get(bare, wrapper + bare)
        if checkpoint.state.get(key) is not value:
            checkpoint.state[key] = value
    buffer = io.BytesIO()
    torch.save(checkpoint.content, buffer)
    return buffer.getvalue()


def of_model(model: nn.Module) -> SavedModel:
    """A checkpoint that is the model's own state dict."""
    state = {key: value.detach().to("cpu", copy=True) for key, value in model.state_dict().items()}
    return SavedModel("the model", state, state)


def _bare(state: Mapping[str, Tensor]) -> tuple[dict[str, str], str]:
    """Each key by its name without what the model was wrapped in, and that."""
    wrapped = ""
    while inner := [
        each for each in WRAPPERS if all(key.startswith(wrapped + each) for key in state)
    ]:
        wrapped += inner[0]
    return {key.removeprefix(wrapped): key for key in state}, wrapped


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (", …" if len(keys) > SHOWN else "")
