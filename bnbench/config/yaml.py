"""Strict YAML: one document → plain data and the place of each key and value.

Only `true` and `false` are booleans and only decimal numbers are numbers. What looks like another
kind of number stays text, so that its type is refused where it is used. Tags, merge keys,
duplicate keys, keys that are not text, and non-finite numbers are refused.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

import yaml

from bnbench import regular
from bnbench.config.faults import Faults, Place
from bnbench.errors import StorageError
from bnbench.wording import shortened

OF_THE_DISK = (errno.EIO, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EMFILE, errno.ENFILE)
"""Errors of reading that say nothing about what is in a file."""

# The limits on hostile files.
MAX_BYTES = 1_000_000
PIPE_SECONDS = 5.0  # that a pipe may be silent: `bnbench sweep <(…)` is welcome
MAX_DEPTH = 40  # levels
MAX_NODES = 20_000  # values, aliases expanded: faults of so many are found within a second
MAX_KEY = 100  # characters; messages and tables show keys
MAX_KEYS = 1_000  # of one mapping
MAX_INTEGER = 2**63 - 1  # what torch and JSON readers can hold

# YAML 1.2's core schema, without its octal and hexadecimal numbers.
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
REAL = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Path: TypeAlias = tuple[str | int, ...]
"""Keys and indices that lead to a value."""


MISSING = object()


def at(values: Any, path: Path) -> Any:
    """The value at a path in plain data; MISSING where there is none."""
    for step in path:
        index = isinstance(step, int) and isinstance(values, tuple) and step < len(values)
        if not index and not (isinstance(values, dict) and step in values):
            return MISSING
        values = values[step]
    return values


class Mark(NamedTuple):
    """Line and column, from 1, of a value's key and of the value. List items have no key."""

    key: tuple[int, int]
    value: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Source:
    """A file, one argument of the command line, or a part of it. An argument is its own place."""

    name: str  # as the user typed it
    folder: str = ""  # where its relative paths start
    rank: int = 0  # files are 0; arguments follow in the order in which they were given
    data: Any = None  # dictionaries, tuples and scalars
    text: str = ""  # verbatim, but for the ends of its lines
    marks: dict[Path, Mark] = field(default_factory=dict)
    root: Path = ()  # where in the text the part is

    def part(self, path: Path, data: Any = None) -> Source:
        """What says `data` at a path."""
        return replace(self, root=(*self.root, *path), data=data)

    def at(self, line: int, column: int) -> Place:
        """A place in the text."""
        return Place(self.rank, *((0, 0) if self.rank else (line, column)), self.name)

    def place(self, path: Path = (), *, key: bool = False) -> Place:
        """The place of a value or of its key; of the nearest value around it if it is absent."""
        path = (*self.root, *path)
        while path and path not in self.marks:
            path, key = path[:-1], False
        mark = self.marks.get(path, Mark((1, 1), (1, 1)))
        return self.at(*(mark.key if key else mark.value))


