"""A disk of which one operation is the last of the process, or fails; a process that dies."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import pytest
from torch import Tensor

from bnbench.runner.execution import Build
from bnbench.runner.settings import Stop

Failure: TypeAlias = Literal["killed", "torn"] | int
"""Killed before an operation, or half-way through a write; or an `errno` with which it fails, a
write after half of it."""

CHANGES = ("open", "write", "truncate", "replace", "unlink", "mkdir")
"""Operations that change what is stored. To be killed before another one leaves on the disk what
being killed before the next of these leaves."""


TIMES_AND_PROCESSES = r"\.out\..*|\.[0-9a-f]{16}(?=\.tmp$)"
"""What names of files have of when and by whom they are written."""


class Killed(BaseException):
    """Stands for a SIGKILL: nothing catches it."""


@dataclass
class Disk:
    """Counts operations on files below a folder; the `number`-th (0: none) does not go well.

    `lasting`: all after an error fail too. After a kill nothing is done any more, so that no
    clean-up can help.
    """

    below: Path
    number: int = 0
    failure: Failure = "killed"
    lasting: bool = False
    seen: list[str] = field(default_factory=list)

    @property
    def reached(self) -> bool:
        """Whether there were so many operations."""
        return len(self.seen) >= self.number

    @property
    def operation(self) -> str:
        """The operation that did not go well."""
        return self.seen[self.number - 1]

    def count(self, name: str, path: Path) -> None:
        """One operation more, which may be the one."""
        if not path.is_relative_to(self.below):
            return
        self.seen.append(f"{name} {re.sub(TIMES_AND_PROCESSES, '', path.name)}")
        beyond = len(self.seen) - self.number if self.number else -1
        if isinstance(self.failure, str):
            if beyond >= 0:
                raise Killed
        elif beyond == 0 or (beyond > 0 and self.lasting):
            raise OSError(self.failure, os.strerror(self.failure), str(path))

    def write(self, file: IO[bytes], path: Path, content: bytes) -> int:
        """Write, or half of it and not go well."""
        alive = len(self.seen) < self.number
        try:
            self.count("write", path)
        except (OSError, Killed):
            if alive and self.failure != "killed":
                file.write(content[: len(content) // 2])
                file.flush()
            raise
        return file.write(content)


class _File:
    """An open file of such a disk."""

    def __init__(self, file: IO[bytes], path: Path, disk: Disk) -> None:
        self._file, self._path, self._disk = file, path, disk

    def write(self, content: bytes) -> int:
        return self._disk.write(self._file, self._path, content)

    def truncate(self, *size: int) -> int:
        self._disk.count("truncate", self._path)
        return self._file.truncate(*size)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def disk(
    below: Path, number: int = 0, failure: Failure = "killed", *, lasting: bool = False
) -> Iterator[Disk]:
    """Puts such a disk below everything that the package does with files."""
    made = Disk(below, number, failure, lasting)

    def counted(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def act(path: Path, *a: Any, **k: Any) -> Any:
            made.count(name, path)
            return operation(path, *a, **k)

        return act

    open_file, sync, open_descriptor = Path.open, os.fsync, os.open
    files: list[IO[bytes]] = []

    def opened(path: Path, mode: str = "r", *a: Any, **k: Any) -> Any:
        if not set(mode) & set("wax+") or not path.is_relative_to(below):
            return open_file(path, mode, *a, **k)
        made.count("open", path)
        files.append(open_file(path, mode, *a, **k))
        return _File(files[-1], path, made)

    def synced(descriptor: int) -> None:
        made.count("fsync", below / "fsync")
        sync(descriptor)

    def descriptor_of(path: Any, *a: Any, **k: Any) -> int:
        made.count("os.open", Path(os.fsdecode(path)))
        return open_descriptor(path, *a, **k)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "unlink", "mkdir"):
            patch.setattr(Path, name, counted(name, getattr(Path, name)))
        patch.setattr(Path, "open", opened)
        patch.setattr(os, "fsync", synced)
        patch.setattr(os, "open", descriptor_of)
        try:
            yield made
        finally:
            if isinstance(failure, str):
                for file in files:  # as those of a dead process are
                    file.close()


def kills(seen: list[str]) -> list[tuple[int, Failure]]:
    """Every kill that leaves something else on the disk, among operations like these."""
    found: list[tuple[int, Failure]] = []
    for number, operation in enumerate(seen, start=1):
        name = operation.split()[0]
        if name in CHANGES:
            found.append((number, "killed"))
        if name == "write":
            found.append((number, "torn"))
    return found


def at_batch(build: Build, step: int, act: Callable[[], None]) -> Build:
    """Builds a run that does something once `step` steps are done and the next batch is asked for.

    With the step before stated: to be called for steps from 1 on.
    """

    def built(*arguments: Any, **options: Any) -> Any:
        run, facts = build(*arguments, **options)
        batch_at = run.batch_at

        def batch(number: int) -> tuple[Tensor, Tensor]:
            if number == step:
                act()
            return batch_at(number)

        return replace(run, batch_at=batch), facts

    return built


def dying(build: Build, step: int) -> Build:
    """Builds a run whose process dies after so many steps."""

    def die() -> None:
        raise Killed

    return at_batch(build, step, die)


def stopping(build: Build, step: int, stop: Stop) -> Build:
    """Builds a run that is asked to stop during this step, counted from 1."""

    def ask() -> None:
        stop.exit_code = 130

    return at_batch(build, step - 1, ask)
