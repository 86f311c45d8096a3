"""Configuration as layers: each says what it sets and where that is written.

From the bottom: the file, the profile in force, a setup, a point of the axes, `set:` of the file,
`--set` of the command line. Layers merge key by key; the origin of a value is the topmost layer
that sets it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, TypeAlias

from bnbench.config import schema
from bnbench.config.faults import Place
from bnbench.config.schema import BLOCKS, Key
from bnbench.config.yaml import Path, Source

Blocks: TypeAlias = Mapping[str, Mapping[str, Any]]
"""The blocks of a run or of a patch, by name. Never changed in place: blocks are shared."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Blocks that one source sets."""

    source: Source
    blocks: Blocks
    at: Path = ()  # where in the source they are written
    onto: Key = ()  # where in a run this is put

    def sets(self, path: Path) -> bool:
        """Whether there is a value at a path of a run."""
        values: Any = self.blocks
        for step in path:
            index = isinstance(step, int) and isinstance(values, tuple) and step < len(values)
            if not index and not (isinstance(values, dict) and step in values):
                return False
            values = values[step]
        return True

    def place(self, path: Path, *, key: bool) -> Place:
        """Where the value at a path of a run, or its key, is written."""
        return self.source.place((*self.at, *path[len(self.onto) :]), key=key)


def origin(layers: Sequence[Layer], path: Path, *, key: bool = False) -> Place:
    """The place in the topmost layer that sets a path, or else what is around it."""
    while path:
        for layer in reversed(layers):
            if layer.sets(path):
                return layer.place(path, key=key)
        path, key = path[:-1], False
    return layers[0].source.place()


def patch(key: Key, value: Any) -> dict[str, Any]:
    """Blocks that say one thing: `{"optim": {"lr": 0.1}}`."""
    for part in reversed(key):
        value = {part: value}
    return dict(value)


def given(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The blocks among the keys of a file, a setup or a profile; one without content is empty."""
    return {name: dict(values[name] or {}) for name in BLOCKS if name in values}


# --- merging ------------------------------------------------------------------------------


def merged(below: Blocks, above: Blocks) -> dict[str, Mapping[str, Any]]:
    """Blocks with a patch on them. Every key of the patch is kept, to be checked."""
    result = dict(below)
    for name, block in above.items():
        result[name] = merged_block(name, below.get(name, {}), block)
    return result


def merged_block(
    name: str, below: Mapping[str, Any], above: Mapping[str, Any]
) -> Mapping[str, Any]:
    """One block. A change of kind drops the keys that the new kind does not have.

    Of the keys that exclude one another, the budgets, one above replaces all below.
    """
    if not above:
        return below
    family, result = BLOCKS[name], dict(below)
    if family.tag in above:
        kind = family.kind(above)
        if kind != family.kind(below):
            result = {key: value for key, value in result.items() if family.fits(kind, key)}
    if name == "train" and any(above.get(key) is not None for key in schema.BUDGETS):
        result = {key: value for key, value in result.items() if key not in schema.BUDGETS}
    return deeper(result, above)


def deeper(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings inside of a block merge key by key as well; everything else is replaced."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        result[key] = deeper(old, value) if both and old is not None else value
    return result


def fitting(below: Blocks, above: Blocks) -> tuple[dict[str, Mapping[str, Any]], set[Key]]:
    """A patch without the keys that the resulting kind does not have, and those keys.

    For values that concern many runs at once (axes, the command line): a key that only some of
    the runs have is left out of the others.
    """
    result: dict[str, Mapping[str, Any]] = {}
    left_out: set[Key] = set()
    for name, block in above.items():
        family = BLOCKS[name]
        kind = family.kind(block if family.tag in block else below.get(name, {}))
        kept = {key: value for key, value in block.items() if family.fits(kind, key)}
        left_out |= {(name, key) for key in block if key not in kept}
        result[name] = kept
    return result, left_out


# --- paths of files -----------------------------------------------------------------------

# The keys that name files; in `target` a class name follows the path.
PATH_KEYS = {"data": "root", "model": "target", "norm": "target"}


def absolute(data: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """A file's data with absolute paths: what is relative starts at the file's folder."""
    result = dict(data)
    for name, value in data.items():
        if name in PATH_KEYS and isinstance(value, dict):
            key = PATH_KEYS[name]
            result[name] = {each: _moved(key, v, folder) if each == key else v
                            for each, v in value.items()}  # fmt: skip
        elif name in ("setups", "profiles") and isinstance(value, dict):
            result[name] = {each: absolute(part, folder) if isinstance(part, dict) else part
                            for each, part in value.items()}  # fmt: skip
        elif name in ("axes", "set") and isinstance(value, dict):
            result[name] = {each: _dotted(each, v, folder) for each, v in value.items()}
    return result


def _dotted(name: str, value: Any, folder: str) -> Any:
    block, _, key = name.partition(".")
    if not key and isinstance(value, dict):
        return absolute({block: value}, folder)[block]
    if PATH_KEYS.get(block) != key:
        return value
    return (
        tuple(_moved(key, each, folder) for each in value)
        if isinstance(value, tuple)
        else _moved(key, value, folder)
    )


def _moved(key: str, value: Any, folder: str) -> Any:
    if not isinstance(value, str) or (key == "target" and not re.fullmatch(schema.TARGET, value)):
        return value  # the schema says what is wrong with it
    text, colon, name = value.rpartition(":") if key == "target" else (value, "", "")
    path = FilePath(folder).absolute() / os.path.expanduser(text)  # noqa: PTH111
    # Path keeps `..`; two spellings of one place should be one text.
    return os.path.normpath(path) + colon + name
