"""Images that a function of the user's own returns: called once, kept for every later run."""

from __future__ import annotations

import inspect
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bnbench.assemble.custom import load_module
from bnbench.assemble.inputs import Announce
from bnbench.config import feasible, schema
from bnbench.config.custom import custom_target
from bnbench.config.datasets import prepared_copy
from bnbench.data.dataset import Dataset, doubts
from bnbench.data.prepared import cache_folder, prepared
from bnbench.errors import DataError
from bnbench.guard import Raised, awaited, foreign_code


def prepare(configs: Iterable[schema.RunConfig], announce: Announce) -> None:
    """Have the images of these runs prepared, and say where those are that were before. Raises
    ConfigError, DataError."""
    found = {prepared_copy(config.data): config
             for config in configs if isinstance(config.data, schema.CustomData)}  # fmt: skip
    for (path, _), config in found.items():
        assert isinstance(config.data, schema.CustomData)
        if path is not None and feasible.known(config):
            date = datetime.fromtimestamp(path.stat().st_mtime).astimezone()
            announce(
                f"images of {_where(config.data)}, as prepared {date:%Y-%m-%d %H:%M} in {path}"
            )
        else:
            load(config.data, announce)


def load(config: schema.CustomData, announce: Announce) -> Dataset:
    """The images, from the prepared copy if there is one. Raises ConfigError, DataError."""
    path, fingerprint = prepared_copy(config)
    path = path or cache_folder()

    def make() -> Dataset:
        return _returned(config, path.parent, announce)

    return prepared(path, fingerprint, make, announce, required=True)


def _returned(config: schema.CustomData, scratch: Path, announce: Announce) -> Dataset:
    from bnbench.data.own import gathered

    file, name = custom_target(config.target)
    where = _where(config)
    announce(f"preparing the images of {where}, kept in {scratch}")

    def fails(raised: Raised) -> DataError:
        raised.place = raised.place or f"{where}: "
        return DataError(f"data.target: {raised}")

    function = getattr(load_module(file, config.target, "data.target"), name, None)
    if not callable(function):
        raise DataError(f"data.target: {where} is no function", do="write def load(…)")
    _require_options(function, config.options, where)
    with (
        awaited(where, announce),
        _same_random_numbers(),
        redirect_stdout(sys.stderr),
        foreign_code(fails),
    ):
        found = gathered(function(**config.options), where, scratch)
    for doubt in doubts(found):
        announce(f"warning: {where}: {doubt}")
    return found


def _require_options(function: Callable[..., Any], options: dict[str, Any], where: str) -> None:
    try:
        inspect.signature(function).bind(**options)
    except TypeError as error:
        raise DataError(f"data.options: {where}{inspect.signature(function)}: {error}") from None
    except ValueError:
        return  # its signature is not known


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """A split that is drawn there is the same each time, and what is drawn here goes on as if
    nothing had been."""
    python, array, tensor = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(0)
    np.random.seed(0)
    torch.default_generator.manual_seed(0)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(array)
        torch.set_rng_state(tensor)


def _where(config: schema.CustomData) -> str:
    path, name = custom_target(config.target)
    return f"{path.name}:{name}"
