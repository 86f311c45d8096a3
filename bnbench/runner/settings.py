"""How runs are executed, what one costs and how it ended.

No torch: whoever hands out runs needs these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from bnbench.config import schema
from bnbench.runner.stop import Stop
from bnbench.sinks import View
from bnbench.store import Result, RunFolder

MakeView: TypeAlias = Callable[[schema.RunConfig, int], View]
"""What shows a run of so many optimizer steps while it trains."""

Draw: TypeAlias = Callable[[RunFolder], Mapping[str, bytes]]
"""PNGs of a run that has ended, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How runs are executed; none of it decides their numbers, or it is part of the fingerprint.

    `threads`: for a configuration that says auto. `restart`: throw earlier attempts away.
    `accept_changes`: go on from a checkpoint of another machine or release, and mark it.
    `siblings`: folders of experiments from which a finished run that is the same is taken over.
    `view`: makes what shows a run while it trains. `draw`: draws what its probes have read.
    `announce` gets notes and warnings.
    """

    device: str | None = None
    threads: int = 1
    restart: bool = False
    accept_changes: bool = False
    siblings: tuple[Path, ...] = ()
    view: MakeView | None = None
    draw: Draw | None = None
    announce: Callable[[str], None] = lambda _: None
    stop: Stop = field(default_factory=Stop)


@dataclass(frozen=True, slots=True)
class Executed:
    """A run that has a result; `found`: it had one before."""

    folder: RunFolder
    result: Result
    found: bool


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run takes: seconds from start to result, bytes on disk when it is done."""

    seconds: float
    bytes: int
