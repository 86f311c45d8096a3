"""What an executor can be asked to do, and what it answers.

Jobs and answers are pickled on their way. They carry configurations, records and bytes, and need no
path of the driver's machine; `shipping` adds what a machine without the driver's disk needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC, EROFS
from typing import Protocol, TypeAlias, TypeVar

from bnbench.config import feasible, schema
from bnbench.errors import BnbenchError, DataError, Fault, StorageError, UsageError
from bnbench.events import Moment
from bnbench.runner.settings import Cost
from bnbench.store import Result

Refused: TypeAlias = tuple[schema.RunConfig, feasible.Obstacle]
"""A run that cannot be trained, and why."""

FaultsOf: TypeAlias = Callable[[Iterable[Refused]], Sequence[Fault]]
"""Finds the places in the file that say so."""


@dataclass(frozen=True, slots=True, eq=False)
class Train:
    """Train a run to its result, continuing from its last checkpoint."""

    config: schema.RunConfig


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """See whether the networks of these runs can be trained at all."""

    configs: tuple[schema.RunConfig, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """Take a few steps, to see what the run will cost."""

    config: schema.RunConfig


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """Find out how many runs like this one fit into the device's memory at the same time."""

    config: schema.RunConfig


Job: TypeAlias = Train | Check | Measure | Fit


@dataclass(frozen=True, slots=True)
class Stated:
    """Moments of a run, oldest first."""

    moments: list[Moment]


@dataclass(frozen=True, slots=True)
class Said:
    """A note or warning for the user."""

    line: str


@dataclass(frozen=True, slots=True)
class Trained:
    """A run has a result; `found`: it had one before the job began."""

    result: Result
    found: bool


@dataclass(frozen=True, slots=True)
class Found:
    """What a job other than training has found: runs that cannot be trained (Check), a run's cost
    (Measure), how many fit, or None where the device has no memory of its own (Fit)."""

    value: tuple[Refused, ...] | Cost | int | None


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
    """The worker of the job has died; `how` is for people. `at_start`: before it took the job."""

    how: str
    at_start: bool


End: TypeAlias = Trained | Found | Failed | Stopped | Lost
"""Answers after which the job is over; exactly one for each job."""

Answer: TypeAlias = Stated | Said | End


def failed(error: BnbenchError) -> Failed:
    """The answer to a job that ended with this error."""
    cause = error.__cause__
    full = isinstance(cause, OSError) and cause.errno in (ENOSPC, EDQUOT, EROFS)
    everywhere = isinstance(error, DataError | UsageError)
    return Failed(error, everywhere or (full and isinstance(error, StorageError)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """The command line's. `workers`: a number, or auto for as many as there are cores."""

    workers: str = "auto"
    device: str | None = None
    accept_changes: bool = False
    restart: bool = False
    retry_failed: bool = False
    fail_fast: bool = False


J = TypeVar("J")
A = TypeVar("A")


class Executor(Protocol[J, A]):
    """Does jobs somewhere, several at a time; what happens to one never harms another.

    The driver of a sweep uses an `Executor[Job, Answer]`. One whose workers share no disk with the
    driver is an `Executor[Shipment, Reply]`, of which `shipping.Shipping` makes the former.
    """

    @property
    def size(self) -> int:
        """How many jobs it does at a time."""

    def start(self, jobs: int) -> None:
        """Prepare for this many jobs, so that workers start at the same time."""

    def submit(self, job: J) -> None:
        """Start a job; the caller keeps to `size`."""

    def answers(self, seconds: float) -> list[tuple[J, A]]:
        """What has been answered, oldest first, after waiting at most this long for the first.

        Raises RunError where no job can be done at all.
        """

    def ask_to_stop(self) -> None:
        """Ask all runs to commit after their current step and to end."""

    def close(self) -> None:
        """End everything now. What was not committed is lost; disks stay consistent."""
