"""Patches: key by key, with respect for what a change of kind leaves without meaning."""

from __future__ import annotations

from collections.abc import Mapping as AbstractMapping
from typing import TypeAlias

from bnbench.config import schema
from bnbench.config.keys import BLOCKS
from bnbench.config.nodes import Entry, Key, Mapping, is_null

Tree: TypeAlias = AbstractMapping[str, Mapping]
"""The blocks of a run or of a patch, by name."""


def merged(base: Tree, patch: Tree) -> dict[str, Mapping]:
    """The base with a patch on it; every key of the patch is kept, to be checked."""
    result = dict(base)
    for name, block in patch.items():
        result[name] = merged_block(name, base[name], block) if name in base else block
    return result


def merged_block(name: str, base: Mapping, patch: Mapping) -> Mapping:
    """One block; where the patch changes its kind, keys without meaning there are dropped."""
    block = BLOCKS[name]
    if not patch.entries:
        return base
    entries = dict(base.entries)
    if block.tag in patch.entries:
        kind = block.kind(patch)
        if kind != block.kind(base):
            # A key that no kind has is a misspelling: it stays, to be reported.
            entries = {
                key: entry
                for key, entry in entries.items()
                if block.has(kind, key) or not block.kinds_with(key)
            }
    if name == "train" and any(
        key in patch.entries and not is_null(patch.entries[key].node) for key in schema.BUDGETS
    ):
        entries = {key: entry for key, entry in entries.items() if key not in schema.BUDGETS}
    for key, entry in patch.entries.items():
        old = entries.get(key)
        entries[key] = entry if old is None else deeper(old, entry)
    return Mapping(entries, base.origin)


def deeper(old: Entry, new: Entry) -> Entry:
    """Mappings inside a block merge key by key as well; everything else is replaced."""
    if not (isinstance(old.node, Mapping) and isinstance(new.node, Mapping)):
        return new
    entries = dict(old.node.entries)
    for key, entry in new.node.entries.items():
        entries[key] = deeper(entries[key], entry) if key in entries else entry
    return Entry(new.origin, Mapping(entries, new.node.origin))


def fitting(base: Tree, patch: Tree) -> tuple[dict[str, Mapping], set[Key]]:
    """The patch without the keys that the resulting kind does not have, and those keys.

    For values that concern many runs at once (axes, the command line): a key that only some of
    the runs have is left out of the others. Misspellings stay, to be reported.
    """
    result: dict[str, Mapping] = {}
    left_out: set[Key] = set()
    for name, block in patch.items():
        kind = BLOCKS[name].kind(
            block if BLOCKS[name].tag in block.entries or name not in base else base[name]
        )
        entries = {}
        for key, entry in block.entries.items():
            if BLOCKS[name].has(kind, key) or not BLOCKS[name].kinds_with(key):
                entries[key] = entry
            else:
                left_out.add((name, key))
        result[name] = Mapping(entries, block.origin)
    return result, left_out
