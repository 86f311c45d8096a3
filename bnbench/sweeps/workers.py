"""The executor of this machine: persistent worker processes, spawned and supervised.

Of the libraries, loky ends its whole pool when one worker dies, and pebble isolates the death but
can neither show a run while it trains nor ask it to commit and end. So: one pipe and one sentinel
for each process, and the standard library's `multiprocessing.connection.wait`.
"""

from __future__ import annotations

import atexit
import io
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from itertools import count
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TypeAlias

from bnbench import children, garbage
from bnbench.config.custom import code_of
from bnbench.errors import RunError
from bnbench.guard import tell_what_nobody_catches
from bnbench.runner.settings import Stop
from bnbench.store import ExperimentFolder
from bnbench.sweeps import jobs

BEAT_SECONDS = 1.0
"""How often a worker says that it is alive."""

SILENCE_SECONDS = 60.0
"""A worker that has sent nothing for this long does not respond and is killed: sixty beats."""

END_SECONDS = 5.0
"""How long idle workers have to end, all of them together, for what libraries do then."""

FAILED_STARTS = 5
"""This many deaths in a row of workers that had not started are not chance."""

Task: TypeAlias = tuple[jobs.Job, ExperimentFolder]
"""A job, and the folder of its experiment."""


class Signal(Enum):
    """What goes through the pipe besides jobs and answers."""

    READY = auto()  # the worker has imported what it needs
    BEAT = auto()  # the worker is alive
    STOP = auto()  # the run is to commit after its current step and to end
    END = auto()  # there are no more jobs


@dataclass(slots=True)
class _Worker:
    """`number`: from 0, the lowest that no other worker has; with several GPUs, which one it takes.
    `ran`: files of the user's own whose code it has run, which may have changed anything."""

    process: SpawnProcess
    connection: Connection
    number: int
    ran: frozenset[Path] = frozenset()
    job: jobs.Job | None = None
    ready: bool = False
    silent_seconds: float = 0.0

    def send(self, message: Task | Signal) -> None:
        with suppress(OSError):  # it has died: `answers` will say so
            self.connection.send(message)


