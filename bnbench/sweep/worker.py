"""The inside of a worker: a process that does one job after the other, and its pipe to the driver.

Torch is imported once, here. When the driver ends, the worker ends.
"""

from __future__ import annotations

import ctypes
import io
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeAlias, assert_never

from bnbench.config import schema
from bnbench.errors import BnbenchError, ConfigError, Fault, Interrupted, RunError
from bnbench.events import Moment
from bnbench.runner import Settings, Stop
from bnbench.store import ExperimentFolder
from bnbench.sweep.jobs import (
    Answer,
    Check,
    Checked,
    End,
    Failed,
    Fit,
    Fits,
    Job,
    Measure,
    Measured,
    Said,
    Stated,
    Stopped,
    Train,
    Trained,
    WorkerOptions,
    failed,
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
    """Asks the worker's run to commit after its current step and to end."""


FromWorker: TypeAlias = Ready | Beat | Unusable | Answer
ToWorker: TypeAlias = Job | CommitAndEnd


def perform(
    job: Job,
    options: WorkerOptions,
    experiment: ExperimentFolder,
    send: Callable[[Answer], None],
    stop: Stop,
    *,
    siblings: Sequence[ExperimentFolder] = (),
) -> End:
    """Do a job. `send` gets what there is to see until then; whatever goes wrong is an answer.

    A run is trained in its folder of `experiment`.
    """
    from bnbench.runner import execute, fitting, measure

    settings = Settings(
        device=options.device,
        threads=options.threads,
        accept_changes=options.accept_changes,
        siblings=tuple(sibling.path for sibling in siblings),
        view=lambda *_: _Forwarder(send),
        announce=lambda line: send(Said(line)),
        stop=stop,
    )
    try:
        match job:
            case Train(config):
                done = execute(config, experiment, settings)
                return Trained(done.result, done.found)
            case Check(configs):
                return Checked(tuple(_network_faults(configs, settings)))
            case Measure(config):
                return Measured(measure(config, settings))
            case Fit(config):
                return Fits(fitting(config, settings))
            case _:
                assert_never(job)
    except Interrupted:
        return Stopped()
    except BnbenchError as error:
        return failed(error)
    except Exception as error:
        return Failed(RunError(f"{type(error).__name__}: {error}"), hopeless=False)


def _network_faults(configs: Sequence[schema.RunConfig], settings: Settings) -> list[Fault]:
    from bnbench.runner import rehearse

    faults: list[Fault] = []
    for config in configs:
        try:
            rehearse(config, settings)
        except ConfigError as error:
            faults += error.faults
    return faults


class _Forwarder:
    """A view that sends what it is shown, as often as a screen needs it."""

    def __init__(self, send: Callable[[Answer], None]) -> None:
        self._send = send
        self._moments: list[Moment] = []
        self._sent = time.monotonic()

    def take(self, moment: Moment) -> None:
        """Keep a moment until the next message."""
        self._moments.append(moment)
        if time.monotonic() - self._sent >= SHOWN_SECONDS:
            self.close()

    def close(self) -> None:
        """Send what has not been sent."""
        if self._moments:
            self._send(Stated(self._moments))
        self._moments = []
        self._sent = time.monotonic()


def serve(
    connection: Connection,
    options: WorkerOptions,
    experiment: ExperimentFolder,
    siblings: Sequence[ExperimentFolder],
    driver: int,
) -> None:
    """Do jobs that come through `connection` until the process `driver` closes it or ends."""
    _leave_signals_to_the_driver()
    _die_with(driver)
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))  # before torch makes its threads
    pipe = _Pipe(connection)
    jobs: SimpleQueue[Job] = SimpleQueue()
    stop = Stop()
    Thread(target=_listen, args=(connection, jobs, stop), daemon=True).start()
    Thread(target=_beat, args=(pipe,), daemon=True).start()
    forwarder = _LineForwarder(pipe)
    with redirect_stdout(forwarder), redirect_stderr(forwarder):
        warnings.showwarning = lambda message, category, *_: pipe.send(
            Said(f"warning: {category.__name__}: {message}")
        )
        try:
            from bnbench.runner import execute  # noqa: F401  and with it torch
        except Exception as error:
            pipe.send(Unusable(f"{type(error).__name__}: {error}"))
            return
        pipe.send(Ready())
        while True:
            job = jobs.get()
            pipe.send(perform(job, options, experiment, pipe.send, stop, siblings=siblings))


class _Pipe:
    """The connection to the driver, for several threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = Lock()

    def send(self, message: FromWorker) -> None:
        with self._lock:
            try:
                self._connection.send(message)
            except OSError:
                os._exit(1)  # the driver is gone


class _LineForwarder(io.TextIOBase):
    """Standard output of a worker: what the user's own code prints, line by line."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._pipe.send(Said(line))
        return len(text)


def _listen(connection: Connection, jobs: SimpleQueue[Job], stop: Stop) -> None:
    while True:
        try:
            message: ToWorker = connection.recv()
        except (EOFError, OSError):
            # The driver is gone. The last checkpoint is intact; exiting releases the lock.
            os._exit(1)
        match message:
            case CommitAndEnd():
                stop.exit_code = 130
            case _:
                jobs.put(message)


def _beat(pipe: _Pipe) -> None:
    while True:
        time.sleep(BEAT_SECONDS)
        pipe.send(Beat())


def _leave_signals_to_the_driver() -> None:
    """Ctrl-C and a scheduler's SIGTERM reach the whole group: the driver asks us to commit."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _die_with(driver: int) -> None:
    """Linux: be killed when the driver dies, even while suspended or deep in native code."""
    if sys.platform != "linux":
        return
    PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
    library: Any = ctypes.CDLL(None)
    library.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != driver:
        os._exit(1)  # it died before we asked
