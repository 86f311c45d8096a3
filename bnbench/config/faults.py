"""Gathers faults, and says what was found and which name was probably meant."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from bnbench.config.nodes import Mapping, Node, Origin, Scalar, Sequence, printable
from bnbench.errors import ConfigError, Fault

FOUND_LENGTH = 60  # characters of a found value that are shown
PATH_LENGTH = 200  # of a path, which is of no use when it is cut too early
MAX_FAULTS = 100  # that are listed; behind them stands how many more there are


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault before its place is put into words."""

    origin: Origin
    message: str
    hint: str | None = None


@dataclass(slots=True)
class Faults:
    """Every distinct fault once, with the setups in which it arises."""

    found: dict[Problem, set[str]] = field(default_factory=dict)
    everywhere: set[Origin] = field(default_factory=set)  # faulty without any setup
    refused: set[Origin] = field(default_factory=set)  # values whose fault says it all

    def add(self, origin: Origin, message: str, hint: str | None = None) -> None:
        """Records a fault that belongs to no setup."""
        self.found[Problem(origin, message, hint)] = set()

    def extend(self, problems: Iterable[Problem], setup: str | None = None) -> None:
        """Records faults; what is already known to be wrong without any setup is left at that."""
        for problem in problems:
            if problem.origin in self.refused:
                continue
            if setup is None:
                self.found[problem] = set()
                self.everywhere.add(problem.origin)
            elif problem.origin in self.everywhere:
                continue
            elif problem not in self.found:
                self.found[problem] = {setup}
            elif self.found[problem]:
                self.found[problem].add(setup)

    def extend_all(self, other: Faults) -> None:
        """Records another gathering's faults."""
        for problem, setups in other.found.items():
            if not setups:
                self.extend([problem])
            for setup in setups:
                self.extend([problem], setup)

    def listed(self, setups: int = 0) -> list[Fault]:
        """In file order, the command line last; `setups` is how many the experiment has."""
        result = []
        problems = sorted(self.found, key=lambda each: (each.origin.order, each.message))
        for problem in problems[:MAX_FAULTS]:
            names = sorted(self.found[problem])
            everywhere = not names or (setups > 1 and len(names) == setups)
            suffix = "" if everywhere else f" ({named_setups(names)})"
            # Keys are the user's own words as well: a terminal must not obey them.
            hint = None if problem.hint is None else printable(problem.hint)
            result.append(Fault(str(problem.origin), printable(problem.message) + suffix, hint))
        more = problems[MAX_FAULTS:]
        if more:
            result.append(
                Fault(str(more[0].origin), f"{counted(len(more), 'more fault')} from here")
            )
        return result

    def check(self, setups: int = 0) -> None:
        """Raises all of them as one ConfigError, if there are any."""
        if self.found:
            raise ConfigError(self.listed(setups))


def named_setups(names: Iterable[str]) -> str:
    """`setup gn`, or `setups bn, gn`; long lists are cut."""
    listed = [shortened(name) for name in names]
    rest = f" and {len(listed) - 6} more" if len(listed) > 7 else ""
    shown = ", ".join(listed[:6] if rest else listed)
    return f"{'setup' if len(listed) == 1 else 'setups'} {shown}{rest}"


def shortened(text: str, length: int = FOUND_LENGTH) -> str:
    """Printable, and no longer than a line can bear."""
    text = printable(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def found(node: Node) -> str:
    """A value as it would be written: `"fast"`, `0`, `true`, `a list`."""
    match node:
        case Scalar(value=None):
            return "null"
        case Scalar(value=bool() as value):
            return "true" if value else "false"
        case Scalar(value=str() as value):
            return f'"{shortened(value)}"'
        case Scalar(value=value):
            return shortened(str(value))
        case Sequence(items=items):
            return "an empty list" if not items else "a list"
        case Mapping():
            return "a mapping"


def listing(words: Iterable[str], last: str = "or") -> str:
    """`a, b or c`."""
    items = list(words)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}"


def counted(number: int, noun: str) -> str:
    """`1 run`, `1,000 runs`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def nearest(word: str, candidates: Iterable[str], cutoff: float = 0.66) -> str | None:
    """The candidate that a misspelled word probably meant."""
    return _nearest(word[:80], tuple(candidates), cutoff)


# A fault of the base is found again in every setup.
@functools.lru_cache(maxsize=10_000)
def _nearest(word: str, candidates: tuple[str, ...], cutoff: float) -> str | None:
    by_lower = {candidate.lower().replace("-", "_"): candidate for candidate in candidates}
    close = difflib.get_close_matches(word.lower().replace("-", "_"), by_lower, n=1, cutoff=cutoff)
    return by_lower[close[0]] if close else None


def meant_value(node: Node, allowed: Iterable[str] = ()) -> str | None:
    """What to write in place of text that looks like a number or a boolean."""
    if not isinstance(node, Scalar) or not isinstance(node.value, str):
        return None
    text = node.value.strip()
    if "number" in allowed:
        number = re.fullmatch(r"([-+]?)0*([0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?)", text)
        if number:
            meant = (number[1].replace("+", "") + number[2]).replace("_", "")
            return f"write {meant}" + (", without quotes" if meant == text else "")
        if re.fullmatch(r"0[xob][0-9a-fA-F]{1,15}", text):
            try:
                return f"write {int(text, 0)}"
            except ValueError:
                return None
    if "boolean" in allowed:
        truth = {"yes": "true", "on": "true", "true": "true"}
        truth |= {"no": "false", "off": "false", "false": "false"}
        if text.lower() in truth:
            meant = truth[text.lower()]
            return f"write {meant}" + (", without quotes" if meant == text else "")
    return None
