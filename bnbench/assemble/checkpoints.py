"""What checkpoints hold: tensors and plain values; a run's own, what its `Run` goes on from."""

from __future__ import annotations

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
from torch.serialization import get_safe_globals, safe_globals

from bnbench.errors import BnbenchError, StorageError
from bnbench.train import Run
from bnbench.wording import cut, shortened, sizes

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
    *(argparse.Namespace, types.SimpleNamespace, datetime, np.ndarray, np.dtype),
    *((pathlib.PosixPath, f"pathlib.{each}PosixPath") for each in ("", "_local.")),  # Python 3.13
    *{type(np.dtype(each)) for each in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"},
    *((each, f"numpy.{core}.multiarray.{each.__name__}")
      for core in ("core", "_core") for each in _OF_NUMPY),
]  # fmt: skip
"""What scripts keep beside tensors: their arguments, a best accuracy of NumPy's, the state of its
random numbers. None of these can do anything when it is made."""

COUNT = "num_batches_tracked"
"""What a checkpoint may always lack: torch has the count of batches since 1.0."""

_HELD = {
    "run": dict,
    "identity": str,
    "fingerprint": dict,
    "metrics_bytes": int,
    "wall_seconds": float,
}


def load(name: str, content: bytes, *, do: str, also: Collection[Any] = ()) -> Any:
    """The content of a checkpoint; nothing that it says is run.

    `name` is what errors call it, `do` what they advise; `also`: what it may hold beside what torch
    takes. Raises StorageError.
    """
    # On leaving, torch would forget what the user has allowed, too.
    also = [each for each in also if each not in get_safe_globals()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about files of other kinds
            with safe_globals(also):
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


def with_state_dict(
    name: str, content: bytes, *, do: str = SAVE
) -> tuple[Any, MutableMapping[str, Tensor]]:
    """The content of a checkpoint that a script has saved, and the state dict in it: by its name,
    or the only one. Raises StorageError."""
    loaded = load(name, content, do=do, also=PLAIN)
    for place in PLACES:
        found = loaded
        for key in place:
            found = found.get(key) if isinstance(found, dict) else None
        if _is_state_dict(found):
            return loaded, found
    several = dict(_state_dicts(loaded))
    if len(several) == 1:
        return loaded, next(iter(several.values()))
    which = f"{len(several)} state dicts ({cut([*several])})" if several else "no state dict"
    raise StorageError(f"{name} holds {which}", do=do)


def _state_dicts(
    loaded: object, place: str = "", depth: int = 2
) -> Iterator[tuple[str, MutableMapping[str, Tensor]]]:
    if _is_state_dict(loaded):
        yield place, loaded  # type: ignore[misc]
    elif isinstance(loaded, dict) and depth:
        for key, each in loaded.items():
            yield from _state_dicts(each, f"{place}.{shortened(str(key))}".strip("."), depth - 1)


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
    name: str, own: Mapping[str, Any], state: Mapping[str, Tensor], lacking: Collection[str] = ()
) -> tuple[dict[str, Tensor], str, str]:
    """What a state dict has for a network of these names, without what it puts before them; that,
    of a wrapper, or the attribute in which a LightningModule has the network; and what is not used
    then, in words, or "". `lacking`: see `other_names`. Raises StorageError where several fit."""
    saved, wrapper = bare(state)
    if not own or own.keys() & saved.keys():
        return saved, wrapper, ""
    needed = [key for key in own if key.rpartition(".")[2] not in (*lacking, COUNT)]
    first = next(iter(needed), "")
    before = {key.removesuffix(first): key for key in saved if key.endswith(f".{first}")}
    fit = [each for each in before if all(each + key in saved for key in needed)]
    if len(fit) > 1:
        said = f"{name}: {len(fit)} parts of it fit: {cut([f'{shortened(each)}*' for each in fit])}"
        raise StorageError(said, do="save the one that is meant alone")
    if not fit:
        return saved, wrapper, ""
    inside = {key.removeprefix(fit[0]): saved[key] for key in saved if key.startswith(fit[0])}
    others = [shortened(key) for key in saved if not key.startswith(fit[0])]
    number = f"{len(others):,} other{' entry is' if len(others) == 1 else ' entries are'} not"
    left = f"of {name} only {shortened(fit[0])}* is used; {number} ({cut(others)})"
    return inside, wrapper + fit[0], left if others else ""


def other_names(
    saved: Mapping[str, Any], own: Mapping[str, Any], lacking: Collection[str] = ()
) -> str:
    """Which entries the state dict of a checkpoint and that of a network do not share, in words; ""
    where they share all. `lacking`: last parts of names that the checkpoint may lack."""
    may = (*lacking, COUNT)
    missing = [key for key in own if key not in saved and key.rpartition(".")[2] not in may]
    kinds = {"missing": missing, "unexpected": [key for key in saved if key not in own]}
    return "; ".join(
        f"{len(keys):,} {kind} ({cut([shortened(key) for key in keys])})"
        for kind, keys in kinds.items()
        if keys
    )


def other_shapes(saved: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, str]:
    """Tensors of the network that the checkpoint has in another shape: a sentence about each."""
    return {
        key: f"{shortened(key)} is {_sizes(saved[key])} in it, and {_sizes(value)} in the network"
        for key, value in own.items()
        if key in saved and isinstance(value, Tensor)
        if not isinstance(saved[key], Tensor) or saved[key].shape != value.shape
    }


def _sizes(value: Any) -> str:
    return sizes(value.shape) if isinstance(value, Tensor) else f"a {type(value).__name__}"


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
