"""Located trees: what a configuration says, and where it says it.

Nodes are immutable and shared freely between the merged trees of a grid, so a fault found after
any number of merges still knows its place.
"""

from __future__ import annotations

from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Key: TypeAlias = tuple[str, ...]
"""A dotted key, split: `("optim", "lr")`."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or one argument of the command line."""

    name: str  # as the user typed it
    folder: str  # where its relative paths start
    rank: int = 0  # files are 0; arguments follow in the order in which they were given


@dataclass(frozen=True, slots=True)
class Origin:
    """A place: line and column count from 1; an argument has neither."""

    source: Source
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        name = printable(self.source.name)
        return name if self.line is None else f"{name}:{self.line}:{self.column}"

    @property
    def order(self) -> tuple[int, int, int]:
        """Sorts places: file order, then the command line's order."""
        return (self.source.rank, self.line or 0, self.column or 0)


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value without parts."""

    value: str | int | float | bool | None
    origin: Origin


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    items: tuple[Node, ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Entry:
    """A key with its own place, and its value."""

    origin: Origin
    node: Node


@dataclass(frozen=True, slots=True)
class Mapping:
    """Entries in the order in which they were given; never changed after construction."""

    entries: AbstractMapping[str, Entry]
    origin: Origin


Node: TypeAlias = Scalar | Sequence | Mapping


def plain(node: Node) -> Any:
    """The values alone: dictionaries, tuples and scalars."""
    match node:
        case Scalar(value=value):
            return value
        case Sequence(items=items):
            return tuple(plain(item) for item in items)
        case Mapping(entries=entries):
            return {key: plain(entry.node) for key, entry in entries.items()}


def is_null(node: Node) -> bool:
    """Whether nothing was written, or `null`."""
    return isinstance(node, Scalar) and node.value is None


def descend(node: Node, path: tuple[str | int, ...]) -> Entry | None:
    """The entry at a path of keys and indices, or None where the tree does not reach it."""
    entry = Entry(node.origin, node)
    for part in path:
        here = entry.node
        if isinstance(here, Mapping) and isinstance(part, str) and part in here.entries:
            entry = here.entries[part]
        elif isinstance(here, Sequence) and isinstance(part, int) and part < len(here.items):
            entry = Entry(here.items[part].origin, here.items[part])
        else:
            return None
    return entry


def nested(path: Key, entry: Entry) -> Mapping:
    """A patch that says one thing: `{optim: {lr: 0.1}}`."""
    node: Node = entry.node
    for part in reversed(path):
        node = Mapping({part: Entry(entry.origin, node)}, entry.origin)
    assert isinstance(node, Mapping)
    return node


def printable(text: str) -> str:
    """The text with what a terminal would obey written as escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
