"""Which runs are missing, in which order they are trained, and what becomes of those that fail."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import assert_never

from bnbench import config as configuration
from bnbench.config import run_id, schema
from bnbench.errors import (
    BnbenchError,
    HeldError,
    Interrupted,
    RunError,
    StorageError,
)
from bnbench.runner import Cost, Screen, Stop, View
from bnbench.store import ExperimentFolder, Record
from bnbench.sweep.beforehand import fit, rehearse
from bnbench.sweep.costs import Costs, cell_of, makespan
from bnbench.sweep.jobs import (
    WAIT_SECONDS,
    Answer,
    Executor,
    Failed,
    Fits,
    Lost,
    Measured,
    Rehearsed,
    Said,
    Stated,
    Stopped,
    Train,
    Trained,
)

ATTEMPTS = 3
"""A run whose worker died so often is failed."""

HELD_SECONDS = 1.0
"""How often to look again at runs that another process trains."""

COMMIT_SECONDS = 8.0
"""How long a stopped sweep waits for its workers to commit, before it ends them."""


@dataclass(slots=True)
class Outcome:
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
        """Runs that are dealt with."""
        return self.found + self.trained + len(self.failures)


def sweep(
    runs: Sequence[schema.RunConfig],
    experiment: ExperimentFolder,
    executor: Executor,
    screen: Screen,
    stop: Stop,
    *,
    restart: bool = False,
    retry_failed: bool = False,
    fail_fast: bool = False,
    fit_gpu: bool = False,
) -> Outcome:
    """Train what is missing of `runs`; finished ones are only looked at.

    A run that fails is kept as failed and the others go on; it is not tried again unless
    `retry_failed`, or unless data or the disk was what failed. A run whose worker dies is tried
    again, at most twice. Runs that another process trains are waited for. `fit_gpu`: no more at a
    time than a GPU's memory holds, if that is where they train.

    Raises Interrupted, and DataError or StorageError where no run could succeed; ConfigError,
    before the first run, where a network that configuration cannot see into cannot train;
    HeldError where a run that is to be restarted is being trained by another process.
    """
    work = _Sweep(runs, experiment, executor, screen, stop)
    with stop.deferred():
        if restart:
            work.throw_away()
        work.look(retry=retry_failed or restart)
        work.rehearse()
        if fit_gpu:
            work.fit()
        work.train(fail_fast=fail_fast)
    return work.outcome


@dataclass(frozen=True, slots=True)
class _Missing:
    """A run that has no result yet; all that choosing the next one looks at, worked out once."""

    config: schema.RunConfig
    name: str
    cell: str
    steps: int


@dataclass(slots=True)
class _Running:
    """A run in a worker; `fraction` of its steps is done."""

    run: _Missing
    begun: float
    view: View
    fraction: float = 0.0


class _Sweep:
    def __init__(
        self,
        runs: Sequence[schema.RunConfig],
        experiment: ExperimentFolder,
        executor: Executor,
        screen: Screen,
        stop: Stop,
    ) -> None:
        self.outcome = Outcome(len(runs))
        self._runs = runs
        self._experiment = experiment
        self._executor = executor
        self._screen = screen
        self._stop = stop
        self._waiting: list[_Missing] = []
        self._running: dict[Train, _Running] = {}
        self._held: list[_Missing] = []
        self._look_again = 0.0
        self._deaths: dict[str, int] = {}
        self._costs = Costs()
        self._failed = False  # now; those that had failed before are kept, and stop nothing

    # --- before the first run -----------------------------------------------------------------

    def throw_away(self) -> None:
        """Forget every earlier attempt, after saying so."""
        thrown = 0
        for config in self._runs:
            folder = self._experiment.run(run_id(config))
            if folder.path.exists():
                with folder.hold():
                    thrown += folder.clear()
        if thrown:
            self._screen.print(f"{thrown} earlier {'run' if thrown == 1 else 'runs'} thrown away")

    def look(self, *, retry: bool) -> None:
        """Sort the runs into finished, failed and missing ones, from the evidence on disk."""
        for config in self._runs:
            run = _Missing(
                config, run_id(config), cell_of(config), configuration.planned_steps(config)
            )
            folder = self._experiment.run(run.name)
            try:
                result = folder.result()
                if result is not None and folder.config_text() == configuration.dump(config):
                    self._count(run, result, found=True)
                    continue
                failure = folder.error() if folder.state() == "failed" and not retry else None
                # Missing data or a full disk say nothing about the run: it is tried again.
                if failure is not None and not failure.get("of_the_machine"):
                    message = f"failed before: {failure.get('message')}"
                    self.outcome.failures.append((folder.name, message))
                    continue
            except StorageError:
                pass  # something in the folder is damaged: training it will say what
            self._waiting.append(run)

    def rehearse(self) -> None:
        """Let each network that configuration cannot see into take a step, if it never has."""
        opaque = [
            run.config
            for run in self._waiting
            if configuration.opaque(run.config)
            and run.config.seed == self._runs[0].seed
            and not self._experiment.run(run.name).path.exists()
        ]
        rehearse(opaque, self._executor, self._screen, self._end_if_stopped)

    def fit(self) -> None:
        """Do no more at a time than fit a GPU, of those that need most."""
        if self._waiting:
            largest = max(self._waiting, key=lambda run: run.config.data.batch_size)
            fit(largest.config, self._executor, self._screen, self._end_if_stopped)

    # --- training -----------------------------------------------------------------------------

    def train(self, *, fail_fast: bool) -> None:
        """Keep all workers busy until nothing is missing."""
        while self._waiting or self._held or self._running:
            self._end_if_stopped()
            if fail_fast and self._failed:
                self._commit_and_end()
                return
            if self._held and time.monotonic() >= self._look_again:
                self._waiting += self._held
                self._held = []
            while self._waiting and self._executor.busy < self._executor.size:
                self._give(self._next())
            self._show()
            for job, answer in self._executor.answers(WAIT_SECONDS):
                assert isinstance(job, Train)
                self._take(job, answer)

    def _next(self) -> _Missing:
        """The longest of what is waiting, so that the end has no idle core; before those, a run of
        each cell whose cost nobody knows yet."""
        begun = {running.run.cell for running in self._running.values()}

        def urgency(run: _Missing) -> tuple[bool, float]:
            unknown = self._costs.of(run.cell) is None and run.cell not in begun
            return unknown, self._costs.guess(run.cell, run.steps) or float(run.steps)

        run = max(self._waiting, key=urgency)  # the first of equals
        self._waiting.remove(run)
        return run

    def _give(self, run: _Missing) -> None:
        job = Train(run.config)
        view = self._screen.view(run.config, run.steps)
        self._running[job] = _Running(run, time.monotonic(), view)
        self._executor.give(job)

    def _take(self, job: Train, answer: Answer) -> None:
        running = self._running[job]
        run = running.run
        match answer:
            case Stated(moments):
                running.fraction = moments[-1][0].step / run.steps
                for events in moments:
                    running.view.take(events)
            case Said(line):
                self._screen.print(line)
            case Trained(record, found):
                self._end(job)
                self._count(run, record, found=found)
                self._screen.ended(f"{self._counted()} {run.name}: {_summary(record)}")
            case Failed(HeldError(), _):
                self._end(job)
                self._held.append(run)
                self._look_again = time.monotonic() + HELD_SECONDS
            case Failed(error, hopeless):
                self._end(job)
                if hopeless:
                    self._commit_and_end()
                    raise error
                self._fail(run, error)
            case Lost(how, at_start):
                self._end(job)
                self._bury(run, how, at_start)
            case Stopped():
                self._end(job)
            case Rehearsed() | Measured() | Fits():
                raise AssertionError(f"{run.name} was to be trained")
            case _:
                assert_never(answer)

    def _end(self, job: Train) -> None:
        self._running.pop(job).view.close()

    def _fail(self, run: _Missing, error: BnbenchError) -> None:
        self._failed = True
        self.outcome.failures.append((run.name, str(error)))
        self._screen.print(f"{self._counted()} {run.name} failed: {error.what}")

    def _bury(self, run: _Missing, how: str, at_start: bool) -> None:
        """A worker has died over a run: once more, or failed."""
        deaths = self._deaths[run.name] = self._deaths.get(run.name, 0) + (not at_start)
        if deaths < ATTEMPTS:
            self._screen.print(
                f"warning: the worker of {run.name} {how}; the run goes on in another"
            )
            self._waiting.append(run)
            return
        error = RunError(
            f"its worker {how}, {ATTEMPTS} times",
            do="look at its memory (data.batch_size, model.widths) and at its custom code",
        )
        folder = self._experiment.run(run.name)
        record = {
            "error": type(error).__name__,
            "message": str(error),
            "traceback": str(error),
            "of_the_machine": False,
        }
        # Held by another sweep that has begun it in the meantime: then it is that one's to judge.
        with suppress(HeldError), folder.hold():
            folder.fail(record)
        self._fail(run, error)

    # --- ending early -------------------------------------------------------------------------

    def _end_if_stopped(self) -> None:
        if self._stop.exit_code is None:
            return
        self._commit_and_end()
        raise Interrupted(
            f"stopped with {self.outcome.done} of {self.outcome.runs} runs done; what was begun of "
            "the others is saved",
            do="the same command goes on from there",
            exit_code=self._stop.exit_code,
        )

    def _commit_and_end(self) -> None:
        """Let the runs that train commit and end; one that takes too long goes on from before."""
        self._executor.stop()
        until = time.monotonic() + COMMIT_SECONDS
        while self._running and time.monotonic() < until:
            for job, answer in self._executor.answers(WAIT_SECONDS):
                if not isinstance(job, Train):
                    continue
                match answer:
                    case Lost():
                        self._end(job)
                    case Failed(error, True):
                        self._end(job)
                        self._screen.print(error.what)
                    case _:
                        self._take(job, answer)
            self._show()

    # --- what there is to see -----------------------------------------------------------------

    def _count(self, run: _Missing, record: Record, *, found: bool) -> None:
        self.outcome.found += found
        self.outcome.trained += not found
        self.outcome.diverged += record["state"] == "diverged"
        self._costs.learn(run.cell, run.steps, Cost(record["wall_seconds"], 0))

    def _counted(self) -> str:
        return f"[{self.outcome.done}/{self.outcome.runs}]"

    def _show(self) -> None:
        self._screen.advance(
            done=self.outcome.done,
            diverged=self.outcome.diverged,
            failed=len(self.outcome.failures),
            seconds_left=self._seconds_left(),
        )

    def _seconds_left(self) -> float | None:
        """From what other runs took, and from how far those are that train; None: too early."""
        left = []
        for running in self._running.values():
            elapsed, fraction = time.monotonic() - running.begun, running.fraction
            whole = self._costs.guess(running.run.cell, running.run.steps)
            if fraction > 0.1:
                left.append(elapsed / fraction * (1 - fraction))
            elif whole is not None:
                left.append(max(0.0, whole - elapsed))
            else:
                return None
        for run in (*self._waiting, *self._held):
            whole = self._costs.guess(run.cell, run.steps)
            if whole is None:
                return None
            left.append(whole)
        return makespan(left, self._executor.size)


def _summary(record: Record) -> str:
    """How a run ended, in a few words."""
    if record["state"] == "diverged":
        return f"diverged at step {record['step']}: {record['reason']}"
    accuracy = record["val"]["running"]["accuracy"]
    return f"val {accuracy:.1%} in {record['wall_seconds']:.1f} s"
