"""The executor of a SLURM cluster, through submitit: job arrays on a disk that all machines share.

A task of an array trains its share of the runs as a sweep of its own, with local workers, and sends
nothing: the driver reads the run folders, as everybody does. So the driver may leave; the next one
finds in `slurm/`, below the experiment's folder, which task has which runs.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bnbench.config import identity, schema
from bnbench.errors import BnbenchError, ClusterError, DataError, HeldError, RunError, StorageError
from bnbench.sinks.metrics import to_moments
from bnbench.sinks.terminal import duration
from bnbench.store import ExperimentFolder, Record, RunFolder
from bnbench.sweeps import forecast, jobs, workers
from bnbench.sweeps.slurm.cluster import Cluster, job_of
from bnbench.sweeps.slurm.share import (
    ENVIRONMENT,
    FOLDER,
    Share,
    ending,
    shares,
    submitted,
    submitting,
)
from bnbench.wording import counted, printable

TIME_FACTOR = 3.0
"""How much of what a share should take is asked for: machines differ. At the limit it goes on."""

LOOK_SECONDS = 1.0
"""How often to look at the run folders, and at most a twentieth of the time."""

USUAL = {"", "None", "Priority", "Resources", "JobArrayTaskLimit"}
"""Why tasks wait that will have their turn."""

FRUITLESS = 3
"""So many lost tasks in a row that have trained nothing are not chance."""


@dataclass(slots=True)
class _Task:
    """A task that waits or runs. `left`: hashes of its runs that have not ended."""

    id: str
    left: set[str]
    absent: int = 0  # so often in a row the scheduler did not know it


class Slurm:
    """An `Executor[Job, Answer]` with a queue: trainings wait there together. What is to be found
    out before is done by one worker of this machine, which people share.

    `size`: how many runs are trained at a time, if no task has to wait; at first, of one task.
    """

    queues = True

    def __init__(
        self,
        cluster: Cluster,
        options: jobs.SweepOptions,
        experiment: ExperimentFolder,
        say: Callable[[str], None],
    ) -> None:
        self.size = cluster.workers
        self._cluster, self._options, self._say = cluster, options, say
        self._experiment, self._folder = experiment, experiment.path.absolute() / FOLDER
        self._here = workers.Workers(options)
        self._here.turn_to(1, experiment)
        self._asked: deque[jobs.Job] = deque()
        self._waiting: list[jobs.Train] = []
        self._trains: dict[str, jobs.Train] = {}  # what has no answer yet, by the run's hash
        self._before: dict[str, list[Record]] = {}  # its latest events when it was submitted
        self._steps: dict[str, int] = {}  # of runs that have begun: the last that was answered
        self._tasks: dict[str, _Task] = {}
        self._stopped = False
        self._lost_tasks = 0
        self._look_at = self._ask_at = 0.0
        self._noted: set[str] = set()
        if self._folder.exists():
            with submitting(self._experiment):
                self._find_tasks()

    def start(self, jobs: int) -> None:
        self._here.start(min(jobs, 1))

    def submit(self, job: jobs.Job) -> None:
        if isinstance(job, jobs.Train):
            self._waiting.append(job)
        else:
            self._asked.append(job)
            if len(self._asked) == 1:
                self._here.submit(job)

    def answers(self, seconds: float) -> list[tuple[jobs.Job, jobs.Answer]]:
        found = self._here.answers(seconds)
        if any(isinstance(answer, jobs.End) for _, answer in found):
            self._asked.popleft()
            if self._asked:
                self._here.submit(self._asked[0])
        if self._waiting and not self._stopped:
            found += self._submitted()
        if self._trains and time.monotonic() >= self._look_at:
            begun = time.monotonic()
            found += self._looked()
            ended = time.monotonic()
            self._look_at = ended + max(LOOK_SECONDS, 20 * (ended - begun))
        return found

    def ask_to_stop(self) -> None:
        """Take what waits out of the queue; what runs gets a SIGTERM, and SLURM's KillWait."""
        self._stopped = True
        self._look_at = self._ask_at = 0.0
        try:
            self._cluster.cancel(self._tasks)
        except BnbenchError as error:
            self._say(f"warning: the tasks may go on: {error.what}")

    def close(self) -> None:
        """End what this machine does. Tasks go on, as they do where the driver is killed."""
        self._here.close()

    def _submitted(self) -> list[tuple[jobs.Job, jobs.Answer]]:
        """Have all that waits trained, but for what a task of an earlier driver has."""
        names = [identity.run_id(job.config) for job in self._waiting]
        for job, folder in zip(self._waiting, self._experiment.folders_of(names), strict=True):
            self._trains[_hash(job.config)] = job
            self._before[_hash(job.config)] = folder.latest()
        there = set[str]().union(*(task.left for task in self._tasks.values()))
        new = [job for job in self._waiting if _hash(job.config) not in there]
        self._waiting.clear()
        if new:
            with submitting(self._experiment):
                self._say(self._submit(new))
        if not self._options.detach:
            return []
        answered: list[tuple[jobs.Job, jobs.Answer]]
        answered = [(job, jobs.Stopped()) for job in self._trains.values()]
        self._trains.clear()
        self._note(self._cluster.active(self._tasks, self._folder))
        self._say("they go on without this command; the same command again looks after them")
        return answered

    def _submit(self, new: Sequence[jobs.Train]) -> str:
        """Submit tasks for these; a sentence that says so."""
        self._clear()
        for folder in self._experiment.folders_of(identity.run_id(job.config) for job in new):
            if folder.error() is not None:
                with suppress(HeldError), folder.hold():
                    folder.forget_error()
        each = self._cluster.workers
        wanted = [job.seconds for job in new]
        divided = shares(new, forecast.tasks(wanted, each, self._options.workers))
        seconds = max(sum(job.seconds for job in some) for some in divided) / each
        ids = self._cluster.submit(
            list(map(self._share, divided)),
            self._folder,
            f"bnbench-{self._experiment.name}",
            round(TIME_FACTOR * seconds / 60) + 10,
            forecast.MOST_TASKS if self._options.workers == "auto" else int(self._options.workers),
        )
        for number, some in zip(ids, divided, strict=True):
            self._tasks[number] = _Task(number, {_hash(job.config) for job in some})
        self.size = each * len(self._tasks)
        record = {number: sorted(self._tasks[number].left) for number in ids}
        name = f"{FOLDER}/tasks_{job_of(ids[0])}.json"
        self._experiment.keep({name: json.dumps(record).encode()})
        about = f", about {duration(seconds)} each" if seconds else ""
        tasks = f"{counted(len(ids), 'task')}{about}"
        return f"{counted(len(new), 'run')} submitted as job {job_of(ids[0])}: {tasks}"

    def _share(self, some: Sequence[jobs.Train]) -> Share:
        """A task that trains these."""
        options = replace(
            self._options, workers="auto", on="local", slurm=(), detach=False,
            restart=False, retry_failed=False, fail_fast=False, environment=ENVIRONMENT,
        )  # fmt: skip
        configs, command = tuple(job.config for job in some), tuple(sys.argv)
        experiment = self._experiment.absolute()
        return Share(configs, self._cluster.workers, experiment, options, command)

    def _find_tasks(self) -> None:
        """Look for tasks that an earlier driver has submitted and that have not ended."""
        tasks = {
            number: _Task(number, set(runs))
            for array in submitted(self._experiment).values()
            for number, runs in array.items()
        }
        active = self._cluster.active(tasks, self._folder)
        unknown = sorted(set(map(job_of, active or ())) - set(map(job_of, tasks)))
        if unknown:  # nobody knows which runs they have
            self._cluster.cancel(unknown)
            for each in unknown:
                self._say(f"note: job {each} is cancelled: its command ended while it submitted it")
        for number, task in tasks.items():
            if active is None or number in active:
                self._tasks[number] = task
            elif (ended := ending(self._experiment, number)) is not None:
                self._say(f"note: task {number} has ended: {ended.what}")
        if self._tasks:
            self._say(f"{counted(len(self._tasks), 'task')} of an earlier command still there")
            self.size *= len(self._tasks)

    def _clear(self) -> None:
        """Remove what is left of arrays that have ended, and have the next tasks work as the first
        run has, or the first of them if there is none."""
        for name, tasks in submitted(self._experiment).items():
            if not self._tasks.keys() & tasks.keys():
                for array in {job_of(number) for number in tasks}:
                    self._experiment.replace(FOLDER, f"{array}_*", {})
                self._experiment.replace(FOLDER, name.removeprefix(f"{FOLDER}/"), {})
        if not self._tasks:
            from bnbench.runner import provenance  # imports torch

            first = provenance.first_environment(self._experiment.runs())
            name = Path(ENVIRONMENT).name
            known = json.dumps(provenance.environment() | first).encode()
            kept = {name: known} if first else {}
            self._experiment.replace(FOLDER, name, kept)

    def _looked(self) -> list[tuple[jobs.Train, jobs.Answer]]:
        """What the folders say of the runs that are not answered, and what has become of tasks."""
        gone = self._gone()  # before the folders are read: what a task has left is there by then
        found: list[tuple[jobs.Train, jobs.Answer]] = []
        names = {each: identity.run_id(job.config) for each, job in self._trains.items()}
        folders = self._experiment.folders_of(names.values())
        for run, folder in zip(names, folders, strict=True):
            for answer in self._seen(run, folder):
                found.append((self._trains[run], answer))
        for run in [_hash(job.config) for job, answer in found if isinstance(answer, jobs.End)]:
            del self._trains[run]
            for task in self._tasks.values():
                task.left.discard(run)
        for task in gone:
            found += self._ended(task)
        return found

    def _seen(self, run: str, folder: RunFolder) -> Iterable[jobs.Answer]:
        """What is new of a run."""
        if not folder.path.exists():
            return
        try:
            result, error = folder.result(), folder.error()
            latest = folder.latest()
        except StorageError as damage:
            yield jobs.failed(damage)
            return
        if result is not None:
            yield jobs.Trained(result, found=False)
            return
        if error is not None:
            yield _failed(error)
            return
        if latest == self._before[run]:
            return
        if run not in self._steps:
            self._steps[run] = 0
            self._lost_tasks = 0
            yield jobs.Begun()
        moments = [each for each in to_moments(latest) if each.step > self._steps[run]]
        if moments:
            self._steps[run] = moments[-1].step
            yield jobs.Stated(moments)

    def _gone(self) -> list[_Task]:
        """Tasks that have ended, which the scheduler is asked for now and then."""
        if time.monotonic() < self._ask_at or not self._tasks:
            return []
        active = self._cluster.active(self._tasks, self._folder)
        self._ask_at = time.monotonic() + (1.0 if self._stopped else self._cluster.asks_seconds)
        self._note(active)
        if active is None:
            return []
        gone = []
        for number, task in self._tasks.items():
            task.absent = 0 if number in active else task.absent + 1
            # Twice: what it has written last may take a while to be seen here.
            if task.absent > 1 or (task.absent and (self._stopped or not task.left)):
                gone.append(task)
        return gone

    def _note(self, active: Mapping[str, str] | None) -> None:
        """Say, once, that the scheduler does not answer, or why tasks wait where waiting may not
        help."""
        notes = {f"tasks wait: {printable(why)}" for why in {*(active or {}).values()} - USUAL}
        if active is None:
            notes = {"SLURM does not answer; tasks go on, and it is asked again"}
        for note in sorted(notes - self._noted):
            self._say(f"note: {note}")
        self._noted |= notes

    def _ended(self, task: _Task) -> list[tuple[jobs.Train, jobs.Answer]]:
        """Answers for what a task has left undone; what it has not begun is submitted again."""
        del self._tasks[task.id]
        if task.left:
            self._take_back(task.id)
        left = {run: self._trains.pop(run) for run in sorted(task.left & self._trains.keys())}
        if self._stopped or not left:
            return [(job, jobs.Stopped()) for job in left.values()]
        ended = ending(self._experiment, task.id)
        if ended is not None and not ended.told:
            failed = jobs.Failed(ClusterError(ended.what, do=ended.do), hopeless=True)
            return [(job, failed) for job in left.values()]
        if ended is not None:
            self._say(f"warning: task {task.id} was {ended.what}: its runs queue up again")
            self._waiting += left.values()
            return []
        begun = {run for run in left if run in self._steps}
        self._lost_tasks += not begun
        log = self._experiment.path / FOLDER / f"{task.id}_0_log.err"
        if self._lost_tasks == FRUITLESS:
            raise ClusterError(
                f"{FRUITLESS} tasks in a row ended before they trained anything",
                do=f"look at {log}",
            )
        self._waiting += [job for run, job in left.items() if run not in begun]
        for run in begun:
            del self._steps[run]
        lost = jobs.Lost(f"was lost with task {task.id} ({log})", at_start=False)
        return [(left[run], lost) for run in begun]

    def _take_back(self, number: str) -> None:
        """Record that a task has no runs any more: none of them is still to begin there."""
        for name, tasks in submitted(self._experiment).items():
            if number in tasks:
                self._experiment.keep({name: json.dumps(tasks | {number: []}).encode()})


def _hash(config: schema.RunConfig) -> str:
    """What the name of a run ends with, whatever its setup is called."""
    return identity.run_id(config).rpartition("_")[2]


def _failed(error: Mapping[str, Any]) -> jobs.Failed:
    """What a run's folder says about its failure, as an answer."""
    kind = DataError if error.get("error") == "DataError" else RunError
    return jobs.Failed(kind(str(error.get("message"))), hopeless=kind is DataError)
