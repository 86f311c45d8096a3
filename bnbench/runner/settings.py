"""How runs are executed and stopped, what one costs and how it ended.

No torch: whoever hands out runs needs these.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from bnbench.errors import Interrupted
from bnbench.sinks import Sink
from bnbench.store import Result, RunFolder

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}  # 128 + the signal's number


class Stop:
    """Ctrl-C and SIGTERM: finish the step, commit, leave; at the second signal, leave at once.

    `exit_code` is set by a signal and read by the run between two steps.
    """

    def __init__(self, announce: Callable[[str], None] = lambda _: None) -> None:
        self.exit_code: int | None = None
        self._announce = announce
        self._deferring = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the process's signals; the handlers before are restored on leaving."""
        before = {number: signal.signal(number, self._handle) for number in EXIT_CODES}
        try:
            yield
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
        raise Interrupted(
            "stopped", exit_code=code, do="the same command goes on from the last checkpoint"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How runs are executed; none of it decides their numbers, or it is part of the fingerprint.

    `threads`: for a configuration that says auto. `restart`: throw earlier attempts away.
    `accept_changes`: continue from a checkpoint of another machine or release, and mark it.
    `siblings`: folders of experiments from which an identical finished run is taken over.
    `view`: given a run's name and its number of steps, opens what shows it while it trains; None
    shows nothing. `announce` gets notes and warnings.
    """

    device: str | None = None
    threads: int = 1
    restart: bool = False
    accept_changes: bool = False
    siblings: tuple[Path, ...] = ()
    view: Callable[[str, int], Sink] | None = None
    announce: Callable[[str], None] = lambda _: None
    stop: Stop = field(default_factory=Stop)


@dataclass(frozen=True, slots=True)
class Executed:
    """A run that has a result; `found`: it had one before."""

    folder: RunFolder
    result: Result
    found: bool


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run takes: seconds from start to result, bytes on disk when it is done."""

    seconds: float
    bytes: int
