"""Code of the user's own: whatever it raises becomes one sentence with its file and line, and
whatever it sets of the process stays its own.

What ends the process at once (`os._exit`, a crash in native code) cannot be caught. Random numbers
are no part of this: training seeds them before each step, a diagnosis gives them back at its end.
"""

from __future__ import annotations

import builtins
import functools
import json
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from bnbench import garbage
from bnbench.errors import ArgumentError, BnbenchError, Interrupted
from bnbench.wording import PATH_LENGTH, shortened

MESSAGE_LENGTH = 300
"""Characters of a message that are shown: with its place it fits three lines."""

IN_WORKER = "Original Traceback (most recent call last):"
"""What a DataLoader puts before the traceback of its worker, in the message of the error."""

PATIENCE = 3.0
"""Seconds after which people ask what is going on."""

exit_code: int | None = None
"""What a command ends this process with, once it has ended."""

OURS = Path(__file__).parent
PYTHONS = Path(os.__file__).parent
LIBRARIES = {"site-packages", "dist-packages"}
STOPPING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]

ENVIRONMENT: dict[Any, Any] = vars(os.environ)["_data"]
"""As the system has it: `os.environ` decodes every name, and takes a hundred times as long."""

T = TypeVar("T")
Entered: TypeAlias = Callable[[], AbstractContextManager[None]]
"""What the user's code is called in, each time."""

Part: TypeAlias = tuple[Callable[[], Any], Callable[[Any], object]]
"""Something of the process that code can set: what reads it, and what sets it."""


class Raised:
    """What the user's code has raised, for people: `place` ("layer.py:5: ", or empty), `kind`,
    `message` (": why", or empty)."""

    def __init__(self, error: BaseException) -> None:
        self.kind = shortened(type(error).__name__)
        message, places = "", _lines(error)
        with suppress(BaseException):  # its `__str__` is the user's code as well
            message = " ".join([str(error), *getattr(error, "__notes__", ())])
        if isinstance(error, SyntaxError):
            message = str(error.msg or "")
            places.append((str(error.filename or ""), error.lineno or 0))
        if IN_WORKER in message:
            places += re.findall(r'File "(.+?)", line (\d+)', message)
            message = re.split(r"(?:\n +.*)+\n", message)[-1].removeprefix(f"{self.kind}: ")
        users = [(path, line) for path, line in places if is_users(path)]
        self.place = f"{_shown(users[-1][0])}:{users[-1][1]}: " if users else ""
        text = shortened(" ".join(message.split()), MESSAGE_LENGTH)
        self.message = f": {text}" if text else ""
        if isinstance(error, ArgumentError):  # our own words, of what the user's code gave
            self.kind, self.message = text, f" ({error.hint})" if error.hint else ""

    def __str__(self) -> str:
        return f"{self.place}{self.kind}{self.message}"


class ForeignCode:
    """The user's code, entered again and again: what it has set of the process is there when it is
    entered next, and out of our way until then."""

    def __init__(self) -> None:
        self._theirs: dict[Part, Any] = {}

    @contextmanager
    def entered(self, raises: Callable[[Raised], BnbenchError]) -> Iterator[None]:
        """Call the user's code inside, and never `yield`. Whatever it raises is raised as what
        `raises` makes of it; our own errors and the user's Ctrl-C pass."""
        garbage.resume()
        try:
            ours, modules = {part: _read(part) for part in _parts()}, dict(sys.modules)
            _write(self._theirs)
            try:
                yield
            finally:
                if len(sys.modules) < len(modules):  # nothing could be imported any more
                    sys.modules.update(modules)
                now = {part: _read(part) for part in ours}
                self._theirs = {part: now[part] for part in ours if now[part] != ours[part]}
                _write({part: ours[part] for part in self._theirs})
        except (BnbenchError, Interrupted):
            raise
        except BaseException as error:
            # Where Python itself handles Ctrl-C, this may be the user's.
            by_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
            if isinstance(error, KeyboardInterrupt) and by_default:
                raise
            raised = Raised(error)
            if not raised.place and self._theirs.get(_gradients()) is False:
                raised.message += " (gradients were left switched off, as torch.no_grad does)"
            raise raises(raised) from error


@contextmanager
def foreign_code(raises: Callable[[Raised], BnbenchError]) -> Iterator[None]:
    """The user's code, entered once: what it sets is forgotten."""
    with ForeignCode().entered(raises):
        yield


