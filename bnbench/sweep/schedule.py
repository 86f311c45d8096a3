"""Which runs are missing, in which order they are trained, and what happens when one fails."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import assert_never

from bnbench import config as configuration
from bnbench import store
from bnbench.config import run_id, schema
from bnbench.errors import BnbenchError, HeldError, Interrupted, RunError, StorageError
from bnbench.runner import Cost, Screen, Stop
from bnbench.sinks import Sink
from bnbench.store import ExperimentFolder, RunFolder
from bnbench.sweep import preflight
from bnbench.sweep.costs import Costs, cell_of, makespan
from bnbench.sweep.dispatch import Dispatcher
from bnbench.sweep.jobs import (
    Answer,
    Checked,
    Executor,
    Failed,
    Fits,
    Job,
    Lost,
    Measured,
    Said,
    Stated,
    Stopped,
    Train,
    Trained,
)

ATTEMPTS = 3
"""A run whose worker has died this often is failed."""

HELD_SECONDS = 1.0
"""How often to look again at runs that another process trains."""


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


def sweep(
    runs: Sequence[schema.RunConfig],
    experiment: ExperimentFolder,
    executor: Executor[Job, Answer],
    screen: Screen,
    stop: Stop,
    *,
    restart: bool = False,
    retry_failed: bool = False,
    fail_fast: bool = False,
    fit_gpu: bool = False,
) -> SweepOutcome:
    """Train what is missing of `runs`; finished ones are only looked at.

    A run that fails is recorded as failed, and the others go on. It is not tried again unless
    `retry_failed`, or unless data or the disk was the cause. A run whose worker dies is tried
    again, at most twice. Runs that another process trains are waited for. `fit_gpu`: if the runs
    train on a GPU, no more at a time than its memory holds.

    Raises Interrupted; DataError or StorageError where no run could succeed; ConfigError, before
    the first run, for networks that cannot train; HeldError where a run that is to be restarted is
    being trained by another process.
    """
    work = _Sweep(runs, experiment, executor, screen, stop)
    with stop.deferred():
        if restart:
            work.discard_earlier_attempts()
        work.find_missing(retry=retry_failed or restart)
        work.prepare(fit_gpu=fit_gpu)
        work.train(fail_fast=fail_fast)
    return work.outcome


@dataclass(slots=True, eq=False)
class _Run:
    """A run that has no result yet. `fraction`: how much of it is trained; `view` shows that."""

    config: schema.RunConfig
    folder: RunFolder
    name: str
    cell: str
    steps: int
    deaths: int = 0
    begun: float = 0.0
    fraction: float = 0.0
    view: Sink | None = None


class _Sweep:
    def __init__(
        self,
        runs: Sequence[schema.RunConfig],
        experiment: ExperimentFolder,
        executor: Executor[Job, Answer],
        screen: Screen,
        stop: Stop,
    ) -> None:
        self.outcome = SweepOutcome(len(runs))
        self._configs = runs
        self._experiment = experiment
        self._executor = executor
        self._screen = screen
        self._stop = stop
        self._dispatcher = Dispatcher(executor, screen.print, stop)
        self._missing: dict[Job, _Run] = {}
        self._costs = Costs()
        self._hopeless: BnbenchError | None = None

    # --- before the first run -----------------------------------------------------------------

    def discard_earlier_attempts(self) -> None:
        """Clear the folders of all runs, and say how many had something in them."""
        cleared = 0
        for config in self._configs:
            folder = self._experiment.run(run_id(config))
            if folder.path.exists():
                with folder.hold():
                    cleared += folder.clear()
        if cleared:
            self._screen.print(f"{cleared} earlier {'run' if cleared == 1 else 'runs'} thrown away")

    def find_missing(self, *, retry: bool) -> None:
        """Sort the runs into finished, failed and missing ones, from the evidence on disk."""
        for config in self._configs:
            name = run_id(config)
            folder = self._experiment.run(name)
            steps = configuration.planned_steps(config)
            run = _Run(config, folder, name, cell_of(config), steps)
            found = store.read(folder)
            if found.result is not None and _is_of(config, folder):
                self._count(run, found.result, found=True)
                continue
            # Missing data or a full disk say nothing about the run: it is tried again.
            if found.error is not None and not retry and not found.error.get("of_the_machine"):
                message = f"failed before: {found.problem}"
                self.outcome.failures.append((folder.name, message))
                continue
            self._missing[Train(config)] = run

    def prepare(self, *, fit_gpu: bool) -> None:
        """Check networks of which no run has begun yet, and how many runs fit a GPU's memory."""
        if not self._missing:
            return
        self._executor.start(min(self._executor.size, len(self._missing)))
        configs = [run.config for run in self._missing.values()]
        new = [run.config for run in self._missing.values() if not run.folder.path.exists()]
        preflight.check_networks(new, self._dispatcher)
        if fit_gpu:
            largest = max(configs, key=lambda config: config.data.batch_size)
            preflight.fit_memory(largest, self._dispatcher, self._screen.print)

    # --- training -----------------------------------------------------------------------------

    def train(self, *, fail_fast: bool) -> None:
        """Keep all workers busy until nothing is missing."""
        failures_before = len(self.outcome.failures)
        self._dispatcher.add(self._missing)
        for job, answer in self._dispatcher.answers(choose=self._next, each_turn=self._show):
            self._take(job, answer)
            if fail_fast and len(self.outcome.failures) > failures_before:
                self._dispatcher.stop()
        if self._hopeless is not None:
            raise self._hopeless
        if self._dispatcher.stopping and self._stop.exit_code is not None:
            raise Interrupted(
                f"stopped with {self.outcome.done} of {self.outcome.runs} runs done; what was "
                "begun of the others is saved",
                do="the same command goes on from there",
                exit_code=self._stop.exit_code,
            )

    def _next(self, waiting: list[Job]) -> Job:
        """The longest run that waits, so that no core is idle at the end; before that, a run of
        each cell whose cost is unknown."""
        begun = {run.cell for run in self._missing.values() if run.view is not None}

        def urgency(job: Job) -> tuple[bool, float]:
            run = self._missing[job]
            unknown = self._costs.of(run.cell) is None and run.cell not in begun
            return unknown, self._costs.guess(run.cell, run.steps) or float(run.steps)

        job = max(waiting, key=urgency)  # the first of equals
        run = self._missing[job]
        run.begun, run.fraction = time.monotonic(), 0.0
        run.view = run.view or self._screen.view(run.name, run.steps)
        return job

    def _take(self, job: Job, answer: Answer) -> None:
        run = self._missing[job]
        if run.view is not None and isinstance(answer, Stated):
            run.fraction = answer.moments[-1].step / run.steps
            for moment in answer.moments:
                run.view.take(moment)
            return
        if run.view is not None:
            run.view.close()
            run.view = None
        match answer:
            case Trained(result, found):
                del self._missing[job]
                self._count(run, result, found=found)
                self._screen.ended(f"{self._counted()} {run.name}: {_summary(result)}")
            case Failed(HeldError(), _):
                self._again(job, delay_seconds=HELD_SECONDS)
            case Failed(error, hopeless=True) if self._dispatcher.stopping:
                self._screen.print(error.what)
            case Failed(error, hopeless=True):
                self._hopeless = error
                self._dispatcher.stop()
            case Failed(error, _):
                self._fail(job, error)
            case Lost(how, _):
                self._lost(job, how)
            case Stopped():
                pass
            case Stated() | Said() | Checked() | Measured() | Fits():
                raise AssertionError(f"not an answer to a training: {answer}")
            case _:
                assert_never(answer)

    def _again(self, job: Job, *, delay_seconds: float = 0.0) -> None:
        if not self._dispatcher.stopping:
            self._dispatcher.add([job], delay_seconds=delay_seconds)

    def _fail(self, job: Job, error: BnbenchError) -> None:
        run = self._missing.pop(job)
        self.outcome.failures.append((run.name, str(error)))
        self._screen.print(f"{self._counted()} {run.name} failed: {error.what}")

    def _lost(self, job: Job, how: str) -> None:
        """A worker has died while it trained a run, which is tried again or has failed."""
        if self._dispatcher.stopping:
            return
        run = self._missing[job]
        run.deaths += 1
        if run.deaths < ATTEMPTS:
            self._screen.print(
                f"warning: the worker of {run.name} {how}; the run goes on in another"
            )
            self._again(job)
            return
        error = RunError(
            f"its worker {how}, {ATTEMPTS} times",
            do="look at its memory (data.batch_size, model.widths) and at its custom code",
        )
        record = {
            "error": type(error).__name__,
            "message": str(error),
            "traceback": str(error),
            "of_the_machine": False,
        }
        # Held by another sweep that has begun it in the meantime: then that sweep decides.
        with suppress(HeldError), run.folder.hold():
            run.folder.fail(record)
        self._fail(job, error)

    # --- what is shown ------------------------------------------------------------------------

    def _count(self, run: _Run, result: store.Result, *, found: bool) -> None:
        self.outcome.found += found
        self.outcome.trained += not found
        self.outcome.diverged += result.state == "diverged"
        self._costs.learn(run.cell, run.steps, Cost(result.wall_seconds, 0))

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
        """From what other runs took, and from the progress of those that train; None: unknown."""
        left = []
        for run in self._missing.values():
            whole = self._costs.guess(run.cell, run.steps)
            elapsed = time.monotonic() - run.begun
            if run.view is not None and run.fraction > 0.1:
                left.append(elapsed / run.fraction * (1 - run.fraction))
            elif whole is None:
                return None
            else:
                left.append(max(0.0, whole - elapsed) if run.view is not None else whole)
        return makespan(left, self._dispatcher.limit)


def _is_of(config: schema.RunConfig, folder: store.RunFolder) -> bool:
    """Whether the folder holds this configuration; if it is damaged, training it will say so."""
    try:
        return folder.config_text() == configuration.dump(config)
    except StorageError:
        return False


def _summary(result: store.Result) -> str:
    """How a run ended, in a few words."""
    if result.divergence is not None:
        return f"diverged at {result.divergence}"
    accuracy = result.scores["val"]["running"].accuracy
    return f"val {accuracy:.1%} in {result.wall_seconds:.1f} s"
