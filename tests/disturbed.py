"""Commands that are killed at any moment, or on a disk of which one operation fails.

Run again, each must leave what it leaves when nobody disturbs it. A command that is killed has a
process of its own, forked from one in which nothing was computed yet: torch is imported once. A
disk that fails is that of this process, and the network is `stub`'s.
"""

from __future__ import annotations

import errno
import math
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bnbench import __main__, cli
from bnbench.assemble import build_run
from bnbench.board import serve  # noqa: F401  imported once, before processes are forked
from bnbench.report import figures, writing  # noqa: F401
from bnbench.runner.execution import Build, execute
from bnbench.sinks.tensorboard import records  # noqa: F401
from bnbench.store import ExperimentFolder
from tests.disturbed_commands import SETUPS, Command
from tests.executors import InProcess
from tests.injection import Failure, Killed, at_batch, disk, kills
from tests.processes import LIMIT
from tests.runs import committed_step, write_experiment
from tests.stub import build_stub

SOONEST = 0.001
"""Seconds after the start of a command of the earliest kills; the latest come at its usual end."""

AT_A_TIME = 4
"""So often one command is killed before it may end."""

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)


@dataclass(slots=True)
class Counts:
    """What was done to commands, by the command, and what has gone wrong."""

    kills: Counter[str] = field(default_factory=Counter)
    operations: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    disturbances: Counter[str] = field(default_factory=Counter)
    compared: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, other: Counts) -> None:
        """Count what was done elsewhere, too."""
        self.kills += other.kills
        self.disturbances += other.disturbances
        self.compared += other.compared
        self.faults += other.faults
        for name, numbers in other.operations.items():
            self.operations[name] |= numbers


# --- running a command --------------------------------------------------------------------


@contextmanager
def _inside(place: Path) -> Iterator[None]:
    """In this folder, with a cache of its own, the workers of a sweep in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        patch.setenv("COLUMNS", "80")
        patch.setenv("BNBENCH_RUNS_DIR", str(place / "runs"))  # absolute, so that `disk` sees it
        patch.setattr("bnbench.sweeps.workers.Workers", InProcess)
        patch.setattr("bnbench.assemble.inputs._loaded", {})  # as in a new process
        yield


def forked(place: Path, arguments: tuple[str, ...], build: Build = build_run) -> int:
    """Start a command in a process of its own, which prints to the file `said`; its number."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        output = os.open(place / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        with _inside(place):
            sys.argv = ["bnbench", *arguments]
            execute.__defaults__ = (build,)
            __main__.main()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def ended(process: int) -> int:
    """The exit code of a forked process; minus the signal that it was killed by."""
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    raise AssertionError(f"still running after {LIMIT:g} s")


def here(place: Path, arguments: tuple[str, ...]) -> tuple[int, str]:
    """Run a command in this process; exit code, and what it said."""
    with _inside(place):
        result = CliRunner().invoke(cli.app, list(arguments))
    return result.exit_code, result.output


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def make_template(template: Path, build: Build) -> None:
    """The folders in which a command starts that does not start from nothing."""
    for name, more, verb, built, expected in (
        ("interrupted", "", "train", at_batch(build, 9, _die), -signal.SIGKILL),
        ("finished", SETUPS, "sweep", build, 0),
    ):
        place = template / name
        place.mkdir(parents=True)
        write_experiment(place / "small.yaml", more)
        code = ended(forked(place, (verb, "small.yaml", "--quiet"), built))
        assert code == expected, (code, (place / "said").read_text())


# --- kills --------------------------------------------------------------------------------