@contextmanager
def awaited(what: str, say: Callable[[str], None]) -> Iterator[None]:
    """The user's code, which may take its time: once that is long, `say` tells what is waited for.

    Of no name (""): of ours, nothing is said.
    """
    timer = threading.Timer(PATIENCE, say, [f"waiting for {what}"])
    timer.daemon = True
    if what:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def items(source: Iterable[T], entered: Entered) -> Generator[T, None, None]:
    """What the user's code yields; it is entered for each item, and left in between."""
    with entered():
        iterator = iter(source)
    while True:
        with entered():
            found = list(islice(iterator, 1))
        if not found:
            return
        yield found[0]


def tell_what_nobody_catches(say: Callable[[str], None]) -> None:
    """From now on, what is raised in a thread or in `__del__` is one line, once, no traceback."""
    told: set[str] = set()

    def tell(unraised: Any) -> None:
        with suppress(BaseException):  # Python may be ending
            line = f"warning: {Raised(unraised.exc_value)}"
            if line not in told:
                told.add(line)
                say(line)

    sys.unraisablehook = threading.excepthook = tell


# --- where an error comes from --------------------------------------------------------------------


def _lines(error: BaseException) -> list[tuple[str, int]]:
    """Files and lines that the error passed, innermost last; before them those of its causes."""
    found: list[tuple[str, int]] = []
    each: BaseException | None = error
    for _ in range(10):  # causes may be a circle
        if each is None:
            break
        passed = traceback.walk_tb(each.__traceback__)
        found = [(frame.f_code.co_filename, line) for frame, line in passed] + found
        each = each.__cause__ or each.__context__
    return found


def is_users(file: str) -> bool:
    """Whether a file is the user's own: not bnbench's, not Python's, not a library's."""
    path = Path(file)
    known = OURS in path.parents or PYTHONS in path.parents or LIBRARIES & {*path.parts}
    return bool(file) and not file.startswith("<") and not known


def _shown(file: str) -> str:
    with suppress(OSError, ValueError):
        file = str(Path(file).relative_to(Path.cwd()))
    return shortened(file, PATH_LENGTH)


# --- what the process has that code can set -------------------------------------------------------

PATCHED = (builtins, json, os)
"""Modules of Python's that everything needs, and whose functions code can replace."""


@functools.cache
def _gradients() -> Part:
    import torch

    return torch.is_grad_enabled, torch.set_grad_enabled


@functools.cache
def _parts() -> tuple[Part, ...]:
    import torch  # only where it is imported anyway

    devices = ("cpu", "cuda")
    of_sys = ("stdin", "stdout", "stderr", "exit", "excepthook", "unraisablehook")
    return (
        (os.getcwd, os.chdir),
        (lambda: dict(ENVIRONMENT), _set_environment),
        (lambda: list(warnings.filters), partial(setattr, warnings, "filters")),
        (sys.getrecursionlimit, sys.setrecursionlimit),
        *((partial(getattr, sys, name), partial(setattr, sys, name)) for name in of_sys),
        *((partial(dict, vars(each)), vars(each).update) for each in PATCHED),
        *map(_output, (1, 2)),
        *((partial(signal.getsignal, each), partial(signal.signal, each)) for each in STOPPING),
        (torch.get_default_dtype, torch.set_default_dtype),
        (
            lambda: torch.empty(0).device,
            lambda device: torch.set_default_device(None if device.type == "cpu" else device),
        ),
        _gradients(),
        (torch.get_num_threads, torch.set_num_threads),
        (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
        *(
            (partial(torch.is_autocast_enabled, each), partial(torch.set_autocast_enabled, each))
            for each in devices
        ),
    )


def _output(number: int) -> Part:
    """A standard stream's descriptor: once it is closed, the next file that is opened gets its
    number, and all that is printed."""
    kept = number
    with suppress(OSError):
        kept = os.dup(number)

    def file() -> tuple[int, int]:
        status = os.fstat(number)
        return status.st_dev, status.st_ino

    return file, lambda _: os.dup2(kept, number)


def _read(part: Part) -> Any:
    """None where it cannot be read: a default device that is not there, a deleted folder."""
    with suppress(Exception):
        return part[0]()


def _write(values: dict[Part, Any]) -> None:
    for (_, write), value in values.items():
        with suppress(Exception):  # a folder that is gone; handlers outside the main thread
            write(value)


def _set_environment(values: dict[Any, Any]) -> None:
    name, value = os.environ.decodekey, os.environ.decodevalue
    for added in ENVIRONMENT.keys() - values.keys():
        del os.environ[name(added)]
    os.environ.update({name(each): value(values[each]) for each in values})
