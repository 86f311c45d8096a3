"""How runs are executed and stopped, on how many cores; what one costs and how it ended.

No torch: whoever hands out runs needs these.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from bnbench.config import feasible, schema
from bnbench.errors import Interrupted, RunError, UsageError
from bnbench.guard import Raised
from bnbench.machine import usable_cores
from bnbench.sinks import Sink
from bnbench.store import Result, RunFolder

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}  # 128 + the signal's number
if hasattr(signal, "SIGHUP"):
    EXIT_CODES[signal.SIGHUP] = 129
NVIDIA = Path("/proc/driver/nvidia/version")
"""There where NVIDIA's driver is loaded, on Linux."""

READINGS = 8
"""Events of an evaluation of two splits."""

BYTES_PER_EVENT = 700
"""One event in `metrics.jsonl` and in TensorBoard's file; measured on default runs: 650 to 680."""


class Stop:
    """Ctrl-C, SIGTERM and SIGHUP: finish the step, commit, leave; at the second, leave at once.

    `exit_code` is set by a signal and read by the run between two steps. `commit_seconds`: how long
    a sweep waits for its runs to commit before it ends them. `saved`: whether the command has
    stored something to go on from, which whoever leaves at once is told.
    """

    commit_seconds = 8.0

    def __init__(
        self,
        announce: Callable[[str], None] = lambda _: None,
        saved: Callable[[], bool] = lambda: False,
    ) -> None:
        self.exit_code: int | None = None
        self._announce, self._saved = announce, saved
        self._deferring = False
        self._leaving: Interrupted | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the process's signals; the handlers before are restored on leaving.

        A SIGHUP that is ignored stays so: `nohup` asks for that. Python handles signals in its main
        thread alone: in another one nothing is listened to.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [
            number
            for number in EXIT_CODES
            if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN
        ]
        before = {number: signal.signal(number, self._handle) for number in numbers}
        try:
            yield
        except KeyboardInterrupt as error:
            if isinstance(error, Interrupted) or self._leaving is None:
                raise
            raise self._leaving from None  # of which a library made its own, as Ray while it waits
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a first signal only sets `exit_code`, which the code inside must look at."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        code = EXIT_CODES[signal.Signals(number)]
        if self._deferring and self.exit_code is None:
            self.exit_code = code
            self._announce("stopping after this step (again: at once)")
            return
        if self._saved():
            do = "the same command goes on from the last checkpoint"
            self._leaving = Interrupted("stopped", exit_code=code, do=do)
        else:
            self._leaving = Interrupted("stopped; nothing is saved", exit_code=code)
        raise self._leaving


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How runs are executed; none of it decides their numbers, or it is part of the fingerprint.

    `threads`: the most that `compute.threads: auto` may take. `restart`: throw earlier attempts
    away. `accept_changes`: continue from a checkpoint of another machine or release, and mark it.
    `siblings`: folders of experiments from which an identical finished run is taken over.
    `view`: given a run's name and its number of steps, opens what shows it while it trains; None
    shows nothing. `announce` gets notes and warnings. `worker`: which of the sweep's it is, from 0.
    `lasting`: whether what loggers write beside the run's folder stays there.
    """

    device: str | None = None
    worker: int = 0
    threads: int = 1
    restart: bool = False
    accept_changes: bool = False
    siblings: tuple[Path, ...] = ()
    view: Callable[[str, int], Sink] | None = None
    announce: Callable[[str], None] = lambda _: None
    stop: Stop = field(default_factory=Stop)
    lasting: bool = True


@dataclass(frozen=True, slots=True)
class Executed:
    """A run that has a result; `found`: it had one before, and `otherwise` is what it then records
    otherwise than is asked for, a line for each key."""

    folder: RunFolder
    result: Result
    found: bool
    otherwise: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fitting:
    """How many runs are to train at a time: as many as the memory of one GPU holds, at least 1, or
    one on each of several."""

    runs: int
    gpus: int = 1


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run takes: seconds from start to result, bytes on disk when it is done.

    `rough`: by arithmetic alone. `basis`: what that was learned from, in words. `pace`: how many
    times as long it takes now, with other work and waiting (`machine.Pace`).
    """

    seconds: float
    bytes: int
    rough: bool = False
    basis: str = "finished runs"
    pace: float = 1.0


def recorded_bytes(config: schema.RunConfig) -> int:
    """What a run records, without probes and checkpoint, by arithmetic."""
    reports = feasible.planned_steps(config) / config.train.log_every
    return round(BYTES_PER_EVENT * (reports + READINGS * (config.train.evaluations + 1)))


FAILED = "the run failed: "


def failed(raised: Raised) -> RunError:
    """What the user's code has raised in a run, as the error of that run."""
    return RunError(f"{FAILED}{raised}")


def thread_limit() -> int:
    """The most threads that a single run may take unasked: cores, and what OpenMP is told."""
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    cores = usable_cores()
    return min(cores, int(told)) if told.isdecimal() and int(told) else cores


def threads_of(runs: Iterable[schema.RunConfig]) -> int:
    """The most threads that one of these runs asks for; in a sweep, auto is 1."""
    return max((each for run in runs if (each := run.compute.threads) != "auto"), default=1)


def workers_for(wanted: str, runs: Iterable[schema.RunConfig]) -> int:
    """How many workers `wanted` asks for, a number or "auto": then as many as keep every core
    busy with the threads that the runs ask for. Raises UsageError."""
    if wanted == "auto":
        return max(1, usable_cores() // threads_of(runs))
    if not wanted.isdecimal() or len(wanted) > 3 or int(wanted) < 1:
        raise UsageError(f"--workers {wanted}: not a number of workers", do="1 to 999, or auto")
    return int(wanted)


def may_use_gpu(device: str | None, runs: Iterable[schema.RunConfig]) -> bool:
    """Whether some run may land on an NVIDIA GPU, as far as can be told without torch."""
    wanted = {device or run.compute.device for run in runs}
    named = any(each.startswith("cuda") for each in wanted)
    return named or ("auto" in wanted and NVIDIA.exists())
