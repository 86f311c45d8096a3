"""Words for error texts and tables: counts, lists, values, and the name that was probably meant."""

from __future__ import annotations

import difflib
import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

FOUND_LENGTH = 60  # characters of a found value that are shown
SLUG_LENGTH = 64  # of a folder's name
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
PATH_LENGTH = 200  # of a path, which is of no use when it is cut too early


def printable(text: str, keep: str = "") -> str:
    """The text with what a terminal would obey written as escapes; all of `keep` stays."""
    if text.isprintable():
        return text
    written = {
        ord(char): char.encode("unicode_escape").decode("ascii")
        for char in set(text).difference(keep)
        if not char.isprintable()
    }
    return text.translate(written)


def shortened(text: str, length: int = FOUND_LENGTH) -> str:
    """Printable, and no longer than `length` characters."""
    text = printable(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def found(value: Any) -> str:
    """A value as it would be written: `"fast"`, `0`, `true`, `a list`."""
    match value:
        case None | bool():
            return in_words(value)
        case str():
            return f'"{shortened(value)}"'
        case dict():
            return "a mapping"
        case tuple():
            return "a list" if value else "an empty list"
        case _:
            return shortened(str(value))


def listing(words: Iterable[str], last: str = "or") -> str:
    """`a, b or c`."""
    items = list(words)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}"


def cut(words: list[str], between: str = ", ", of: str = "") -> str:
    """`a, b, c`; of more than seven the first six and how many more (`of` what) there are."""
    if len(words) <= 7:
        return between.join(words)
    return f"{between.join(words[:6])} and {len(words) - 6:,} more {of}".rstrip()


KEY_WORDS = {
    "optim.lr": "learning rate",
    "norm.batch_size": "normalization batch size",
    "norm.momentum": "momentum of running statistics",
    "optim.momentum": "momentum of the optimizer",
    "data.train_size": "training images",
    "norm.kind": "normalization",
    "model.kind": "model",
    "optim.kind": "optimizer",
}
"""Of keys whose last part says too little."""


def key_words(key: str) -> str:
    """A key of the configuration in words: `learning rate`, `batch size`."""
    return KEY_WORDS.get(key) or key.rpartition(".")[2].replace("_", " ")


def point_words(point: Mapping[str, Any]) -> str:
    """Values by key in words: `batch size 32, learning rate 0.1`; without keys that have none."""
    return ", ".join(
        f"{key_words(key)} {in_words(value)}" for key, value in point.items() if value is not None
    )


def sizes(shape: Iterable[int]) -> str:
    """`8×1×28×28`."""
    return "×".join(map(str, shape)) or "a single number"


def counted(number: int, noun: str) -> str:
    """`1 run`, `1,000 runs`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def nearest(word: Any, candidates: Iterable[str], cutoff: float = 0.66) -> str | None:
    """The candidate that a misspelled word probably meant."""
    return _nearest(word[:80], tuple(candidates), cutoff) if isinstance(word, str) else None


# A fault of the base is found again in every setup.
@functools.lru_cache(maxsize=10_000)
def _nearest(word: str, candidates: tuple[str, ...], cutoff: float) -> str | None:
    by_lower = {candidate.lower().replace("-", "_"): candidate for candidate in candidates}
    close = difflib.get_close_matches(word.lower().replace("-", "_"), by_lower, n=1, cutoff=cutoff)
    return by_lower[close[0]] if close else None


def did_you_mean(name: str | None, prefix: str = "") -> str | None:
    """The hint that names a candidate, if there is one."""
    return f"did you mean {prefix}{name}?" if name else None


def told_apart(rows: Mapping[str, tuple[Any, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """What tells each row from all others of its name: as few of its columns as possible, none
    where no other has the name.

    `rows`: name and columns of each, by a key of its own. A column that a row lacks is None. Where
    no columns tell rows apart, their keys do, as the column `content`: that of a file counts too.
    """
    groups: dict[Any, dict[str, Mapping[str, Any]]] = {}
    for key, (name, row) in rows.items():
        groups.setdefault(name, {})[key] = row
    found: dict[str, dict[str, Any]] = {}
    for group in groups.values():
        columns = list(dict.fromkeys(column for row in group.values() for column in row))
        chosen: list[str] = []
        while _kinds(group, chosen) < _kinds(group, columns):
            chosen.append(max(columns, key=lambda each: _kinds(group, [*chosen, each])))
        for each in chosen[:-1]:  # a later one may have made it superfluous
            fewer = [other for other in chosen if other != each]
            chosen = fewer if _kinds(group, fewer) == _kinds(group, chosen) else chosen
        alike = _kinds(group, chosen) < len(group)
        for key, row in group.items():
            found[key] = {each: row.get(each) for each in chosen}
            found[key] |= {"content": key} if alike else {}
    return found


def _kinds(group: Mapping[str, Mapping[str, Any]], columns: Sequence[str]) -> int:
    """How many rows can be told apart by these columns."""
    return len({repr([row.get(each) for each in columns]) for row in group.values()})


def column_words(columns: Mapping[str, Any]) -> list[str]:
    """`optim.lr 0.1`, `no norm.groups`."""
    return [
        f"no {name}" if value is None else f"{name} {in_words(value)}"
        for name, value in columns.items()
    ]


def slug(text: str, length: int = SLUG_LENGTH) -> str:
    """The text as a file name of a-z 0-9 . _ -, empty where nothing of it can stay."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    words = re.sub(r"[^a-z0-9._-]+", "-", ascii_text.lower())
    return words.strip("._-")[:length].rstrip("._-")


def flat(values: Mapping[str, Any], between: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`{"test": {"accuracy": 0.8}}` as `test/accuracy` and 0.8."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, between, f"{prefix}{key}{between}")
        else:
            yield f"{prefix}{key}", value


def in_words(value: Any) -> str:
    """A value as tables and folders show it: numbers short, lists joined by dashes."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.6g}".replace("e+", "e")
        case tuple():
            return "-".join(in_words(item) for item in value)
        case _:
            return str(value)
