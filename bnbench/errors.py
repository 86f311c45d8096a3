"""The errors that users see: what happened, where, what to do.

Every error that a user can cause is a `BnbenchError`. `cli` prints it without a traceback and exits
with its `exit_code`; README.md lists the codes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class BnbenchError(Exception):
    """Something a user can understand and act on: `what` happened, and what to `do`."""

    exit_code = 1

    def __init__(self, what: str, *, do: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.do = do

    def __str__(self) -> str:
        return self.what if self.do is None else f"{self.what}\n  {self.do}"


class RunError(BnbenchError):
    """A run failed for a reason that is neither its configuration nor its data."""


class UsageError(BnbenchError):
    """The command line asks for something impossible."""

    exit_code = 2


class HeldError(BnbenchError):
    """Another process holds this run or experiment."""

    exit_code = 3


class StorageError(BnbenchError):
    """A run folder is missing, damaged, full or read-only."""

    exit_code = 4


class DamagedError(StorageError):
    """What is stored of a run is not what was written, or not of this version."""


class DataError(BnbenchError):
    """A dataset is missing, damaged, not reachable or too large."""

    exit_code = 4


class ClusterError(BnbenchError):
    """A cluster does not answer, takes no more work now, or has machines of several kinds."""

    exit_code = 4


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a configuration.

    `where` is `file:line:column` or, for a value from the command line, `--set optim.lr`.
    """

    where: str
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        line = f"{self.where}: {self.message}"
        return line if self.hint is None else f"{line}\n  {self.hint}"


class ArgumentError(ValueError):
    """An argument of a layer or network that does not go with the others.

    `argument` is its name, `hint` says what to do. `assemble` turns it into a fault of a key.
    """

    def __init__(self, message: str, *, argument: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument
        self.hint = hint


class ConfigError(BnbenchError):
    """A configuration has faults: all of them, in the order of the file."""

    exit_code = 2

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[Fault, ...]]]:
        """Pickle the faults: exceptions are otherwise rebuilt from their text."""
        return type(self), (self.faults,)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C (exit code 130), SIGTERM (143) or SIGHUP (129) arrived.

    Not a `BnbenchError`: like KeyboardInterrupt, it is not caught by `except Exception`.
    """

    def __init__(self, what: str, *, exit_code: int, do: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.do = do
        self.exit_code = exit_code

    def __str__(self) -> str:
        return self.what if self.do is None else f"{self.what}\n  {self.do}"
