"""Faults of a configuration: where they are, and words for what was found and what was meant."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bnbench.errors import ConfigError, Fault

FOUND_LENGTH = 60  # characters of a found value that are shown
PATH_LENGTH = 200  # of a path, which is of no use when it is cut too early
MAX_FAULTS = 100  # that are listed; the rest is counted


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a fault is. Lines and columns count from 1; 0: the whole file or argument."""

    rank: int  # files are 0; arguments follow in the order in which they were given
    line: int
    column: int
    name: str  # the file as typed, or an argument such as `--set optim.lr`

    def __str__(self) -> str:
        name = printable(self.name)
        return f"{name}:{self.line}:{self.column}" if self.line else name


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault before its place is put into words."""

    place: Place
    message: str
    hint: str | None = None


@dataclass(slots=True)
class Faults:
    """Every distinct fault once, with the setups in which it arises."""

    found: dict[Problem, set[str]] = field(default_factory=dict)
    everywhere: set[Place] = field(default_factory=set)  # faulty without any setup
    refused: set[Place] = field(default_factory=set)  # values about which one fault says it all

    def add(
        self, place: Place, message: str, hint: str | None = None, setup: str | None = None
    ) -> None:
        """Records a fault. Where a place is faulty without any setup, no setup repeats it."""
        if place in self.refused:
            return
        problem = Problem(place, message, hint)
        if setup is None:
            self.found[problem] = set()
            self.everywhere.add(place)
        elif place not in self.everywhere:
            setups = self.found.setdefault(problem, {setup})
            if setups:
                setups.add(setup)

    def error(self, setups: int = 0) -> ConfigError:
        """All faults in file order, the command line last; `setups`: how many there are."""
        result = []
        problems = sorted(self.found, key=lambda each: (each.place, each.message))
        for problem in problems[:MAX_FAULTS]:
            names = sorted(self.found[problem])
            everywhere = not names or (setups > 1 and len(names) == setups)
            suffix = "" if everywhere else f" ({named_setups(names)})"
            # Keys are the user's own words: a terminal must not obey them.
            hint = None if problem.hint is None else printable(problem.hint)
            result.append(Fault(str(problem.place), printable(problem.message) + suffix, hint))
        more = problems[MAX_FAULTS:]
        if more:
            result.append(
                Fault(str(more[0].place), f"{counted(len(more), 'more fault')} from here")
            )
        return ConfigError(result)

    def check(self, setups: int = 0) -> None:
        """Raises ConfigError if there are faults."""
        if self.found:
            raise self.error(setups)


# --- words --------------------------------------------------------------------------------


def printable(text: str) -> str:
    """The text with what a terminal would obey written as escapes."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def shortened(text: str, length: int = FOUND_LENGTH) -> str:
    """Printable, and no longer than `length` characters."""
    text = printable(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def found(value: Any) -> str:
    """A value as it would be written: `"fast"`, `0`, `true`, `a list`."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
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


def counted(number: int, noun: str) -> str:
    """`1 run`, `1,000 runs`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def cut(words: list[str]) -> str:
    """`a, b, c`; of more than seven the first six and how many more there are."""
    return ", ".join(words[:6] if len(words) > 7 else words) + (
        f" and {len(words) - 6} more" if len(words) > 7 else ""
    )


def named_setups(names: Iterable[str]) -> str:
    """`setup gn`, or `setups bn, gn`."""
    listed = [shortened(name) for name in names]
    return f"{'setup' if len(listed) == 1 else 'setups'} {cut(listed)}"


def nearest(word: Any, candidates: Iterable[str], cutoff: float = 0.66) -> str | None:
    """The candidate that a misspelled word probably meant."""
    return _nearest(word[:80], tuple(candidates), cutoff) if isinstance(word, str) else None


def did_you_mean(name: str | None, prefix: str = "") -> str | None:
    """The hint that names a candidate, if there is one."""
    return f"did you mean {prefix}{name}?" if name else None


# A fault of the base is found again in every setup.
@functools.lru_cache(maxsize=10_000)
def _nearest(word: str, candidates: tuple[str, ...], cutoff: float) -> str | None:
    by_lower = {candidate.lower().replace("-", "_"): candidate for candidate in candidates}
    close = difflib.get_close_matches(word.lower().replace("-", "_"), by_lower, n=1, cutoff=cutoff)
    return by_lower[close[0]] if close else None


def meant_value(value: Any, types: Iterable[str]) -> str | None:
    """What to write instead of text that looks like a `number` or a `boolean`."""
    if not isinstance(value, str):
        return None
    text, meant = value.strip(), None
    if "number" in types:
        number = re.fullmatch(r"([-+]?)0*([0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?)", text)
        if number:
            meant = (number[1].replace("+", "") + number[2]).replace("_", "")
        elif re.fullmatch(r"0(x[0-9a-fA-F]{1,15}|o[0-7]{1,15}|b[01]{1,15})", text):
            meant = str(int(text, 0))
    if "boolean" in types and meant is None:
        truth = dict.fromkeys(("yes", "on", "true"), "true")
        truth |= dict.fromkeys(("no", "off", "false"), "false")
        meant = truth.get(text.lower())
    if meant is None:
        return None
    return f"write {meant}" + (", without quotes" if meant == text else "")
