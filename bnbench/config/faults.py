"""Gathers faults of a configuration, each with its place and the setups in which it arises."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TypeAlias

from bnbench.errors import ConfigError, Fault
from bnbench.wording import counted, cut, printable, shortened

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


Problem: TypeAlias = tuple[Place, str, str | None]
"""A place, a message and a hint."""


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
        if place in self.refused or (setup is not None and place in self.everywhere):
            return
        if setup is None:
            self.found[place, message, hint] = set()
            self.everywhere.add(place)
        else:
            self.found.setdefault((place, message, hint), set()).add(setup)

    def error(self, setups: int = 0) -> ConfigError:
        """All faults in file order, the command line last; `setups`: how many there are."""
        result = []
        ordered = sorted(self.found, key=lambda problem: problem[:2])
        for place, message, hint in ordered[:MAX_FAULTS]:
            names = sorted(self.found[place, message, hint])
            everywhere = not names or (setups > 1 and len(names) == setups)
            suffix = "" if everywhere else f" ({named_setups(names)})"
            # Keys are the user's own words: a terminal must not obey them.
            hint = None if hint is None else printable(hint)
            result.append(Fault(str(place), printable(message) + suffix, hint))
        for place, _, _ in ordered[MAX_FAULTS : MAX_FAULTS + 1]:
            more = counted(len(ordered) - MAX_FAULTS, "more fault")
            result.append(Fault(str(place), f"{more} from here"))
        return ConfigError(result)


def named_setups(names: Collection[str]) -> str:
    """`setup gn`, or `setups bn, gn`."""
    return ("setup " if len(names) == 1 else "setups ") + cut([shortened(each) for each in names])
