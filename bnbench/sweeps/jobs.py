"""What an executor can be asked to do, what it answers, and how a worker does it.

Jobs and answers are pickled on their way. They carry configurations, records and bytes, and need no
path of the driver's machine; `shipping` adds what a machine without the driver's disk needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from errno import EDQUOT, ENOSPC, EROFS
from typing import Protocol, TypeAlias, TypeVar, assert_never

from bnbench.config import feasible, schema
from bnbench.errors import (
    BnbenchError,
    ClusterError,
    DataError,
    Fault,
    Interrupted,
    RunError,
    StorageError,
    UsageError,
)
from bnbench.events import Moment
from bnbench.machine import Pace
from bnbench.runner.settings import Cost, Fitting, Settings, Stop
from bnbench.store import ExperimentFolder, Result

SHOWN_SECONDS = 0.2
"""How often a worker sends what its run has stated: the screen shows no more."""

Refused: TypeAlias = tuple[schema.RunConfig, feasible.Obstacle]
"""A run that cannot be trained, and why."""

FaultsOf: TypeAlias = Callable[[Iterable[Refused]], Sequence[Fault]]
"""Finds the places in the file that say so."""


@dataclass(frozen=True, eq=False)
class _OfOneRun:
    config: schema.RunConfig


@dataclass(frozen=True, eq=False)
class Train(_OfOneRun):
    """Train a run to its result, continuing from its last checkpoint.

    `seconds`: how long that takes, where an executor with a queue has to know; else 0.
    """

    seconds: float = 0.0


class Measure(_OfOneRun):
    """Take a few steps, to see what the run will cost."""


class Fit(_OfOneRun):
    """Find out how many runs like this one the GPUs are to train at the same time."""


@dataclass(frozen=True, eq=False)
class Check:
    """See whether the networks of these runs can be trained at all."""

    configs: tuple[schema.RunConfig, ...]


Job: TypeAlias = Train | Check | Measure | Fit


def configs(job: Job) -> tuple[schema.RunConfig, ...]:
    """The runs that a job is about."""
    return job.configs if isinstance(job, Check) else (job.config,)


@dataclass(frozen=True, slots=True)
class Begun:
    """The run has left the queue of its executor."""


@dataclass(frozen=True, slots=True)
class Stated:
    """Moments of a run, oldest first, and the `pace` at which it trained until then, as
    `machine.Pace` has it."""

    moments: list[Moment]
    pace: float = 1.0


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
    (Measure), how many fit, or None where there is no GPU (Fit)."""

    value: tuple[Refused, ...] | Cost | Fitting | None


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

Answer: TypeAlias = Begun | Stated | Said | End


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """The command line's. `workers`: a number, or auto for as many as there are cores. `on`: where
    runs are trained, as `executors` of `experiments` knows it; `address`: of a Ray cluster;
    `slurm`: KEY=VALUE for SLURM; `detach`: only submit to it. `environment`: a file below the
    experiment's folder that says what `provenance.environment` workers must have."""

    workers: str = "auto"
    on: str = "local"
    address: str | None = None
    slurm: tuple[str, ...] = ()
    detach: bool = False
    device: str | None = None
    accept_changes: bool = False
    restart: bool = False
    retry_failed: bool = False
    fail_fast: bool = False
    environment: str | None = None


@dataclass(slots=True)
class SweepOutcome:
    """What became of a sweep's runs: counts, and the failures with their reasons.

    Results are on disk; kept here they would grow with their number.
    """

    runs: int
    found: int = 0
    trained: int = 0
    diverged: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Runs that have ended: found, trained or failed."""
        return self.found + self.trained + len(self.failures)

    def __str__(self) -> str:
        return f"[{self.done}/{self.runs}]"


J = TypeVar("J")
A = TypeVar("A")


class Executor(Protocol[J, A]):
    """Does jobs somewhere, several at a time; what happens to one never harms another.

    The driver of a sweep uses an `Executor[Job, Answer]`. One whose workers share no disk with the
    driver is an `Executor[Shipment, Reply]`, of which `shipping.Shipping` makes the former.
    """

    size: int  # how many jobs it does at a time; a driver may change it
    queues: bool  # whether jobs beyond `size` wait in it: then it answers Begun

    def start(self, jobs: int) -> None:
        """Prepare for this many jobs, so that workers start at the same time."""

    def submit(self, job: J) -> None:
        """Start a job; the caller keeps to `size`, unless the executor has a queue."""

    def answers(self, seconds: float) -> list[tuple[J, A]]:
        """What has been answered, oldest first, after waiting at most this long for the first.

        Raises RunError where no job can be done at all.
        """

    def ask_to_stop(self) -> None:
        """Ask all runs to commit after their current step and to end."""

    def close(self) -> None:
        """End everything now. What was not committed is lost; disks stay consistent."""


def perform(
    job: Job,
    options: SweepOptions,
    experiment: ExperimentFolder,
    send: Callable[[Answer], None],
    stop: Stop,
    worker: int = 0,
    *,
    lasting: bool = True,
) -> End:
    """Do a job, in the worker of this number. `send` gets what there is to see until then; whatever
    goes wrong is an answer. A run is trained in its folder of `experiment`."""
    from bnbench.runner import execution, rehearsal

    settings = Settings(
        device=options.device,
        worker=worker,
        accept_changes=options.accept_changes,
        siblings=experiment.siblings,
        view=lambda *_: _Forwarder(send),
        announce=lambda line: send(Said(line)),
        stop=stop,
        lasting=lasting,
    )
    try:
        if options.environment is not None:
            from bnbench.runner.provenance import require_first_environment

            require_first_environment(experiment, options.environment, settings)
        match job:
            case Train(config):
                executed = execution.execute(config, experiment, settings)
                return Trained(executed.result, executed.found)
            case Check(configs):
                return Found(tuple(rehearsal.check(configs, settings)))
            case Measure(config):
                return Found(rehearsal.measure(config, settings))
            case Fit(config):
                return Found(rehearsal.fitting(config, settings))
            case _:
                assert_never(job)
    except Interrupted:
        return Stopped()
    except BnbenchError as error:
        return failed(error)
    except Exception as error:
        return Failed(RunError(f"{type(error).__name__}: {error}"), hopeless=False)


def failed(error: BnbenchError) -> Failed:
    """The answer to a job that ended with this error."""
    cause = error.__cause__
    full = isinstance(cause, OSError) and cause.errno in (ENOSPC, EDQUOT, EROFS)
    everywhere = isinstance(error, ClusterError | DataError | UsageError)
    return Failed(error, everywhere or (full and isinstance(error, StorageError)))


@dataclass(slots=True)
class _Forwarder:
    """A view that sends what it is shown, as often as a screen needs it."""

    send: Callable[[Answer], None]
    moments: list[Moment] = field(default_factory=list)
    sent: float = field(default_factory=time.monotonic)
    pace: Pace = field(default_factory=Pace)

    def take(self, moment: Moment) -> None:
        self.moments.append(moment)
        if time.monotonic() - self.sent >= SHOWN_SECONDS:
            self.close()

    def close(self) -> None:
        if self.moments:
            self.send(Stated(self.moments, self.pace.read()))
        self.moments = []
        self.sent = time.monotonic()