class Stop(Exception):  # noqa: N818 - a signal: the fault is recorded
    """The text cannot be read any further."""


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Composes nodes whose tag is empty unless one is written."""

    def resolve(self, *_: object) -> str:
        """Kinds of scalars are told apart here, not by PyYAML."""
        return ""


TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"
SENTENCES = {
    "exceeded maximum nesting depth": TOO_DEEP,  # 1,000, in libyaml
    "found another document": "a second document starts here: remove the ---",
    "found undefined alias": "this alias has no anchor before it",
    "mapping values are not allowed": 'a ":" is where no key can end: text with ": " in it '
    "needs quotes, and keys of one block start in one column",
    "did not find expected ',' or '}'": "a { is not closed, or a comma is missing",
    "did not find expected ',' or ']'": "a [ is not closed, or a comma is missing",
    "did not find expected key": "a key was expected: keys of one block start in one column",
    "unexpected end of stream": "a quote is not closed",
    "could not find expected ':'": 'a ":" is missing after a key',
}


def parse(text: str, source: Source, faults: Faults) -> Source:
    """The source with the data and marks of its text; data None if it is empty or unreadable."""
    if bad := UNPRINTABLE.search(text):
        halved = "\ud800" <= bad[0] <= "\udfff"
        why = "a byte here is not UTF-8" if halved else "a character here cannot be printed"
        faults.add(_end(source, text[: bad.start()]), why)
        return source
    reader = Reader(source, faults)
    try:
        root = yaml.compose(text, Loader=Loader)
        data = None if root is None else reader.value(root, ())
        return replace(source, data=data, marks=reader.marks)
    except yaml.MarkedYAMLError as error:
        faults.add(*_syntax(error, text, source))
    except RecursionError:  # without libyaml
        faults.add(source.at(1, 1), TOO_DEEP)
    except (yaml.YAMLError, ValueError, OverflowError):
        # Escapes outside Unicode: PyYAML's scanner lets `chr` raise.
        faults.add(source.at(1, 1), "this is not YAML")
    except Stop:
        pass
    return source


def _syntax(error: yaml.MarkedYAMLError, text: str, source: Source) -> tuple[Place, str]:
    """The place of what libyaml found, and a sentence about it."""
    mark, lines = error.problem_mark or error.context_mark, text.split("\n")
    place, start = _end(source, text.rstrip("\n")), ""
    if mark is not None and mark.line < len(lines):
        place, start = source.at(mark.line + 1, mark.column + 1), lines[mark.line].lstrip(" ")[:1]
    problem = shortened(str(error.problem or error.context))
    sentence = next((SENTENCES[each] for each in SENTENCES if each in problem), problem)
    if start == "\t":
        sentence = "a tab cannot indent YAML: use spaces"
    elif sentence == problem and start in ("%", "@", "`"):
        sentence = f"text cannot start with {start}: put it in quotes"
    sound = sentence in [*SENTENCES.values()][:3]
    return place, sentence if sound else f"this is not YAML: {sentence}"


def _end(source: Source, text: str) -> Place:
    return source.at(text.count("\n") + 1, len(text) - text.rfind("\n"))


@dataclass(slots=True)
class Reader:
    """Takes the values out of composed nodes."""

    source: Source
    faults: Faults
    marks: dict[Path, Mark] = field(default_factory=dict)
    open: list[Any] = field(default_factory=list)  # the nodes around the one that is read
    nodes: int = 0

    def value(self, node: Any, path: Path, key: Any = None) -> Any:
        """The value of a node; raises Stop if the text cannot be read any further."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.stop(node, f"more than {MAX_NODES:,} values, aliases expanded")
        if node in self.open:
            raise self.stop(node, "this contains itself: an alias is inside its own anchor")
        if node.tag:
            tag = shortened(node.tag.replace("tag:yaml.org,2002:", "!!"))
            hint = "tags have no meaning here: write the value alone"
            self.add(node, f"the tag {tag} is not allowed", hint)
        self.marks[path] = Mark(_start(node if key is None else key), _start(node))
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        if len(self.open) >= MAX_DEPTH:
            raise self.stop(node, TOO_DEEP)
        self.open.append(node)
        result: Any
        if isinstance(node, yaml.SequenceNode):
            result = tuple(self.value(item, (*path, i)) for i, item in enumerate(node.value))
        else:
            result = self.mapping(node, path)
        self.open.pop()
        return result

    def add(self, node: Any, message: str, hint: str | None = None) -> None:
        self.faults.add(self.source.at(*_start(node)), message, hint)

    def stop(self, node: Any, message: str, hint: str | None = None) -> Stop:
        # An alias is composed as its anchor's node, which is further up in the text.
        self.add(max([*self.open, node], key=_start), message, hint)
        return Stop()

    def mapping(self, node: Any, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for number, (key, value) in enumerate(node.value):
            if not isinstance(key, yaml.ScalarNode):
                hint = "text that starts with one of { [ needs quotes"
                raise self.stop(key, "a key must be text, not a list or a mapping", hint)
            if number >= MAX_KEYS:
                raise self.stop(key, f"more than {MAX_KEYS:,} keys in one mapping")
            wrong = self.wrong_key(key, result, path)
            if wrong:
                self.add(key, *wrong)
                self.value(value, (*path, number), key)
            else:
                result[key.value] = self.value(value, (*path, key.value), key)
        return result

    def wrong_key(self, key: Any, given: dict[str, Any], path: Path) -> tuple[str, ...]:
        """What is wrong with a key, and a hint; () if nothing is."""
        text = key.value
        if text == "<<":
            return "the merge key << is not allowed", "write the keys out, or use setups"
        if not key.style and not isinstance(resolved(text), str):
            hint = (f'write "{shortened(text)}", in quotes',) if text else ()
            return (f"a key must be text, not {shortened(text) or 'an empty key'}", *hint)
        if UNPRINTABLE.search(text):
            return ("a key holds a character that cannot be printed",)
        if len(text) > MAX_KEY:
            return (f"the key {shortened(text)} is longer than {MAX_KEY} characters",)
        if text in given:
            line, _ = self.marks[*path, text].key
            first = "" if self.source.rank else f"; first on line {line}"
            return (f"{_dotted((*path, text))} is given twice{first}",)
        return ()

    def scalar(self, node: Any, path: Path) -> str | int | float | bool | None:
        value = node.value if node.style else resolved(node.value)
        shown, wrong = shortened(node.value), None
        if isinstance(value, float) and value - value != 0:
            wrong = f"{shown} is not a finite number"
        elif isinstance(value, int) and abs(value) > MAX_INTEGER:
            wrong = f"{shown} is too large a number"
        elif isinstance(value, str) and UNPRINTABLE.search(value):
            wrong = "text holds a character that cannot be printed"
        if wrong is None:
            return value
        self.add(node, f"{_dotted(path)}: {wrong}".removeprefix(": "))
        self.faults.refused.add(self.source.at(*_start(node)))
        return None


def _start(node: Any) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _dotted(path: Path) -> str:
    return shortened(".".join(part for part in path if isinstance(part, str)))


def resolved(text: str) -> str | int | float | bool | None:
    """The value of an unquoted scalar."""
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if INTEGER.fullmatch(text):
        return int(text[:40])  # more digits are too large a number anyway
    if NOT_FINITE.fullmatch(text):
        return float("inf")
    return float(text) if REAL.fullmatch(text) else text


def read(path: str, folder: str, faults: Faults) -> Source:
    """A file, and what it says; data None and a fault if it is unreadable."""
    source, place = Source(path, folder), Place(0, 0, 0, path)
    try:
        data = regular.read_piped(path, MAX_BYTES, PIPE_SECONDS)
        text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        return parse(text, replace(source, text=text), faults)
    except FileNotFoundError:
        faults.add(place, "there is no such file")
    except IsADirectoryError:
        faults.add(place, "this is a folder, not a file")
    except UnicodeDecodeError as error:
        place = _end(source, data[: error.start].decode("latin-1"))
        message = f"byte 0x{data[error.start]:02x} is not UTF-8"
        faults.add(place, message, "save the file as UTF-8")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        if getattr(error, "errno", None) in OF_THE_DISK:
            do = "look at its permissions and at the disk, and run the same command again"
            raise StorageError(f"{path}: {why}", do=do) from error
        faults.add(place, f"cannot be read: {why}")
    return source
