"""Executors for tests: one in this process, where a test can reach inside; one that answers as a
test says; one on another disk."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from bnbench.config import schema
from bnbench.errors import Fault
from bnbench.runner.settings import Stop
from bnbench.sinks.terminal import Screen
from bnbench.store import ExperimentFolder
from bnbench.sweeps import schedule, studies
from bnbench.sweeps.jobs import (
    Answer,
    Check,
    Executor,
    Found,
    Job,
    Lost,
    Refused,
    Stopped,
    SweepOptions,
    SweepOutcome,
    Train,
    perform,
)
from bnbench.sweeps.shipping import Reply, Sent, Shipment, perform_shipment
from bnbench.sweeps.workers import Workers
from tests.processes import started

Behaviour = Callable[[Job], list[Answer]]


def faults_of(refused: Iterable[Refused]) -> list[Fault]:
    """As a plan finds them that knows no file."""
    return [Fault(f"setup {config.setup}", obstacle.message) for config, obstacle in refused]


def sweep(
    runs: Sequence[schema.RunConfig],
    experiment: ExperimentFolder,
    executor: Executor[Job, Answer],
    screen: Screen,
    stop: Stop,
    **options: Any,
) -> SweepOutcome:
    """Sweep runs that are of no file."""
    chosen = SweepOptions(**options)
    if chosen.restart:
        studies.throw_away(runs, experiment, screen.print)
    return schedule.sweep(runs, experiment, executor, screen, stop, chosen, faults_of)


class InProcess:
    """Does one job at a time, here, with the code that a worker runs."""

    size = 1
    queues = False

    def __init__(self, options: SweepOptions) -> None:
        self._options = options
        self._stop = Stop()
        self._submitted: list[Job] = []

    def turn_to(self, _size: int, experiment: ExperimentFolder) -> None:
        """Train there from now on."""
        self._experiment = experiment

    def start(self, jobs: int) -> None:
        """There is nothing to start."""

    def submit(self, job: Job) -> None:
        """It waits for `answers`."""
        self._submitted.append(job)

    def answers(self, seconds: float) -> list[tuple[Job, Answer]]:
        """Does the job that was submitted."""
        del seconds
        if not self._submitted:
            return []
        job = self._submitted.pop()
        said: list[Answer] = []
        end = perform(job, self._options, self._experiment, said.append, self._stop)
        return [(job, answer) for answer in (*said, end)]

    def ask_to_stop(self) -> None:
        """The next run ends after its first step."""
        self._stop.exit_code = 130

    def close(self) -> None:
        """Nothing is held."""


def in_process(experiment: ExperimentFolder) -> InProcess:
    """One that trains in this folder."""
    executor = InProcess(SweepOptions())
    executor.turn_to(1, experiment)
    return executor


def workers_in(experiment: ExperimentFolder, size: int = 1) -> Workers:
    """Worker processes that train in this folder."""
    workers = Workers(SweepOptions())
    workers.turn_to(size, experiment)
    return workers


class Scripted:
    """An executor that answers as a test says, and remembers what it was given.

    `checks`: whether the test answers for networks, too; else all can train.
    """

    queues = False

    def __init__(
        self,
        experiment: ExperimentFolder,
        behaviour: Behaviour,
        size: int = 1,
        *,
        checks: bool = False,
    ) -> None:
        self.size = size
        self._checks = checks
        self.given: list[schema.RunConfig] = []
        self.stopped = False
        self.started = 0
        self._experiment = experiment
        self._behaviour = behaviour
        self._now: list[Job] = []

    @property
    def busy(self) -> int:
        return len(self._now)

    def start(self, jobs: int) -> None:
        self.started = jobs

    def submit(self, job: Job) -> None:
        assert self.busy < self.size
        if isinstance(job, Train):
            self.given.append(job.config)
        self._now.append(job)

    def answers(self, _: float) -> list[tuple[Job, Answer]]:
        """The oldest job's answers; a job without any stays as it is until the sweep stops."""
        for job in self._now:
            checked = isinstance(job, Check) and not self._checks
            answers: list[Answer] = [Found(())] if checked else self._behaviour(job)
            if not answers and self.stopped:
                answers = [Stopped()]
            if answers:
                self._now.remove(job)
                return [(job, answer) for answer in answers]
        return []

    def ask_to_stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        """Nothing is held."""


class Elsewhere:
    """Does each shipment in a process of its own, which begins in an empty folder and is told
    nothing but the shipment, through a pipe."""

    queues = False

    def __init__(self, size: int = 1, *, save_seconds: float = 30.0) -> None:
        self.size = size
        self.shipments: list[Shipment] = []
        self.processes: dict[Shipment, subprocess.Popen[bytes]] = {}
        self._started = ExitStack()
        self._save_seconds = save_seconds
        self._replies: SimpleQueue[tuple[Shipment, Reply]] = SimpleQueue()

    def start(self, jobs: int) -> None:
        """Each job starts its own process."""

    def submit(self, shipment: Shipment) -> None:
        """Start a process, and a thread that reads its replies."""
        folder = tempfile.TemporaryDirectory()
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "OMP_NUM_THREADS": "1",
            "HOME": folder.name,
        }
        command = (sys.executable, "-c", "from tests.executors import work; work()")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": False}
        process = self._started.enter_context(
            started(*command, cwd=folder.name, env=environment, **pipes)
        )
        self.shipments.append(shipment)
        self.processes[shipment] = process
        assert process.stdin is not None
        pickle.dump((shipment, self._save_seconds), process.stdin)
        process.stdin.flush()
        Thread(target=self._read, args=(shipment, process, folder), daemon=True).start()

    def _read(
        self,
        shipment: Shipment,
        process: subprocess.Popen[bytes],
        folder: tempfile.TemporaryDirectory[str],
    ) -> None:
        reply: Reply | None = None
        assert process.stdin is not None
        assert process.stdout is not None
        with folder, process.stdin, process.stdout:
            try:
                while not (isinstance(reply, Sent) and reply.end):
                    reply = pickle.load(process.stdout)
                    self._replies.put((shipment, reply))
            except (EOFError, pickle.UnpicklingError):
                how = f"ended with exit code {process.wait()}"
                self._replies.put((shipment, Lost(how, at_start=False)))
        process.wait()

    def answers(self, seconds: float) -> list[tuple[Shipment, Reply]]:
        """The next reply of any of them."""
        try:
            return [self._replies.get(timeout=seconds)]
        except Empty:
            return []

    def ask_to_stop(self) -> None:
        """A byte more asks a process."""
        for process in self.processes.values():
            if process.poll() is None and process.stdin is not None:
                process.stdin.write(b"!")
                process.stdin.flush()

    def close(self) -> None:
        """Kill them."""
        self._started.close()


def work() -> None:
    """The inside of such a process."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what is printed is no reply
    stop = Stop()
    shipment, save_seconds = pickle.load(sys.stdin.buffer)

    def listen() -> None:
        if sys.stdin.buffer.read(1):
            stop.exit_code = 130

    def send(reply: Answer | Sent) -> None:
        pickle.dump(reply, replies)
        replies.flush()

    Thread(target=listen, daemon=True).start()
    send(perform_shipment(shipment, SweepOptions(), send, stop, save_seconds=save_seconds))
    os._exit(0)  # without waiting for the thread that listens
