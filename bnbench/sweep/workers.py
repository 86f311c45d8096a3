"""The executor of this machine: persistent worker processes, spawned and supervised.

Of the libraries, loky ends its whole pool when one worker dies, and pebble isolates the death but
can neither show a run while it trains nor ask it to commit and end. So: one pipe and one sentinel
for each process, and the standard library's `multiprocessing.connection.wait`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from bnbench.errors import RunError
from bnbench.store import ExperimentFolder
from bnbench.sweep.jobs import Answer, End, Job, Lost, SweepOptions
from bnbench.sweep.worker import FromWorker, Signal, ToWorker, serve

SILENCE_SECONDS = 60.0
"""A worker that has sent nothing for this long does not respond and is killed: sixty beats."""

FAILED_STARTS = 5
"""This many deaths in a row of workers that had not started are not chance."""


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    connection: Connection
    job: Job | None = None
    ready: bool = False
    silent_seconds: float = 0.0

    def read(self) -> list[FromWorker]:
        """What it has sent. Raises EOFError or OSError after its last message."""
        messages = []
        while self.connection.poll():
            messages.append(self.connection.recv())
        return messages

    def send(self, message: ToWorker) -> None:
        with suppress(OSError):  # it has died: `answers` will say so
            self.connection.send(message)


class Workers:
    """An `Executor[Job, Answer]`. A worker is started when it is needed and kept for later jobs.

    Workers train in the folder of the experiment itself, and take a run that a sibling experiment
    has finished over from there.
    """

    def __init__(
        self,
        size: int,
        options: SweepOptions,
        experiment: ExperimentFolder,
        siblings: Sequence[ExperimentFolder] = (),
        *,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        self.size = size
        self._arguments = (options, experiment, tuple(siblings), os.getpid())
        self._silence_seconds = silence_seconds
        self._workers: list[_Worker] = []
        self._failed_starts = 0

    def start(self, jobs: int) -> None:
        """Start workers, so that they import torch at the same time."""
        while len(self._workers) < min(jobs, self.size):
            self._spawn()

    def submit(self, job: Job) -> None:
        """Start a job in a worker that has none, or in a new one."""
        idle = [worker for worker in self._workers if worker.job is None]
        worker = idle[0] if idle else self._spawn()
        worker.job = job
        worker.silent_seconds = 0.0
        worker.send(job)

    def _spawn(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=serve, args=(theirs, *self._arguments), name="bnbench worker"
        )
        try:
            with _signals_blocked():
                process.start()
        except OSError as error:
            raise RunError(
                f"a worker process cannot be started: {error.strerror}",
                do="free some memory, or use fewer of them with --workers",
            ) from error
        theirs.close()  # so that its end of the pipe closes with it
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def answers(self, seconds: float) -> list[tuple[Job, Answer]]:
        """What has been answered, after waiting at most this long for the first answer."""
        begun = time.monotonic()
        ends = [(worker.connection, worker.process.sentinel) for worker in self._workers]
        wait([end for both in ends for end in both], timeout=seconds)
        # At most what was asked for: if this process was suspended too, silence proves nothing.
        waited = min(time.monotonic() - begun, seconds)
        found: list[tuple[Job, Answer]] = []
        for worker in list(self._workers):
            gone = not worker.process.is_alive()  # asked before its last messages are read
            worker.silent_seconds += waited
            try:
                for message in worker.read():
                    worker.silent_seconds = 0.0
                    found.extend(self._understood(worker, message))
            except (EOFError, OSError):
                gone = True
            if worker.job is not None and worker.silent_seconds > self._silence_seconds:
                worker.process.kill()
                found.extend(self._removed(worker, how="stopped responding"))
            elif gone:
                found.extend(self._removed(worker))
        return found

    def _understood(self, worker: _Worker, message: FromWorker) -> list[tuple[Job, Answer]]:
        job = worker.job
        if message is Signal.READY:
            worker.ready = True
            self._failed_starts = 0
        if isinstance(message, End):
            worker.job = None
        return [] if job is None or isinstance(message, Signal) else [(job, message)]

    def _removed(self, worker: _Worker, how: str | None = None) -> list[tuple[Job, Answer]]:
        """A worker has ended: its job is lost, if it had one."""
        self._workers.remove(worker)
        worker.process.join()
        worker.connection.close()
        how = how or _cause(worker.process.exitcode)
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts == FAILED_STARTS:
                raise RunError(f"{FAILED_STARTS} workers in a row died at their start ({how})")
        return [] if worker.job is None else [(worker.job, Lost(how, at_start=not worker.ready))]

    def ask_to_stop(self) -> None:
        """Ask all runs to commit after their current step and to end."""
        for worker in self._workers:
            worker.send(Signal.STOP)

    def close(self) -> None:
        """End all workers now. What they have not committed is lost; the disk stays consistent."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.connection.close()
        self._workers.clear()


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block SIGINT, SIGTERM and SIGHUP, which a process that is spawned inside inherits for good;
    this process gets them afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it would unblock them while it starts
    blocked = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cause(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"ended with exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    hint = ": often the system was out of memory" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"
