"""What checkpoints hold: tensors and plain values; a run's own, what its `Run` goes on from."""

from __future__ import annotations

import _codecs
import argparse
import io
import pathlib
import pickle
import re
import types
import warnings
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from datetime import datetime
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.serialization import safe_globals

from bnbench.errors import BnbenchError, StorageError
from bnbench.train import Run
from bnbench.wording import cut, shortened

AGAIN = "put the run's own back, or train it again with --restart"

SAVE = "save it with torch.save(model.state_dict(), FILE)"

PLACES = ((), ("state_dict",), ("model_state_dict",), ("model",), ("run", "model"))
"""Where a state dict is in a checkpoint, which may be one itself; the last is bnbench's own."""

WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before each name."""

AVERAGED = "n_averaged"
"""What AveragedModel counts, beside the names of its module."""

_OF_NUMPY: list[Any] = [each.__reduce__()[0] for each in (np.empty(0), np.float64(0))]

PLAIN: list[Any] = [
    *(argparse.Namespace, types.SimpleNamespace, pathlib.PosixPath, pathlib.PurePosixPath),
    *(datetime, np.ndarray, np.dtype, _codecs.encode),
    *{type(np.dtype(each)) for each in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"},
    *((each, f"numpy.{core}.multiarray.{each.__name__}")
      for core in ("core", "_core") for each in _OF_NUMPY),
]  # fmt: skip
"""What scripts keep beside tensors: their arguments, a best accuracy of NumPy's, the state of its
random numbers. None of these can do anything when it is made."""

_HELD = {
    "run": dict,
    "identity": str,
    "fingerprint": dict,
    "metrics_bytes": int,
    "wall_seconds": float,
}


def load(name: str, content: bytes, *, do: str) -> Any:
    """The content of a checkpoint; nothing that it says is run.

    `name` is what errors call it, `do` what they advise. Raises StorageError.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about files of other kinds
            with safe_globals(PLAIN):
                return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception as error:  # whatever bytes of someone else's make of torch's reader
        # Not in its words: it advises to load the file without this protection.
        unknown = re.search(r"GLOBAL ([\w.]+)", str(error))
        said = f"{name} is not a checkpoint of PyTorch, or damaged"
        if content[8:10] == b'{"':
            said = f"{name} is a file of safetensors, not of torch.save"
        if isinstance(error, pickle.UnpicklingError) and unknown is not None:
            what = f"holds more than tensors ({unknown[1]})"
            said = f"{name} {what}, and running what a file says is not safe"
        raise StorageError(said, do=do) from error


def state_dict_in(loaded: Any) -> MutableMapping[str, Tensor] | None:
    """The state dict in the content of a checkpoint, by its name or as the only one; None: there is
    none, or several."""
    for place in PLACES:
        found = loaded
        for key in place:
            found = found.get(key) if isinstance(found, dict) else None
        if _is_state_dict(found):
            return found  # type: ignore[no-any-return]
    several = [*_state_dicts(loaded)]
    return several[0] if len(several) == 1 else None


def _state_dicts(loaded: object, depth: int = 2) -> Iterator[MutableMapping[str, Tensor]]:
    if _is_state_dict(loaded):
        yield loaded  # type: ignore[misc]
    elif isinstance(loaded, dict) and depth:
        for each in loaded.values():
            yield from _state_dicts(each, depth - 1)


def _is_state_dict(found: object) -> bool:
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        return False
    values = found.values()
    return any(isinstance(each, Tensor) for each in values) and not any(
        isinstance(each, dict) for each in values
    )


def bare(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The state dict without what the model was wrapped in, and what that puts before names."""
    inside = {key: value for key, value in state.items() if key != AVERAGED}
    if all(key.startswith(WRAPPERS[0]) for key in inside):
        state = inside
    wrapper = ""
    while inner := [
        each for each in WRAPPERS if state and all(key.startswith(wrapper + each) for key in state)
    ]:
        wrapper += inner[0]
    return {key.removeprefix(wrapper): value for key, value in state.items()}, wrapper


def part_for(
    own: Mapping[str, Any], state: Mapping[str, Tensor], lacking: Collection[str] = ()
) -> tuple[dict[str, Tensor], str]:
    """What a state dict has for a network of these names, without what it puts before them, and
    that: of a wrapper, or the attribute in which a LightningModule has the network. `lacking`: see
    `other_names`."""
    saved, wrapper = bare(state)
    if not own or own.keys() & saved.keys():
        return saved, wrapper
    lacking = (*lacking, "num_batches_tracked")
    needed = [key for key in own if key.rpartition(".")[2] not in lacking]
    first = next(iter(needed), "")
    before = {key.removesuffix(first) for key in saved if key.endswith(f".{first}")}
    fit = [each for each in before if all(each + key in saved for key in needed)]
    if len(fit) != 1:
        return saved, wrapper
    inside = {key.removeprefix(fit[0]): saved[key] for key in saved if key.startswith(fit[0])}
    return inside, wrapper + fit[0]


def other_names(
    saved: Mapping[str, Any], own: Mapping[str, Any], lacking: Collection[str] = ()
) -> str:
    """Which entries the state dict of a checkpoint and that of a network do not share, in words; ""
    where they share all. `lacking`: last parts of names that the checkpoint may lack; as the count
    of batches, which torch has since 1.0."""
    lacking = (*lacking, "num_batches_tracked")
    missing = [key for key in own if key not in saved and key.rpartition(".")[2] not in lacking]
    kinds = {"missing": missing, "unexpected": [key for key in saved if key not in own]}
    return "; ".join(
        f"{len(keys):,} {kind} ({cut([shortened(key) for key in keys])})"
        for kind, keys in kinds.items()
        if keys
    )


def other_shapes(saved: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, str]:
    """Tensors of the network that the checkpoint has in another shape: a sentence about each."""
    return {
        key: f"{shortened(key)} is {sizes(saved[key])} in it, and {sizes(value)} in the network"
        for key, value in own.items()
        if key in saved and isinstance(value, Tensor)
        if not isinstance(saved[key], Tensor) or saved[key].shape != value.shape
    }


def sizes(value: Any) -> str:
    """The shape of a tensor, in words; of anything else, what it is."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return "×".join(map(str, value.shape)) or "a single number"


def load_state(name: str, content: bytes, identity: str) -> dict[str, Any]:
    """The content of the checkpoint of the run of this identity. Raises StorageError."""
    state = load(name, content, do=AGAIN)
    if not (
        isinstance(state, dict)
        and all(isinstance(state.get(key), kind) for key, kind in _HELD.items())
        and isinstance(state["fingerprint"].get("threads"), int)
    ):
        raise StorageError(f"{name} is not a checkpoint of a run", do=AGAIN)
    if state["identity"] != identity:
        raise StorageError(f"{name} is the checkpoint of another run", do=AGAIN)
    return state


def resume(run: Run, name: str, state: dict[str, Any]) -> None:
    """Put the state of `load_state` into the run. Raises StorageError where it does not fit."""
    try:
        run.load_state_dict(state["run"])
    except BnbenchError:
        raise
    except Exception as error:
        raise StorageError(f"{name} does not fit the network of the run", do=AGAIN) from error