class Workers:
    """An `Executor[Job, Answer]`. A worker is started when it is needed and kept for later jobs,
    but for those that do not run the user's code that it has run; `start` has all of them import
    torch at the same time.

    Workers train in the folder of the experiment itself, and take a run that a sibling experiment
    has finished over from there. `turn_to` says which, before the first of them is started.
    """

    queues = False

    def __init__(self, options: jobs.SweepOptions) -> None:
        self._options = options
        self._workers: list[_Worker] = []
        self._failed_starts = 0

    def turn_to(self, size: int, experiment: ExperimentFolder) -> None:
        """Train in this folder from now on, so many runs at a time."""
        self.size, self._experiment = size, experiment

    def start(self, jobs: int) -> None:
        while len(self._workers) < min(jobs, self.size):
            self._spawn()

    def submit(self, job: jobs.Job) -> None:
        """Start a job in a worker that has none, or in a new one."""
        code = frozenset(path for each in jobs.configs(job) for path in code_of(each))
        kept = [worker for worker in self._workers if worker.number < self.size]
        idle = [worker for worker in kept if worker.job is None]
        fitting = [worker for worker in idle if worker.ran <= code]
        if idle and not fitting and len(kept) >= self.size:
            self._dismiss(idle[0])
        worker = max(fitting, key=lambda each: len(each.ran)) if fitting else self._spawn()
        worker.ran |= code
        worker.job = job
        worker.silent_seconds = 0.0
        worker.send((job, self._experiment))

    def _spawn(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        taken = {worker.number for worker in self._workers}
        number = next(each for each in count() if each not in taken)
        arguments = (theirs, self._options, os.getpid(), number)
        process = context.Process(target=serve, args=arguments, name="bnbench worker")
        try:
            children.start(process)
        except OSError as error:
            raise RunError(
                f"a worker process cannot be started: {error.strerror}",
                do="free some memory, or use fewer of them with --workers",
            ) from error
        theirs.close()  # so that its end of the pipe closes with it
        self._workers.append(_Worker(process, ours, number))
        return self._workers[-1]

    def answers(self, seconds: float) -> list[tuple[jobs.Job, jobs.Answer]]:
        begun = time.monotonic()
        ends = [(worker.connection, worker.process.sentinel) for worker in self._workers]
        wait([end for both in ends for end in both], timeout=seconds)
        # At most what was asked for: if this process was suspended too, silence proves nothing.
        waited = min(time.monotonic() - begun, seconds)
        found: list[tuple[jobs.Job, jobs.Answer]] = []
        for worker in list(self._workers):
            gone = not worker.process.is_alive()  # asked before its last messages are read
            worker.silent_seconds += waited
            try:
                while worker.connection.poll():
                    message = worker.connection.recv()
                    worker.silent_seconds = 0.0
                    if message is Signal.READY:
                        worker.ready = True
                        self._failed_starts = 0
                    elif worker.job is not None and message is not Signal.BEAT:
                        found.append((worker.job, message))
                    if isinstance(message, jobs.End):
                        worker.job = None
            except (EOFError, OSError):
                gone = True
            if worker.job is not None and worker.silent_seconds > SILENCE_SECONDS:
                worker.process.kill()
                found += self._removed(worker, how="stopped responding")
            elif gone:
                found += self._removed(worker)
        return found

    def _removed(self, worker: _Worker, how: str = "") -> list[tuple[jobs.Job, jobs.Answer]]:
        """A worker has ended: its job is lost, if it had one."""
        self._end(worker)
        how = how or children.cause(worker.process.exitcode or 0)
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts == FAILED_STARTS:
                raise RunError(f"{FAILED_STARTS} workers in a row died at their start ({how})")
        lost = jobs.Lost(how, at_start=not worker.ready)
        return [] if worker.job is None else [(worker.job, lost)]

    def ask_to_stop(self) -> None:
        for worker in self._workers:
            worker.send(Signal.STOP)

    def close(self) -> None:
        self._dismiss(*self._workers)

    def _dismiss(self, *workers: _Worker) -> None:
        """End idle workers as processes end, which removes temporary folders; others at once."""
        for worker in workers:
            idle = worker.ready and worker.job is None
            worker.send(Signal.END) if idle else worker.process.kill()
        end = time.monotonic() + END_SECONDS
        for worker in workers:
            worker.process.join(max(0.0, end - time.monotonic()))
            worker.process.kill()
            self._end(worker)

    def _end(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.process.join()
        worker.connection.close()


# --- inside a worker ------------------------------------------------------------------------------


def serve(connection: Connection, options: jobs.SweepOptions, driver: int, number: int) -> None:
    """Do jobs that come through `connection` until the process `driver` closes it or ends."""
    # Ctrl-C and a scheduler's SIGTERM reach the whole group, but the driver asks us to commit.
    children.belong_to(driver)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch makes its threads
    send = partial(_send, connection, Lock())
    waiting: SimpleQueue[Task] = SimpleQueue()
    stop = Stop()
    Thread(target=_listen, args=(connection, waiting, stop), daemon=True).start()
    Thread(target=_beat, args=(send,), daemon=True).start()
    with passed_on(send):
        broken = None
        garbage.pause()
        try:
            from bnbench.runner.execution import execute  # noqa: F401  and with it torch
        except Exception as error:
            why = f"no worker can be started: {type(error).__name__}: {error}"
            broken = jobs.Failed(RunError(why), hopeless=True)
        garbage.resume()
        send(Signal.READY)
        while True:
            job, experiment = waiting.get()
            send(broken or jobs.perform(job, options, experiment, send, stop, number))


@contextmanager
def passed_on(send: Callable[[jobs.Said], None]) -> Iterator[None]:
    """Whatever is printed and warned inside, and what threads raise, is sent in lines."""
    lines = _Lines(send)
    with redirect_stdout(lines), redirect_stderr(lines):
        warnings.showwarning = lambda message, category, *_: send(
            jobs.Said(f"warning: {category.__name__}: {message}")
        )
        tell_what_nobody_catches(lambda line: send(jobs.Said(line)))
        yield


class _Lines(io.TextIOBase):
    """What is written is sent in lines."""

    def __init__(self, send: Callable[[jobs.Said], None]) -> None:
        self._send = send
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._send(jobs.Said(line))
        return len(text)


def _send(connection: Connection, lock: Lock, message: jobs.Answer | Signal) -> None:
    with lock:
        try:
            connection.send(message)
        except OSError:
            os._exit(1)  # the driver is gone


def _listen(connection: Connection, waiting: SimpleQueue[Task], stop: Stop) -> None:
    while True:
        try:
            message: Task | Signal = connection.recv()
        except (EOFError, OSError):
            # The driver is gone. The last checkpoint is intact; exiting releases the lock.
            os._exit(1)
        if message is Signal.END:
            # The rest of an interpreter's end takes torch 0.6 s, and only this private function
            # leaves it out. Here it is safe: the main thread waits for a job, which never comes.
            atexit._run_exitfuncs()
            os._exit(0)
        if isinstance(message, Signal):
            stop.exit_code = 130
        else:
            waiting.put(message)


def _beat(send: Callable[[Signal], None]) -> None:
    while True:
        time.sleep(BEAT_SECONDS)
        send(Signal.BEAT)
