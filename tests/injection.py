"""Lets one file operation of many be the last, or fail: all writing goes through `store.files`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest

from bnbench.store import files

Moment: TypeAlias = Literal["before", "after", "torn"] | int
"""Killed before, after or half-way through an operation; or an `errno` with which it fails."""

FUNCTIONS = ("write_synced", "rename", "remove", "sync_folder", "make_folder")
METHODS = ("append", "sync")


class Killed(BaseException):
    """Stands for a SIGKILL: nothing catches it."""


def inject(monkeypatch: pytest.MonkeyPatch, number: int, moment: Moment) -> list[str]:
    """Let the `number`-th operation from now on (0: none) be the one. The operations seen."""
    seen: list[str] = []

    def wrapped(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any) -> Any:
            seen.append(name)
            if len(seen) != number:
                return operation(*arguments)
            if moment == "after":
                operation(*arguments)
            elif moment != "before" and name in ("write_synced", "append"):
                *target, content = arguments
                operation(*target, content[: len(content) // 2])
            if isinstance(moment, int):
                path = next((each for each in arguments if isinstance(each, Path)), Path("file"))
                with files.translated(path):
                    raise OSError(moment, os.strerror(moment))
            raise Killed

        return act

    for name in FUNCTIONS:
        monkeypatch.setattr(files, name, wrapped(name, getattr(files, name)))
    for name in METHODS:
        monkeypatch.setattr(files.Appender, name, wrapped(name, getattr(files.Appender, name)))
    return seen
