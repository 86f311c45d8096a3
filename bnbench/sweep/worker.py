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
from enum import Enum, auto
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Literal, TypeAlias, assert_never

from bnbench.errors import BnbenchError, Interrupted, RunError
from bnbench.events import Moment
from bnbench.runner.settings import Settings, Stop
from bnbench.store import ExperimentFolder
from bnbench.sweep import jobs

BEAT_SECONDS = 1.0
"""How often a worker says that it is alive."""

SHOWN_SECONDS = 0.2
"""How often a worker sends what its run has stated: the screen shows no more."""


class Signal(Enum):
    """What goes through the pipe besides jobs and answers."""

    READY = auto()  # the worker has imported what it needs
    BEAT = auto()  # the worker is alive
    STOP = auto()  # the run is to commit after its current step and to end


FromWorker: TypeAlias = Literal[Signal.READY, Signal.BEAT] | jobs.Answer
ToWorker: TypeAlias = Literal[Signal.STOP] | jobs.Job


def perform(
    job: jobs.Job,
    options: jobs.SweepOptions,
    experiment: ExperimentFolder,
    send: Callable[[jobs.Answer], None],
    stop: Stop,
    *,
    siblings: Sequence[ExperimentFolder] = (),
) -> jobs.End:
    """Do a job. `send` gets what there is to see until then; whatever goes wrong is an answer.

    A run is trained in its folder of `experiment`.
    """
    from bnbench.runner import execution, rehearsal

    settings = Settings(
        device=options.device,
        accept_changes=options.accept_changes,
        siblings=tuple(sibling.path for sibling in siblings),
        view=lambda *_: _Forwarder(send),
        announce=lambda line: send(jobs.Said(line)),
        stop=stop,
    )
    try:
        match job:
            case jobs.Train(config):
                executed = execution.execute(config, experiment, settings)
                return jobs.Trained(executed.result, executed.found)
            case jobs.Check(configs):
                return jobs.Found(tuple(rehearsal.check(configs, settings)))
            case jobs.Measure(config):
                return jobs.Found(rehearsal.measure(config, settings))
            case jobs.Fit(config):
                return jobs.Found(rehearsal.fitting(config, settings))
            case _:
                assert_never(job)
    except Interrupted:
        return jobs.Stopped()
    except BnbenchError as error:
        return jobs.failed(error)
    except Exception as error:
        return jobs.Failed(RunError(f"{type(error).__name__}: {error}"), hopeless=False)


class _Forwarder:
    """A view that sends what it is shown, as often as a screen needs it."""

    def __init__(self, send: Callable[[jobs.Answer], None]) -> None:
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
            self._send(jobs.Stated(self._moments))
        self._moments = []
        self._sent = time.monotonic()


def serve(
    connection: Connection,
    options: jobs.SweepOptions,
    experiment: ExperimentFolder,
    siblings: Sequence[ExperimentFolder],
    driver: int,
) -> None:
    """Do jobs that come through `connection` until the process `driver` closes it or ends."""
    # Ctrl-C and a scheduler's SIGTERM reach the whole group, but the driver asks us to commit.
    # `workers` blocks these signals; Windows only has this one, and cannot block it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with(driver)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch makes its threads
    pipe = _Pipe(connection)
    waiting: SimpleQueue[jobs.Job] = SimpleQueue()
    stop = Stop()
    Thread(target=_listen, args=(connection, waiting, stop), daemon=True).start()
    Thread(target=_beat, args=(pipe,), daemon=True).start()
    with redirect_stdout(pipe), redirect_stderr(pipe):
        warnings.showwarning = lambda message, category, *_: pipe.send(
            jobs.Said(f"warning: {category.__name__}: {message}")
        )
        try:
            from bnbench.runner.execution import execute  # noqa: F401  and with it torch
        except Exception as error:
            why = RunError(f"no worker can be started: {type(error).__name__}: {error}")
            while True:
                waiting.get()
                pipe.send(jobs.Failed(why, hopeless=True))
        pipe.send(Signal.READY)
        while True:
            job = waiting.get()
            pipe.send(perform(job, options, experiment, pipe.send, stop, siblings=siblings))


class _Pipe(io.TextIOBase):
    """The connection to the driver, for several threads; what is written to it is sent in lines."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = Lock()
        self._line = ""

    def send(self, message: FromWorker) -> None:
        with self._lock:
            try:
                self._connection.send(message)
            except OSError:
                os._exit(1)  # the driver is gone

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self.send(jobs.Said(line))
        return len(text)


def _listen(connection: Connection, waiting: SimpleQueue[jobs.Job], stop: Stop) -> None:
    while True:
        try:
            message: ToWorker = connection.recv()
        except (EOFError, OSError):
            # The driver is gone. The last checkpoint is intact; exiting releases the lock.
            os._exit(1)
        if isinstance(message, Signal):
            stop.exit_code = 130
        else:
            waiting.put(message)


def _beat(pipe: _Pipe) -> None:
    while True:
        time.sleep(BEAT_SECONDS)
        pipe.send(Signal.BEAT)


def _die_with(driver: int) -> None:
    """Linux: be killed when the driver dies, even while suspended or deep in native code."""
    if sys.platform != "linux":
        return
    PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
    library: Any = ctypes.CDLL(None)
    library.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != driver:
        os._exit(1)  # it died before we asked
