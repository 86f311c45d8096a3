"""Which runs are missing, in which order they are trained, and what happens when one fails."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import assert_never

from bnbench import store
from bnbench.config import feasible, identity, schema
from bnbench.config.custom import code_of
from bnbench.errors import (
    BnbenchError,
    DamagedError,
    HeldError,
    Interrupted,
    RunError,
    StorageError,
)
from bnbench.machine import BUSY
from bnbench.runner.settings import Stop, may_use_gpu
from bnbench.sinks import Sink
from bnbench.sinks.terminal import Screen
from bnbench.sweeps import forecast, jobs
from bnbench.sweeps.dispatch import Dispatcher
from bnbench.wording import counted

ATTEMPTS = 3
"""A run whose worker has died this often is failed."""

TELLING_SECONDS = 20.0
"""After these, even a hundredth of a run says how long all of it will take."""

FRESH_SECONDS = 60.0
"""Runs that take less are trained code by code of the user's own: a worker that has run some does
no job without it, and another one takes four seconds to start."""

HELD_SECONDS = 1.0
"""How often to look again at runs that another process trains."""


def sweep(
    runs: Sequence[schema.RunConfig],
    experiment: store.ExperimentFolder,
    executor: jobs.Executor[jobs.Job, jobs.Answer],
    screen: Screen,
    stop: Stop,
    options: jobs.SweepOptions,
    faults_of: jobs.FaultsOf,
    begin: Callable[[], None] = lambda: None,
) -> jobs.SweepOutcome:
    """Train what is missing of `runs`; finished ones are only looked at. `begin` is called when
    nothing has been found that keeps them from training.

    A run that fails is recorded as failed, and the others go on. It is not tried again unless
    `retry_failed`, or unless data or the disk was the cause. A run whose worker dies is tried
    again, at most twice. Runs that another process trains are waited for. With as many workers as
    there are cores, runs on a GPU are no more at a time than its memory holds.

    Raises Interrupted; DataError or StorageError where no run could succeed; ConfigError, before
    the first run, for networks that cannot be trained.
    """
    dispatcher = Dispatcher(executor, screen.print, stop)
    work = _Sweep(screen, dispatcher, jobs.SweepOutcome(len(runs)), experiment.path)
    with stop.deferred():
        work.find_missing(runs, experiment, options)
        missing = [run.config for run in work.missing.values()]
        if missing:
            screen.plain(f"{counted(len(missing), 'run')} to train")
            forecast.require_space(work.new(), work.sizes, experiment.path)
            executor.start(len(missing))
            dispatcher.check_networks([config for _, config in work.new()], faults_of)
            if executor.queues:
                work.expect(forecast.seconds_of(missing, dispatcher))
            elif (
                options.on == "local"
                and options.workers == "auto"
                and may_use_gpu(options.device, runs)
            ):
                dispatcher.fit_gpus(max(missing, key=lambda config: config.data.batch_size))
        if not dispatcher.stopping:
            begin()
        work.train(fail_fast=options.fail_fast)
    if work.hopeless is not None:
        raise work.hopeless
    if dispatcher.stopping and stop.exit_code is not None:
        saved = sum(run.folder.is_saved() for run in work.missing.values())
        raise Interrupted(
            f"stopped with {work.outcome.done} of {len(runs)} runs done; "
            + (f"of {saved} more, what was trained is saved" if saved else "nothing else is saved"),
            do="the same command "
            + ("goes on from there" if work.outcome.done or saved else "begins again"),
            exit_code=stop.exit_code,
        )
    return work.outcome


def is_saved(runs: Sequence[schema.RunConfig], experiment: store.ExperimentFolder) -> bool:
    """Whether any of the runs has stored something to go on from."""
    return any(run.is_saved() for run in experiment.folders_of(map(identity.run_id, runs)))


@dataclass(slots=True, eq=False)
class _Run:
    """A run that has no result yet. `turn`: of its seed. `view` shows it while it trains;
    `fraction` is done since it first said what is `left`, at this `pace` (`machine.Pace`): before,
    its process starts, imports and reads from a cold disk, which those of later runs do not."""

    config: schema.RunConfig
    folder: store.RunFolder
    cell: str
    turn: int
    steps: int
    code: tuple[Path, ...]
    deaths: int = 0
    begun: float = 0.0
    fraction: float = 0.0
    left: float = 1.0
    pace: float = 1.0
    view: Sink | None = None

    def elapsed(self) -> float:
        """Seconds since it has begun, or first said what is done; 0 while it does not train."""
        return 0.0 if self.view is None else time.monotonic() - self.begun

    def tells(self) -> bool:
        """Whether its progress tells how long it takes."""
        enough = 0.0 if self.elapsed() > TELLING_SECONDS else 0.1
        return self.view is not None and self.fraction > enough


@dataclass(slots=True)
class _Sweep:
    screen: Screen
    dispatcher: Dispatcher
    outcome: jobs.SweepOutcome
    place: Path
    missing: dict[jobs.Job, _Run] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)  # bytes of a run of each cell
    longest: dict[str, float] = field(default_factory=dict)  # seconds of a run of each cell
    seconds: float = 0.0  # of all runs that are done, with so many steps
    steps: int = 0
    hopeless: BnbenchError | None = None

    def find_missing(
        self,
        runs: Sequence[schema.RunConfig],
        experiment: store.ExperimentFolder,
        options: jobs.SweepOptions,
    ) -> None:
        """Sort the runs into finished, failed and missing ones, as their folders say."""
        turns = forecast.turns(runs)
        others = Counter[str]()
        for config, found, otherwise in forecast.stored(runs, experiment):
            folder, turn = found.folder, turns[config.seed]
            cell, steps = identity.cell_key(config), feasible.planned_steps(config)
            run = _Run(config, folder, cell, turn, steps, code_of(config))
            others.update(otherwise)
            if forecast.is_missing(found, options):
                if found.state == "damaged":
                    with suppress(HeldError), folder.hold():  # held: another sweep has done it
                        store.set_aside(folder)
                self.missing[jobs.Train(config)] = run
            elif found.result is not None:
                self.count(run, found.result, found=True)
            else:
                before = "damaged" if found.state == "damaged" else "failed before"
                self.outcome.failures.append((folder.name, f"{before}: {found.problem}"))
        for line, number in others.items():
            said = f"{counted(number, 'finished run')} kept as trained, with other settings"
            self.screen.print(f"note: {said}: {line} (--restart trains all runs again)")

    def expect(self, seconds: Sequence[float]) -> None:
        """Let an executor with a queue know how long each run takes."""
        priced = list(zip(self.missing.values(), seconds, strict=True))
        self.missing = {jobs.Train(run.config, each): run for run, each in priced}
        for run, each in priced:
            self.longest.setdefault(run.cell, each)

    def train(self, *, fail_fast: bool) -> None:
        """Keep all workers busy until nothing is missing."""
        failed_before = len(self.outcome.failures)
        self.dispatcher.add(self.missing)
        for job, answer in self.dispatcher.answers(choose=self.choose, each_turn=self.show):
            self.take(job, answer)
            if fail_fast and len(self.outcome.failures) > failed_before:
                self.dispatcher.stop()

    def choose(self, ready: list[jobs.Job]) -> jobs.Job:
        """Seed after seed, so that what is compared is there early; of a seed the longest run
        first, so that no core is idle at the end."""
        pace = self.pace()
        seconds = {job: self.guess(self.missing[job], pace) for job in ready}
        if any(each is None or each < FRESH_SECONDS for each in seconds.values()):
            code = min(self.missing[job].code for job in ready)
            ready = [job for job in ready if self.missing[job].code == code]

        def order(job: jobs.Job) -> tuple[int, float]:
            run = self.missing[job]
            return run.turn, -(seconds[job] or run.steps)

        job = min(ready, key=order)  # the first of equals
        self.begin(self.missing[job])
        return job

    def begin(self, run: _Run) -> None:
        """A run begins to train, as far as is known."""
        run.begun, run.fraction, run.left = time.monotonic(), 0.0, 1.0
        run.view = run.view or self.screen.view(run.folder.name, run.steps)

    def take(self, job: jobs.Job, answer: jobs.Answer) -> None:
        """Act on an answer to a training."""
        run = self.missing[job]
        if isinstance(answer, jobs.Begun):
            self.begin(run)
            return
        if run.view is not None and isinstance(answer, jobs.Stated):
            left = 1 - answer.moments[-1].step / run.steps
            if run.left == 1:
                run.begun, run.left = time.monotonic(), left
            run.fraction += run.left - left
            run.left, run.pace = left, answer.pace
            for moment in answer.moments:
                run.view.take(moment)
            return
        if run.view is not None:
            run.view.close()
            run.view = None
        match answer:
            case jobs.Trained(result, found):
                del self.missing[job]
                self.count(run, result, found=found)
                ended = f"diverged at {result.divergence}"
                if result.state == "completed":
                    split = "val" if "val" in result.scores else "test"
                    accuracy = result.scores[split]["running"].accuracy
                    ended = f"{split} {accuracy:.1%} in {result.wall_seconds:.1f} s"
                self.screen.plain(f"{self.outcome} {run.folder.name}: {ended}")
                if self.outcome.trained == 1:  # only now it is known what a run takes
                    self.require_space()
            case jobs.Stopped():
                pass
            case jobs.Failed(error, hopeless=True) if self.dispatcher.stopping:
                self.screen.print(error.what)
            case jobs.Failed(HeldError()) | jobs.Lost() if self.dispatcher.stopping:
                pass
            case jobs.Failed(error, hopeless=True):
                self.hopeless = error
                self.dispatcher.stop()
            case jobs.Failed(HeldError()):
                self.dispatcher.add([job], delay_seconds=HELD_SECONDS)
            case jobs.Failed(error):
                self.fail(job, error)
            case jobs.Lost(how):
                self.lost(job, how)
            case jobs.Begun() | jobs.Stated() | jobs.Said() | jobs.Found():
                raise AssertionError(f"no answer to a training: {answer}")
            case _:
                assert_never(answer)

    def fail(self, job: jobs.Job, error: BnbenchError) -> None:
        run = self.missing.pop(job)
        # A sweep's `--restart` is of all runs, which damage to one of them is no reason for.
        said = f"damaged: {error.what}" if isinstance(error, DamagedError) else str(error)
        self.outcome.failures.append((run.folder.name, said))
        self.screen.print(f"{self.outcome} {run.folder.name} failed: {error.what}")

    def lost(self, job: jobs.Job, how: str) -> None:
        """A worker has died while it trained a run, which is tried again or has failed."""
        run = self.missing[job]
        run.deaths += 1
        if run.deaths < ATTEMPTS:
            name = run.folder.name
            self.screen.print(f"warning: the worker of {name} {how}; the run goes on in another")
            self.dispatcher.add([job])
            return
        error = RunError(
            f"its worker {how}, {ATTEMPTS} times",
            do="look at its memory (data.batch_size, model.widths) and at its custom code",
        )
        texts = {"message": str(error), "traceback": str(error)}
        # Held by another sweep that has begun it in the meantime: then that sweep decides.
        with suppress(HeldError), run.folder.hold():
            run.folder.fail({"error": type(error).__name__, **texts, "of_the_machine": False})
        self.fail(job, error)

    def require_space(self) -> None:
        """Stop where the runs that are left do not fit on the disk."""
        try:
            forecast.require_space(self.new(), self.sizes, self.place)
        except StorageError as error:
            self.hopeless = error
            self.dispatcher.stop()

    def new(self) -> list[tuple[str, schema.RunConfig]]:
        """The runs that have not begun, each with its cell."""
        there = self.missing.values()
        return [(run.cell, run.config) for run in there if not run.folder.path.exists()]

    def count(self, run: _Run, result: store.Result, *, found: bool) -> None:
        self.outcome.found += found
        self.outcome.trained += not found
        self.outcome.diverged += result.state == "diverged"
        self.seconds += result.wall_seconds
        self.steps += run.steps
        self.longest[run.cell] = max(result.wall_seconds, self.longest.get(run.cell, 0.0))
        if run.cell not in self.sizes:
            self.sizes[run.cell] = run.folder.size()

    def pace(self) -> float | None:
        """Seconds of a step, in runs that are done, else in those that train; None: unknown."""
        if self.steps:
            return self.seconds / self.steps
        told = [each for each in self.missing.values() if each.tells()]
        steps = sum(each.fraction * each.steps for each in told)
        return sum(each.elapsed() for each in told) / steps if steps else None

    def guess(self, run: _Run, pace: float | None) -> float | None:
        """Seconds of a run, from others of its cell, else from what a step costs; None: unknown."""
        if run.cell in self.longest or pace is None:
            return self.longest.get(run.cell)
        return pace * run.steps

    def show(self) -> None:
        training = [run for run in self.missing.values() if run.view is not None]
        self.screen.advance(
            done=self.outcome.done,
            diverged=self.outcome.diverged,
            failed=len(self.outcome.failures),
            seconds_left=self.seconds_left(),
            busy=median([run.pace for run in training]) >= BUSY if training else False,
        )

    def seconds_left(self) -> float | None:
        """From what other runs took, and from the progress of those that train; None: unknown."""
        pace, left = self.pace(), list[tuple[int, float]]()
        for run in self.missing.values():
            whole = self.guess(run, pace)
            if run.tells():
                left.append((-1, run.elapsed() / run.fraction * run.left))
            elif whole is None:
                return None
            else:
                left.append((run.turn, max(0.0, whole - run.elapsed())))
        return forecast.makespan(left, self.dispatcher.limit)
