"""What a task of a cluster does: a sweep of its share of the runs, with local workers.

It ends at a signal, and queues up again where that says that its time is up.
"""

from __future__ import annotations

import signal
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import accumulate
from types import FrameType
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console

from bnbench.config import identity, schema
from bnbench.errors import BnbenchError, ClusterError, Fault, Interrupted
from bnbench.runner.settings import Stop
from bnbench.sinks.terminal import Screen
from bnbench.store import ExperimentFolder, encode_records
from bnbench.sweeps import jobs, schedule, workers
from bnbench.sweeps.slurm.cluster import gone, job_of
from bnbench.wording import counted, printable

FOLDER = "slurm"
"""Below the experiment's folder: which task has which runs, what was submitted, how it ended."""

ENVIRONMENT = f"{FOLDER}/environment.json"
"""What the first run was trained with, or the first task: the others need the same."""

SUBMITTING_SECONDS = 90.0
"""How long another command may take to submit: longer than sbatch gets."""

COMMIT_SECONDS = {signal.SIGTERM: 20.0, signal.SIGUSR1: 45.0, signal.SIGUSR2: 45.0}
"""How long runs have to commit. SLURM kills them 30 s after SIGTERM (KillWait, unless configured),
and after the others at the time limit, `cluster.SIGNAL_SECONDS` later."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a task has ended that leaves runs to others, and what to do. `told`: somebody wanted it
    to end, and its runs have committed; else none of them could be trained."""

    what: str
    do: str | None = None
    told: bool = False


@dataclass(frozen=True, slots=True)
class Share:
    """Trains these runs when it is called, with so many workers or, on a GPU, with as many as fit.
    The manifests record the `command` of its driver."""

    configs: tuple[schema.RunConfig, ...]
    workers: int
    experiment: ExperimentFolder
    options: jobs.SweepOptions
    command: tuple[str, ...]

    def __call__(self) -> None:
        """Train what is missing of them. Told that the time is up, commit, and queue up again."""
        import submitit

        sys.argv = list(self.command)
        number = submitit.JobEnvironment().job_id
        self.experiment.replace(FOLDER, f"{number}_end.json", {})  # of an earlier attempt
        stop, before, told = Stop(), self._commits(), list[int]()

        def handle(number: int, _: FrameType | None) -> None:
            told.append(number)
            stop.commit_seconds = COMMIT_SECONDS[signal.Signals(number)]
            stop.exit_code = 143

        earlier = {each: signal.signal(each, handle) for each in COMMIT_SECONDS}
        try:
            self._train(stop)
        except Interrupted:
            queue_up = earlier[signal.Signals(told[0])]
            if told[0] == signal.SIGTERM or not callable(queue_up):
                name = signal.Signals(told[0]).name
                self._leave(number, Ended(f"told to end by {name}", told=True))
            elif self._commits() == before:
                what = f"task {number}: its time was up before any run had saved anything"
                self._leave(number, Ended(what, "ask for more with --slurm time=MINUTES"))
            else:
                queue_up(told[0], None)  # by submitit; it does not return
        except BnbenchError as error:
            self._leave(number, Ended(error.what, error.do))
            raise

    def checkpoint(self) -> Any:
        """What submitit is to call when the task has its turn again."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)

    def _train(self, stop: Stop) -> None:
        screen = Screen(Console(markup=False, emoji=False), runs=len(self.configs))
        local = workers.Workers(self.options)
        local.turn_to(self.workers, self.experiment)
        with closing(local):
            schedule.sweep(
                self.configs, self.experiment, local, screen, stop, self.options, _faults
            )

    def _commits(self) -> list[tuple[int | None, ...]]:
        """Changes when one of the runs commits or ends."""
        folders = self.experiment.folders_of(map(identity.run_id, self.configs))
        return [folder.committed() for folder in folders]

    def _leave(self, number: str, ended: Ended) -> None:
        record = encode_records([asdict(ended)])
        self.experiment.keep({f"{FOLDER}/{number}_end.json": record})


def shares(trains: Sequence[jobs.Train], number: int) -> list[list[jobs.Train]]:
    """Divide runs into at most so many tasks with about the same work, in their order: tasks that
    wait in a queue are those of the last seeds. An unknown run counts a second."""
    found = defaultdict[int, list[jobs.Train]](list)
    work = [train.seconds or 1.0 for train in trains]
    whole = sum(work)
    for train, seconds, end in zip(trains, work, accumulate(work), strict=True):
        place = int((end - seconds / 2) / whole * number)
        found[min(place, number - 1)].append(train)
    return list(found.values())


@contextmanager
def submitting(experiment: ExperimentFolder) -> Iterator[None]:
    """No other command submits meanwhile: what one has not recorded yet looks like a job that
    nobody knows. Raises ClusterError."""
    from filelock import FileLock, Timeout  # slow to import

    try:
        with FileLock(experiment.path / FOLDER / "submitting.lock", timeout=SUBMITTING_SECONDS):
            yield
    except Timeout:
        what = f"another command submits jobs of {experiment.name}, and does not end"
        raise ClusterError(what, do="end it, then the same command goes on") from None


def submitted(experiment: ExperimentFolder) -> dict[str, dict[str, list[str]]]:
    """What was submitted together: hashes of the runs of each task, by the file that says so; none
    where somebody has written something else."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, content in experiment.kept(f"{FOLDER}/tasks_*.json").items():
        found[name] = {}
        with suppress(ValueError):
            found[name] = TypeAdapter(dict[str, list[str]]).validate_json(content)
    return found


def not_begun(experiment: ExperimentFolder) -> list[str]:
    """Sentences on the runs that were submitted and have no folder yet."""
    begun = {run.name.rpartition("_")[2] for run in experiment.runs()}
    found, arrays = [], submitted(experiment).values()
    waiting = [number for tasks in arrays for number, runs in tasks.items() if {*runs} - begun]
    over = gone(waiting, experiment.path.absolute() / FOLDER) if waiting else set[str]()
    for tasks in arrays:
        for past, how in (
            (False, "submitted, not begun"),
            (True, "no longer queued; the same sweep submits them again"),
        ):
            runs = (runs for number, runs in tasks.items() if (number in over) == past)
            if left := set[str]().union(*runs) - begun:
                job = printable(job_of(next(iter(tasks))))
                found.append(f"{counted(len(left), 'run')} of job {job}: {how}")
    return found


def ending(experiment: ExperimentFolder, number: str) -> Ended | None:
    """How a task has ended; None if it was killed, or has trained its runs."""
    name = f"{FOLDER}/{number}_end.json"
    with suppress(ValueError):
        return TypeAdapter(Ended).validate_json(experiment.kept(name).get(name, b""))
    return None


def _faults(refused: Iterable[jobs.Refused]) -> list[Fault]:
    """The driver has found none: where another machine does, without places in a file."""
    return [Fault(f"setup {config.setup}", obstacle.message) for config, obstacle in refused]
