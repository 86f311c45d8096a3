"""Configuration as layers: each says what it sets and where that is written.

From the bottom: the file, the profile in force, a setup, a point of the axes, `set:` of the file,
`--set` of the command line. Layers merge key by key; the origin of a value is the topmost layer
that sets it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, TypeAlias

from bnbench.config import schema
from bnbench.config.faults import Place
from bnbench.config.schema import BLOCKS, Key
from bnbench.config.yaml import MISSING, Path, Source, at

Block: TypeAlias = Mapping[str, Any]
Blocks: TypeAlias = Mapping[str, Block]
"""The blocks of a run or of a patch, by name. Never changed in place: blocks are shared."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Blocks that one source sets."""

    source: Source
    blocks: Blocks
    onto: Key = ()  # where in a run this is put


def origin(layers: Sequence[Layer], path: Path, *, key: bool = False) -> Place:
    """The place of a value, or of its key, in the topmost layer that sets it, or else of what is
    around it."""
    while path:
        for layer in reversed(layers):
            if at(layer.blocks, path) is not MISSING:
                return layer.source.place(path[len(layer.onto) :], key=key)
        path, key = path[:-1], False
    return layers[0].source.place()


def patch(key: Key, value: Any) -> dict[str, Any]:
    """Blocks that say one thing: `{"optim": {"lr": 0.1}}`."""
    for part in reversed(key):
        value = {part: value}
    return dict(value)


def given(values: Block) -> dict[str, dict[str, Any]]:
    """The blocks among the keys of a file, a setup or a profile; one without content is empty."""
    return {name: dict(values[name] or {}) for name in BLOCKS if name in values}


def merged(below: Blocks, above: Blocks) -> dict[str, Block]:
    """Blocks with a patch on them. Every key of the patch is kept, to be checked."""
    return {**below} | {name: on(name, below.get(name, {}), above[name]) for name in above}


def on(name: str, below: Block, above: Block) -> Block:
    """One block on another. A change of kind drops the keys that the new kind does not have.

    Of the keys that exclude one another, the budgets, one above replaces all below.
    """
    if not above:
        return below
    family, result = BLOCKS[name], below
    if family.tag in above and family.kind(above) != family.kind(below):
        result = {key: below[key] for key in below if family.fits(family.kind(above), key)}
    if name == "train" and any(above.get(key) is not None for key in schema.BUDGETS):
        result = {key: result[key] for key in result if key not in schema.BUDGETS}
    return deeper(result, above)


def deeper(below: Block, above: Block) -> dict[str, Any]:
    """Mappings inside of a block merge key by key as well; everything else is replaced."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        result[key] = deeper(old or {}, value) if both else value
    return result


def united(patches: Iterable[Layer]) -> Blocks:
    """One patch of many; of two values for the same key the later wins."""
    result: dict[str, Any] = {}
    for layer in patches:
        result = deeper(result, layer.blocks)
    return result


def fitting(below: Blocks, above: Blocks) -> tuple[dict[str, Block], set[Key]]:
    """A patch without the keys that the resulting kind does not have, and those keys.

    For values that concern many runs at once (axes, the command line): a key that only some of
    the runs have is left out of the others.
    """
    result: dict[str, Block] = {}
    left_out: set[Key] = set()
    for name, block in above.items():
        family = BLOCKS[name]
        kind = family.kind(block if family.tag in block else below.get(name, {}))
        result[name] = {key: block[key] for key in block if family.fits(kind, key)}
        left_out |= {(name, key) for key in block if key not in result[name]}
    return result, left_out


# The keys that name files; in `target` a name follows the path.
PATH_KEYS = {
    *(("data", "root"), ("data", "target"), ("norm", "target")),
    *(("model", "pretrained"), ("model", "target"), ("data", "files")),
}


def absolute(data: Any, folder: str, key: Key = (), *, stored: bool = False) -> Any:
    """A file's data with absolute paths: what is relative starts at the file's folder. `stored`: by
    us, next to runs, with absolute paths, so that what is not there may have been moved along."""
    if re.search(r"\b(data|norm|model)\.options\b", ".".join(key)):
        return data  # of custom code: none of our business
    if key[-2:] in PATH_KEYS:
        if isinstance(data, tuple):
            return tuple(absolute(each, folder, key, stored=stored) for each in data)
        code = key[-1] in ("target", "pretrained")
        return _moved(data, folder, target=key[-1] == "target", stored=stored and code)
    if not isinstance(data, dict):
        return data
    return {
        each: absolute(data[each], folder, (*key, *each.split(".")), stored=stored) for each in data
    }


def _moved(value: Any, folder: str, *, target: bool, stored: bool) -> Any:
    if not isinstance(value, str) or (target and not re.fullmatch(schema.TARGET, value)):
        return value  # the schema says what is wrong with it
    text, colon, name = value.rpartition(":") if target else (value, "", "")
    path = FilePath(folder).absolute() / os.path.expanduser(text)  # noqa: PTH111
    if stored and FilePath(text).is_absolute():
        path = _found(path, FilePath(folder).absolute())
    # Path keeps `..`; two spellings of one place should be one text.
    return os.path.normpath(path) + colon + name


def _found(path: FilePath, folder: FilePath) -> FilePath:
    """Where a file is now that a stored experiment names: as much of its path as is there from a
    folder above. Content, not place, is part of what a run is: another file makes it another."""
    with suppress(OSError):
        ends = [FilePath(*path.parts[n:]) for n in range(1, len(path.parts))]
        there = (above / end for above in folder.parents for end in ends)
        return path if path.exists() else next((each for each in there if each.is_file()), path)
    return path
