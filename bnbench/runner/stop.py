"""Ctrl-C and SIGTERM: finish the step, commit, leave; at the second one, leave at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from bnbench.errors import Interrupted

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}  # 128 + the signal's number


class Stop:
    """A request to end between two steps: `exit_code` is set by a signal, read by the run."""

    def __init__(self, announce: Callable[[str], None] = lambda _: None) -> None:
        self.exit_code: int | None = None
        self._announce = announce
        self._deferring = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the process's signals; the handlers from before return on leaving."""
        before = {number: signal.signal(number, self._handle) for number in EXIT_CODES}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """While inside, a first signal only sets `exit_code`: who is inside will look at it."""
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
