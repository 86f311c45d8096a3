"""Strict YAML: one document, located nodes, none of YAML 1.1's surprises.

Only `true` and `false` are booleans and only decimal numbers are numbers; whatever looks like
another kind of number stays text, so that its type is refused where it is used. Tags, merge keys,
duplicate keys, keys that are not text, and non-finite numbers are refused. PyYAML's composer is
not used: it recurses, and it neither locates keys nor bounds the expansion of aliases.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from bnbench.config.faults import Faults, shortened
from bnbench.config.nodes import Entry, Mapping, Node, Origin, Scalar, Sequence, Source

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_NODES = (
    20_000  # after the expansion of aliases; a faulty file of that size takes under a second
)
MAX_KEY = 100  # characters; messages and tables show keys
MAX_KEYS = 1_000  # of one mapping
MAX_INTEGER = 2**63 - 1  # what torch and JSON readers can hold

# YAML 1.2's core schema, without its octal and hexadecimal numbers.
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
REAL = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class StopReading(Exception):  # noqa: N818 - it is a signal; the fault is recorded
    """The text cannot be read any further."""


@dataclass(slots=True)
class Open:
    """A mapping or sequence whose end has not come."""

    event: Any
    entries: dict[str, Entry] = field(default_factory=dict)
    items: list[Node] = field(default_factory=list)
    key: tuple[str, Origin] | None = None  # read, its value still to come
    keep: bool = True  # whether that value has a place: a duplicate key's value has none
    nodes: int = 1
    height: int = 1


@dataclass(slots=True)
class Composer:
    """Builds located nodes from events, iteratively."""

    source: Source
    faults: Faults
    stack: list[Open] = field(default_factory=list)
    anchors: dict[str, tuple[Node, int, int]] = field(default_factory=dict)
    root: Node | None = None
    documents: int = 0
    nodes: int = 0

    def at(self, mark: Any) -> Origin:
        if self.source.rank:  # an argument: the value is its own place
            return Origin(self.source)
        return Origin(self.source, mark.line + 1, mark.column + 1)

    def stop(self, origin: Origin, message: str, hint: str | None = None) -> StopReading:
        self.faults.add(origin, message, hint)
        return StopReading()

    def path(self, last: str | None = None) -> str:
        parts = [level.key[0] for level in self.stack if level.key]
        return shortened(".".join([*parts, last] if last is not None else parts))

    def read(self, event: Any) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    raise self.stop(
                        self.at(event.start_mark), "a second document starts here", "remove the ---"
                    )
            case yaml.AliasEvent():
                self.alias(event)
            case yaml.ScalarEvent():
                self.tag(event)
                self.scalar(event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self.tag(event)
                self.refuse_as_key(event)
                self.stack.append(Open(event))
                self.cap(event, 1, 1)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self.close()
            case _:
                pass  # the stream's own start and end say nothing

    def tag(self, event: Any) -> None:
        if event.tag is not None:
            tag = shortened(event.tag.replace("tag:yaml.org,2002:", "!!"))
            self.faults.add(
                self.at(event.start_mark),
                f"the tag {tag} is not allowed",
                "tags have no meaning here: write the value alone",
            )

    def cap(self, event: Any, nodes: int, height: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise self.stop(
                self.at(event.start_mark), f"more than {MAX_NODES:,} values, aliases expanded"
            )
        if len(self.stack) + height - 1 > MAX_DEPTH:
            raise self.stop(self.at(event.start_mark), f"nested more than {MAX_DEPTH} levels deep")

    def wants_key(self) -> bool:
        return (
            bool(self.stack)
            and isinstance(self.stack[-1].event, yaml.MappingStartEvent)
            and self.stack[-1].key is None
        )

    def refuse_as_key(self, event: Any) -> None:
        if self.wants_key():
            raise self.stop(
                self.at(event.start_mark),
                "a key must be text, not a list, a mapping or an alias",
                "text that starts with one of { [ * needs quotes",
            )

    def alias(self, event: Any) -> None:
        self.refuse_as_key(event)
        name = event.anchor
        if name not in self.anchors:
            inside = any(level.event.anchor == name for level in self.stack)
            raise self.stop(
                self.at(event.start_mark),
                f"the alias *{shortened(name)} "
                + ("stands inside its own anchor" if inside else "has no anchor before it"),
            )
        node, nodes, height = self.anchors[name]
        self.cap(event, nodes, height + 1)
        self.place(node, nodes, height)

    def scalar(self, event: Any) -> None:
        origin = self.at(event.start_mark)
        value = resolve(event.value) if not event.style else event.value
        if self.wants_key():
            self.key(event.value, value, origin)
            return
        if not event.style and isinstance(value, str) and NOT_FINITE.fullmatch(value):
            value = float("inf")
        if isinstance(value, float) and value - value != 0:
            value = self.refused(origin, f"{shortened(event.value)} is not a finite number")
        elif isinstance(value, str) and UNPRINTABLE.search(value):
            value = self.refused(origin, "text holds a character that cannot be printed")
        elif isinstance(value, int) and abs(value) > MAX_INTEGER:
            value = self.refused(origin, f"{shortened(event.value)} is too large a number")
        node = Scalar(value, origin)
        self.cap(event, 1, 1)
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, 1, 0)
        self.place(node, 1, 0)

    def refused(self, origin: Origin, message: str) -> str | None:
        path = self.path()
        self.faults.add(origin, f"{path}: {message}" if path else message)
        self.faults.refused.add(origin)
        return None

    def key(self, text: str, value: object, origin: Origin) -> None:
        level = self.stack[-1]
        if len(level.entries) >= MAX_KEYS:
            raise self.stop(origin, f"more than {MAX_KEYS:,} keys in one mapping")
        level.keep = False
        if text == "<<":
            self.faults.add(
                origin, "the merge key << is not allowed", "write the keys out, or use setups"
            )
        elif not isinstance(value, str):
            shown = shortened(text) or "an empty key"
            self.faults.add(
                origin,
                f"a key must be text, not {shown}",
                f'write "{shown}", in quotes' if text else None,
            )
        elif UNPRINTABLE.search(text):
            self.faults.add(origin, "a key holds a character that cannot be printed")
        elif len(text) > MAX_KEY:
            message = f"the key {shortened(text)} is longer than {MAX_KEY} characters"
            self.faults.add(origin, message)
        elif text in level.entries:
            line = level.entries[text].origin.line
            first = "" if line is None else f"; first on line {line}"
            self.faults.add(origin, f"{self.path(text)} is given twice{first}")
        else:
            level.keep = True
        level.key = (text, origin)

    def place(self, node: Node, nodes: int, height: int) -> None:
        if not self.stack:
            self.root = node
            return
        level = self.stack[-1]
        level.nodes += nodes
        level.height = max(level.height, height + 1)
        if level.key is None:
            level.items.append(node)
            return
        if level.keep:
            level.entries[level.key[0]] = Entry(level.key[1], node)
        level.key, level.keep = None, True

    def close(self) -> None:
        level = self.stack.pop()
        origin = self.at(level.event.start_mark)
        node: Node
        if isinstance(level.event, yaml.MappingStartEvent):
            node = Mapping(level.entries, origin)
        else:
            node = Sequence(tuple(level.items), origin)
        if level.event.anchor is not None:
            self.anchors[level.event.anchor] = (node, level.nodes, level.height)
        self.place(node, level.nodes, level.height)


def resolve(text: str) -> str | int | float | bool | None:
    """The value of an unquoted scalar."""
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if INTEGER.fullmatch(text):
        # Beyond 4,300 digits Python refuses; beyond 20 the range check below does.
        return int(text[:40])
    if REAL.fullmatch(text):
        return float(text)
    return text


def parse(text: str, source: Source, faults: Faults) -> Node | None:
    """The tree of a text; None where it is empty or cannot be read. Faults are added."""
    composer = Composer(source, faults)
    bad = UNPRINTABLE.search(text)
    if bad:
        before = text[: bad.start()]
        mark = yaml.Mark("", 0, before.count("\n"), len(before) - before.rfind("\n") - 1, None, 0)
        faults.add(composer.at(mark), "a character that cannot be printed stands here")
        return None
    try:
        for event in yaml.parse(text, Loader=Loader):
            composer.read(event)
    except StopReading:
        return None
    except yaml.MarkedYAMLError as error:
        report_syntax(error, text, composer)
        return None
    except (yaml.YAMLError, ValueError, OverflowError):
        # Escapes outside Unicode; PyYAML's scanner lets `chr` raise.
        faults.add(Origin(source, None if source.rank else 1, 1), "this is not YAML")
        return None
    return composer.root


SENTENCES = (
    ("mapping values are not allowed", 'a ":" stands where no key can end: text with ": " in it '
     "needs quotes, and keys of one block start in one column"),
    ("did not find expected ',' or '}'", "a { is not closed, or a comma is missing"),
    ("did not find expected ',' or ']'", "a [ is not closed, or a comma is missing"),
    ("did not find expected key", "a key was expected: keys of one block start in one column"),
    ("did not find expected '-'", "another list item was expected"),
    ("unexpected end of stream", "a quote is not closed"),
    ("could not find expected ':'", 'a ":" is missing after a key'),
    ("did not find expected node content", "a value was expected"),
    ("block sequence entries are not allowed", "a list item cannot start here"),
)  # fmt: skip


def report_syntax(error: yaml.MarkedYAMLError, text: str, composer: Composer) -> None:
    """Says in our words what libyaml found."""
    mark = error.problem_mark or error.context_mark
    lines = text.splitlines() or [""]
    if mark is not None and mark.line >= len(lines):  # behind the text: say where it ends
        mark = yaml.Mark("", 0, len(lines) - 1, len(lines[-1]), None, 0)
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    problem = str(error.problem or error.context or "")
    sentence = next((ours for theirs, ours in SENTENCES if theirs in problem), None)
    if "\t" in line[: len(line) - len(line.lstrip())]:
        sentence = "a tab cannot indent YAML: use spaces"
    elif line.strip()[:1] in ("%", "@", "`"):
        sentence = f"text cannot start with {line.strip()[0]}: put it in quotes"
    origin = composer.at(mark) if mark is not None else Origin(composer.source, 1, 1)
    composer.faults.add(origin, "this is not YAML: " + (sentence or shortened(problem)))


def read_text(path: str, source: Source, faults: Faults) -> str | None:
    """A file's text, or None and a fault."""
    top = Origin(source)
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a pipe is welcome here too
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        faults.add(top, "there is no such file")
    except IsADirectoryError:
        faults.add(top, "this is a folder, not a file")
    except (OSError, ValueError) as error:
        faults.add(top, f"cannot be read: {getattr(error, 'strerror', None) or error}")
    else:
        if len(data) > MAX_BYTES:
            faults.add(top, f"larger than {MAX_BYTES:,} bytes: this is no experiment")
            return None
        try:
            return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError as error:
            before = data[: error.start]
            faults.add(
                Origin(source, before.count(b"\n") + 1, len(before) - before.rfind(b"\n")),
                f"byte 0x{data[error.start]:02x} is not UTF-8",
                "save the file as UTF-8",
            )
    return None