class Kills:
    """Kills one command again and again, at random moments, and compares what it leaves."""

    def __init__(self, command: Command, folder: Path, seed: int, counts: Counts) -> None:
        self._command, self._folder, self._counts = command, folder, counts
        self._random = random.Random(f"{command.name} {seed}")
        self._number = 0
        place = self._fresh()
        begun = time.monotonic()
        code = ended(forked(place, command.arguments))
        self._seconds = time.monotonic() - begun
        assert code == 0, (place / "said").read_text()
        self.whole = command.evidence(place)

    def _fresh(self) -> Path:
        self._number += 1
        place = self._folder / f"{self._command.name}-{self._number}"
        place.mkdir()
        self._command.before(place)
        return place

    def once(self, times: int = AT_A_TIME) -> None:
        """Kill a command so often, let it end, and compare."""
        place, name = self._fresh(), self._command.name
        progress = 0
        for _ in range(times):
            resumed = name == "train" and progress > 0
            process = forked(place, self._command.arguments)
            low, high = math.log(SOONEST), math.log(self._seconds)
            time.sleep(math.exp(self._random.uniform(low, high)))
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            if ended(process) != -signal.SIGKILL:
                break
            self._counts.kills["resume" if resumed else name] += 1
            for run in ExperimentFolder(place / "runs" / "small").runs() if name == "train" else ():
                step = committed_step(run)
                if 0 < step < progress:
                    self._fault(place, f"from step {progress} to {step}")
                progress = max(step, progress)
        try:
            code, said = ended(forked(place, self._command.arguments)), (place / "said").read_text()
            if code or "Traceback" in said:
                self._fault(place, f"exit code {code}: {said}")
            elif self._command.evidence(place) != self.whole:
                self._fault(place, "something is different")
            else:
                self._counts.compared[name] += 1
                shutil.rmtree(place)
        except Exception as error:
            self._fault(place, f"{type(error).__name__}: {error}")

    def _fault(self, place: Path, what: str) -> None:
        self._counts.faults.append(f"{place}: {what}")


# --- file operations ----------------------------------------------------------------------


def disturb(
    command: Command,
    folder: Path,
    counts: Counts,
    *,
    share: float = 1.0,
    part: tuple[int, int] = (0, 1),
    seed: int = 0,
    ends: float = math.inf,
) -> None:
    """Have every file operation of a command (or a share of them, drawn) fail, or be the last.

    A disk that is full or closed stays so; an input/output error passes. `part`: the k-th of n, if
    several processes share them. `ends`: when to stop, by `time.time()`.
    """
    with pytest.MonkeyPatch.context() as patch:
        # The stub needs no images, which are what is prepared.
        build = build_run if command.name == "prepare" else build_stub
        patch.setattr(execute, "__defaults__", (build,))
        whole, seen = _counted(command, folder)
        planned: list[tuple[int, Failure]] = [*kills(seen)]
        planned += [(number, error) for number in range(1, len(seen) + 1) for error in ERRORS]
        drawn = random.Random(f"{command.name} {seed}").sample(
            planned, math.ceil(share * len(planned))
        )
        for number, failure in drawn[part[0] :: part[1]]:
            if time.time() > ends:
                return
            place = folder / f"{number}-{failure}"
            fault = _disturbed(command, place, number, failure, whole)
            counts.operations[command.name].add(number)
            counts.disturbances[command.name] += 1
            if fault is None:
                counts.compared[command.name] += 1
                shutil.rmtree(place)
            else:
                counts.faults.append(f"{command.name}, {failure} at {number}: {fault}")


def _counted(command: Command, folder: Path) -> tuple[Any, list[str]]:
    """What the command leaves undisturbed, and its file operations."""
    place = folder / "whole"
    place.mkdir(parents=True)
    command.before(place)
    with disk(place) as counted:
        code, said = here(place, command.arguments)
    assert code == 0, said
    return command.evidence(place), counted.seen


def _disturbed(
    command: Command, place: Path, number: int, failure: Failure, whole: Any
) -> str | None:
    """Run the command on a disk that fails, and on one that does not; what is wrong then."""
    place.mkdir()
    command.before(place)
    code, said = 0, ""
    with disk(place, number, failure, lasting=failure != errno.EIO) as faulty, suppress(Killed):
        code, said = here(place, command.arguments)
    at = faulty.operation if faulty.reached else "never reached"
    survived = not isinstance(failure, str)  # who is killed says nothing
    if survived and (code not in (0, 1, 4) or "Traceback" in said or "unexpected" in said):
        return f"{at}: exit code {code}: {said}"
    try:
        code, said = here(place, command.arguments)
        if code:
            return f"{at}: again: exit code {code}: {said}"
        return None if command.evidence(place) == whole else f"{at}: something is different"
    except Exception as error:
        return f"{at}: {type(error).__name__}: {error}"
