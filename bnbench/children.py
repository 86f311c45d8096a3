"""Processes that this one starts: they run none of the caller's script, and end with this one."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from types import ModuleType
from typing import Any


def start(process: SpawnProcess) -> None:
    """Start it so that nothing that asks a whole group of processes to end reaches it, as Ctrl-C
    and a scheduler's signals do: what it is to do then, this process says. Raises OSError."""
    with _signals_blocked(), _no_main():
        process.start()


@contextmanager
def _no_main() -> Iterator[None]:
    """A process that is started inside does not run the caller's own script again, as a spawned one
    does to find what is defined there: a script that calls `bnbench.sweep` needs no guard."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """A process that is spawned inside has these blocked for good, this process gets them
    afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    blocked = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)  # it unblocks some while it starts
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def belong_to(parent: int) -> None:
    """In a child: do not end by Ctrl-C on Windows, which cannot block it; on Linux, be killed when
    the parent dies, even while suspended or deep in native code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "linux":
        return
    PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
    library: Any = ctypes.CDLL(None)
    library.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it died before we asked


def cause(exit_code: int) -> str:
    """How a process ended, in words."""
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    hint = ": often the system was out of memory" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"
