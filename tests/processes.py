"""Processes that tests start: none outlives its test, and none is waited for without a limit."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

LIMIT = 300.0
"""Seconds, some times what any test waits for on a slow machine; fewer than `faulthandler_timeout`
in pyproject.toml, which ends a process of tests."""

SHARED = 3600.0
"""Seconds that a process may live which the tests of a module share."""

Found = TypeVar("Found")


@contextmanager
def started(
    *command: str | Path, seconds: float = LIMIT, **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """A process in a session of its own, killed at the end of the block with all that it started.

    It is killed after so many seconds, too: whatever reads from it or waits for it then goes on,
    and the test fails. A test that fails shows what is left of what the process has printed.
    """
    options = {"text": True} | options
    late = threading.Event()

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def kill_late() -> None:
        late.set()
        kill()

    with subprocess.Popen(command, start_new_session=True, **options) as process:
        limit = threading.Timer(seconds, kill_late)
        limit.daemon = True
        limit.start()
        try:
            yield process
            assert not late.is_set()
        except BaseException as error:
            kill()
            how = f"killed after {seconds:g} s" if late.is_set() else "printed"
            # Somebody else holds its streams; they are closed, or no text.
            with suppress(subprocess.TimeoutExpired, ValueError):
                out, err = process.communicate(timeout=10)
                error.add_note(f"{command}, {how}:\n{out}\n{err}")
            raise
        finally:
            limit.cancel()
            kill()


def completed(
    *command: str | Path, code: int = 0, seconds: float = LIMIT, **options: Any
) -> subprocess.CompletedProcess[str]:
    """What a command prints; a test fails where it ends with another exit code than this."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started(*command, seconds=seconds, **(pipes | options)) as process:
        out, err = process.communicate(timeout=seconds + 10)
        assert process.returncode == code
    return subprocess.CompletedProcess(command, code, out, err)


def in_terminal(*command: str, typed: str = "", **options: Any) -> tuple[int, str]:
    """The exit code of a command whose streams are a terminal, and what stands there."""
    ours, its = pty.openpty()
    streams = {"stdin": its, "stdout": its, "stderr": its}
    with (
        os.fdopen(ours, "r+b", buffering=0) as terminal,
        os.fdopen(its) as other,
        started(*command, **streams, **options) as process,
    ):
        other.close()
        terminal.write(typed.encode())
        shown = bytearray()
        with suppress(OSError):  # the other end is closed
            while more := terminal.read(4096):
                shown += more
        return process.wait(), shown.decode()


def lives(process: int) -> bool:
    """Whether it runs, or would if it were not suspended; what has ended and was not waited for
    does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def wait_until(
    condition: Callable[[], Found],
    *,
    seconds: float = LIMIT,
    pause: float = 0.02,
    process: subprocess.Popen[Any] | None = None,
) -> Found:
    """What a condition gives as soon as it is something; until then, the process does not end."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert process is None or process.poll() is None, "the process ended too early"
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(pause)
    return found
