"""Commands that are killed at any moment, or on a disk of which one operation fails.

Run again, each must leave what it leaves when nobody disturbs it. A command that is killed has a
process of its own, forked from one in which nothing was computed yet: torch is imported once. A
disk that fails is that of this process, and the network is `stub`'s.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import random
import shutil
import signal
import sys
import time
import traceback
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bnbench import __main__, cli, store
from bnbench.assemble import build_run
from bnbench.board import serve  # noqa: F401  imported once, before processes are forked
from bnbench.report import figures, writing  # noqa: F401
from bnbench.runner.execution import Build, execute
from bnbench.sinks.tensorboard import records  # noqa: F401
from bnbench.store import ExperimentFolder
from tests.executors import InProcess
from tests.injection import Failure, Killed, at_batch, disk, kills
from tests.runs import committed_step, evidence, write_experiment
from tests.stub import build_stub

SETUPS = "setups: {none: {norm: {kind: none}}, bn: {}}\n"
IMAGES = """\
data:
  dataset: image-folder
  root: images
  image_size: 8
  validation_size: 4
  batch_size: 4
  eval_batch_size: 8
model: {widths: [4], blocks: 1}
train: {steps: 2, evaluations: 1, checkpoint_every: 1}
"""
SOONEST = 0.001
"""Seconds after the start of a command of the earliest kills; the latest come at its usual end."""

AT_A_TIME = 4
"""So often one command is killed before it may end."""

PATIENCE = 180.0
"""Seconds after which a command that was not killed counts as hung."""

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


@dataclass(frozen=True, slots=True)
class Command:
    """A command, what stands in its folder before, and what must be there afterwards."""

    name: str
    arguments: tuple[str, ...]
    before: Callable[[Path], None]
    evidence: Callable[[Path], Any]


# --- what is there before and afterwards --------------------------------------------------


def _runs(place: Path) -> dict[str, Any]:
    """Results, events and weights of all runs."""
    return {
        run.name: evidence(run)
        for experiment in store.experiments(place / "runs")
        for run in experiment.runs()
    }


def _report(place: Path) -> dict[str, Any]:
    """All that the report has written, but for the time of writing and the place."""
    folder = place / "runs" / "small"
    texts = {path.name: path.read_text() for path in folder.glob("figures/*.svg")}
    texts["report.csv"] = (folder / "report.csv").read_text()
    about = json.loads((folder / "report.json").read_text().replace(str(folder), "small"))
    about.pop("written")
    assert (folder / "report.html").read_text().rstrip().endswith("</html>")
    return {"about": about, "texts": texts, "runs": _runs(place)}


def _board(place: Path) -> dict[str, Any]:
    """What TensorBoard's files say; their names hold a time."""
    found: dict[str, Any] = {}
    for path in sorted((place / "runs").rglob("*tfevents*")):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        found.setdefault(str(path.parent.relative_to(place)), []).append(content)
    return {"board": found, "runs": _runs(place)}


def _prepared(place: Path) -> dict[str, Any]:
    """The prepared copy of the images, member by member, and the run that has used it."""
    (copy,) = (place / "cache").rglob("*.zip")
    with zipfile.ZipFile(copy) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    about = json.loads(members.pop("about.json"))
    about.pop("fingerprint")  # has times of the images' files
    return {"about": about, "members": members, "runs": _runs(place)}


def _write_images(place: Path) -> None:
    from PIL import Image

    (place / "small.yaml").write_text(IMAGES)
    for number, part in enumerate(("train",) * 16 + ("test",) * 8):
        path = place / "images" / part / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 10 * number).save(path)


def commands(template: Path) -> dict[str, Command]:
    """Those that write. `template`: a folder with an interrupted and a finished experiment."""

    def copy(name: str) -> Callable[[Path], None]:
        def before(place: Path) -> None:
            shutil.copytree(template / name, place, dirs_exist_ok=True)

        return before

    def write(more: str) -> Callable[[Path], None]:
        def before(place: Path) -> None:
            write_experiment(place / "small.yaml", more)

        return before

    train, sweep = ("train", "small.yaml", "--quiet"), ("sweep", "small.yaml", "--quiet")
    listed = (
        Command("train", train, write(""), _runs),
        Command("resume", train, copy("interrupted"), _runs),
        Command("sweep", sweep, write(SETUPS), _runs),
        Command("report", ("report", "small"), copy("finished"), _report),
        Command("rebuild", ("tensorboard", "small", "--rebuild"), copy("finished"), _board),
        Command("prepare", (*train, "--restart"), _write_images, _prepared),
    )
    return {each.name: each for each in listed}


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


def ended(process: int, seconds: float = PATIENCE) -> int:
    """The exit code of a forked process; minus the signal that it was killed by."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    raise AssertionError(f"still running after {seconds} s")


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
