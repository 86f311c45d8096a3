"""The inside of a worker: one process that does one job after the other, and its tie to the driver.

Torch is imported once, here. The worker outlives nothing: when the driver is gone, so is it.
"""

from __future__ import annotations

import ctypes
import io
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC, EROFS
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeAlias, assert_never

from bnbench.errors import (
    BnbenchError,
    DataError,
    Interrupted,
    RunError,
    StorageError,
    UsageError,
)
from bnbench.events import Event
from bnbench.report.pictures import probe_pictures
from bnbench.runner import Settings, Stop
from bnbench.store import ExperimentFolder
from bnbench.sweep.jobs import (
    Answer,
    End,
    Failed,
    Fit,
    Fits,
    Job,
    Measure,
    Measured,
    Rehearse,
    Rehearsed,
    Said,
    Stated,
    Stopped,
    Terms,
    Train,
    Trained,
)

BEAT_SECONDS = 1.0
"""How often a worker says that it is alive."""

SHOWN_SECONDS = 0.2
"""How often a worker sends what its run has stated: the screen shows no more."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker has imported what it needs."""


@dataclass(frozen=True, slots=True)
class Beat:
    """The worker is alive."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """The worker cannot do any job."""

    why: str


@dataclass(frozen=True, slots=True)
class CommitAndEnd:
    """Asks the worker's run to commit after its step and to end."""


FromWorker: TypeAlias = Ready | Beat | Unusable | Answer
ToWorker: TypeAlias = Job | CommitAndEnd


def perform(job: Job, terms: Terms, send: Callable[[Answer], None], stop: Stop) -> End:
    """Do a job. `send` gets what there is to see until then; whatever goes wrong is an answer."""
    from bnbench.runner import execute, fitting, measure, rehearse

    settings = Settings(
        device=terms.device,
        threads=terms.threads,
        accept_changes=terms.accept_changes,
        siblings=terms.siblings,
        view=lambda *_: _Forwarded(send),
        draw=probe_pictures,
        announce=lambda line: send(Said(line)),
        stop=stop,
    )
    try:
        match job:
            case Train(config):
                result = execute(config, ExperimentFolder(terms.experiment), settings)
                return Trained(result.record, result.found)
            case Rehearse(config):
                rehearse(config, settings)
                return Rehearsed()
            case Measure(config):
                return Measured(measure(config, settings))
            case Fit(config):
                return Fits(fitting(config, settings))
            case _:
                assert_never(job)
    except Interrupted:
        return Stopped()
    except BnbenchError as error:
        return Failed(error, _hopeless(error))
    except Exception as error:
        return Failed(RunError(f"{type(error).__name__}: {error}"), hopeless=False)


def _hopeless(error: BnbenchError) -> bool:
    """Whether every other run would fail in the same way."""
    cause = error.__cause__
    full = isinstance(cause, OSError) and cause.errno in (ENOSPC, EDQUOT, EROFS)
    return isinstance(error, DataError | UsageError) or (isinstance(error, StorageError) and full)


class _Forwarded:
    """A view that sends what it is shown, as often as a screen needs it."""

    def __init__(self, send: Callable[[Answer], None]) -> None:
        self._send = send
        self._moments: list[list[Event]] = []
        self._sent = time.monotonic()

    def take(self, events: list[Event]) -> None:
        """Events of one moment."""
        self._moments.append(events)
        if time.monotonic() - self._sent >= SHOWN_SECONDS:
            self.close()

    def close(self) -> None:
        """Send what has not been sent."""
        if self._moments:
            self._send(Stated(self._moments))
        self._moments = []
        self._sent = time.monotonic()


def serve(connection: Connection, terms: Terms, driver: int) -> None:
    """Do jobs that come through `connection` until the process `driver` closes it or dies."""
    _leave_signals_to_the_driver()
    _die_with(driver)
    os.environ.setdefault("OMP_NUM_THREADS", str(terms.threads))  # before torch makes its threads
    link = _Link(connection)
    jobs: SimpleQueue[Job] = SimpleQueue()
    stop = Stop()
    Thread(target=_listen, args=(connection, jobs, stop), daemon=True).start()
    Thread(target=_beat, args=(link,), daemon=True).start()
    spoken = _Spoken(link)
    with redirect_stdout(spoken), redirect_stderr(spoken):
        warnings.showwarning = lambda message, category, *_: link.send(
            Said(f"warning: {category.__name__}: {message}")
        )
        try:
            from bnbench.runner import execute  # noqa: F401  and with it torch
        except Exception as error:
            link.send(Unusable(f"{type(error).__name__}: {error}"))
            return
        link.send(Ready())
        while True:
            link.send(perform(jobs.get(), terms, link.send, stop))


class _Link:
    """The way to the driver, for several threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = Lock()

    def send(self, message: FromWorker) -> None:
        with self._lock:
            try:
                self._connection.send(message)
            except OSError:
                os._exit(1)  # the driver is gone


class _Spoken(io.TextIOBase):
    """Standard output of a worker: what a user's own layer prints, line by line."""

    def __init__(self, link: _Link) -> None:
        self._link = link
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._link.send(Said(line))
        return len(text)


def _listen(connection: Connection, jobs: SimpleQueue[Job], stop: Stop) -> None:
    while True:
        try:
            message: ToWorker = connection.recv()
        except (EOFError, OSError):
            # Nobody wants the result. What is committed is whole, and the lock goes with us.
            os._exit(1)
        match message:
            case CommitAndEnd():
                stop.exit_code = 130
            case _:
                jobs.put(message)


def _beat(link: _Link) -> None:
    while True:
        time.sleep(BEAT_SECONDS)
        link.send(Beat())


def _leave_signals_to_the_driver() -> None:
    """Ctrl-C and a scheduler's SIGTERM reach the whole group: the driver asks us to commit."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _die_with(driver: int) -> None:
    """Linux: be killed when the driver dies, even while stopped or deep in native code."""
    if sys.platform != "linux":
        return
    PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
    library: Any = ctypes.CDLL(None)
    library.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != driver:
        os._exit(1)  # it died before we asked
