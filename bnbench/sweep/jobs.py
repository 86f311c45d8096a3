"""What an executor can be asked to do, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from bnbench.config import schema
from bnbench.errors import BnbenchError
from bnbench.events import Event
from bnbench.runner import Cost
from bnbench.store import Record


@dataclass(frozen=True, slots=True, eq=False)
class Train:
    """Train a run to its result, going on from its last commit."""

    config: schema.RunConfig


@dataclass(frozen=True, slots=True, eq=False)
class Rehearse:
    """Take one step, to see whether the network can train at all."""

    config: schema.RunConfig


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """Take a few steps, to see what the run will cost."""

    config: schema.RunConfig


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """Find out how many runs like this one the device's memory holds side by side."""

    config: schema.RunConfig


Job: TypeAlias = Train | Rehearse | Measure | Fit


@dataclass(frozen=True, slots=True)
class Stated:
    """Events of a run, of one moment or of several, oldest first."""

    moments: list[list[Event]]


@dataclass(frozen=True, slots=True)
class Said:
    """A note or warning for the user."""

    line: str


@dataclass(frozen=True, slots=True)
class Trained:
    """A run has a result; `found`: it was there before."""

    record: Record
    found: bool


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """The network can train."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the run will cost."""

    cost: Cost


@dataclass(frozen=True, slots=True)
class Fits:
    """So many runs fit; None: the device has no memory of its own."""

    runs: int | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The job ended with an error; `hopeless`: every other run would fail in the same way."""

    error: BnbenchError
    hopeless: bool


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run was asked to stop, and has committed."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Whoever did the job has died; `how` is for people. `at_start`: before it took the job."""

    how: str
    at_start: bool


End: TypeAlias = Trained | Rehearsed | Measured | Fits | Failed | Stopped | Lost
"""Answers after which the job is over; exactly one for each job."""

Answer: TypeAlias = Stated | Said | End


@dataclass(frozen=True, slots=True)
class Terms:
    """What all jobs of an executor share; the fields of `runner.Settings` of the same names."""

    experiment: Path
    device: str | None = None
    threads: int = 1
    accept_changes: bool = False
    siblings: tuple[Path, ...] = ()


WAIT_SECONDS = 0.25
"""How long to wait for an answer before looking at the clock and at Ctrl-C."""


class Executor(Protocol):
    """Does jobs somewhere, several at a time, and survives whatever happens to one of them."""

    size: int
    """How many jobs it does at a time."""

    @property
    def busy(self) -> int:
        """How many it does now."""

    def give(self, job: Job) -> None:
        """Start a job; only while `busy` is below `size`."""

    def answers(self, seconds: float) -> list[tuple[Job, Answer]]:
        """What has been answered, oldest first, after waiting at most so long for the first.

        Raises RunError where no job can be done at all.
        """

    def stop(self) -> None:
        """Ask all runs to commit after their step and to end."""
