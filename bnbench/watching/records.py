"""Where the facts of a watched run go: the user's logger, `metrics.jsonl`, and a row for
`bnbench verdict`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from math import isfinite
from pathlib import Path
from typing import Any, TypeAlias

from bnbench.errors import UsageError
from bnbench.events import Evaluation, Fact, Found, Gap, Moment, Reading
from bnbench.probes import NETWORK
from bnbench.sinks.scalars import tagged
from bnbench.store import files

RESULTS = "results.jsonl"

Write: TypeAlias = Callable[[Mapping[str, float], int], object]
"""Takes values by tag, and the step."""


@dataclass(frozen=True, slots=True)
class Together:
    """A log that takes all values of a step at once."""

    write: Write


def writes(log: Any) -> Write:
    """How to write to a SummaryWriter, or by a function of tag, value and step. Raises
    UsageError."""
    if isinstance(log, Together):
        return log.write
    add = getattr(log, "add_scalar", log)
    if not callable(add):
        raise UsageError(
            f"log is {type(log).__name__}",
            do="give a SummaryWriter, or a function (tag, value, step), as writer.add_scalar is",
        )

    def write(values: Mapping[str, float], step: int) -> None:
        for tag, value in values.items():
            add(tag, value, step)

    return write


class LogSink:
    """Shows facts in the user's logger, by the tags of our own TensorBoard; `finding/NAME` counts
    the layers."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def take(self, moment: Moment) -> None:
        """Write what is a number."""
        values: dict[str, float] = {}
        for fact in moment.facts:
            match fact:
                case Evaluation() | Gap() | Reading():
                    values |= tagged(fact)
                case Found():
                    values[f"finding/{fact.name}"] = len(fact.layers)
                case _:
                    pass
        known = {tag: value for tag, value in values.items() if isfinite(value)}
        if known:
            self._write(known, moment.step)

    def close(self) -> None:
        """The user's logger stays open."""


def new_folder(parent: Path, setup: str, seed: int | str | None) -> Path:
    """A folder for the run that no other run has. Raises StorageError."""
    name = re.sub(r"[^\w.=-]+", "-", setup if seed is None else f"{setup}-seed{seed}") or "run"
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    path = next(parent / each for each in names if not (parent / each).exists())
    files.make_folder(path, inside=parent)
    return path


def add_row(parent: Path, row: Mapping[str, Any], last: Iterable[Fact]) -> None:
    """Add a run to the table that `bnbench verdict` reads: what was measured last, by the names of
    the metrics of our own runs. Raises StorageError."""
    values: dict[str, Any] = dict(row)
    for fact in last:
        match fact:
            case Evaluation():
                values[f"{fact.split}/{fact.stats}/loss"] = fact.loss
                values[f"{fact.split}/{fact.stats}/accuracy"] = fact.accuracy
            case Gap():
                for name in ("loss", "accuracy", "disagreement"):
                    values[f"{fact.split}/gap/{name}"] = getattr(fact, name)
            case Reading(probe="val"):
                values[f"val/{fact.layer}/{fact.name}"] = fact.value
            case Reading(layer=layer) if layer == NETWORK:
                values[f"probe/{fact.probe}/{fact.name}"] = fact.value
            case _:
                pass
    known = {
        name: value
        for name, value in values.items()
        if not isinstance(value, float) or isfinite(value)
    }
    files.append(parent / RESULTS, json.dumps(known).encode() + b"\n")
