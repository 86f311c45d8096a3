"""Whole sweeps, as a user runs them: real workers, a real terminal, real signals."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import select
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bnbench import store
from bnbench.config import loading, plans, schema
from bnbench.runner.settings import Stop
from bnbench.sinks.terminal import Screen
from bnbench.store import ExperimentFolder
from bnbench.sweeps.workers import Workers
from tests import torture
from tests.executors import InProcess, in_process, sweep, workers_in
from tests.processes import LIMIT, completed
from tests.runs import (
    SMALL_YAML,
    committed_step,
    evidence,
    experiment_in,
    quiet_console,
    slow_norm,
    write_experiment,
)

REPOSITORY = Path(__file__).resolve().parents[2]
FOUR = "setups: {none: {norm: {kind: none}}, bn: {}}\naxes: {optim.lr: [0.01, 0.1]}\n"
# Two runs that do not end while a file is there, and two that wait.
LONG = """\
setups:
  long: {train: {steps: 200, checkpoint_every: 20}}
  longer: {train: {steps: 220, checkpoint_every: 20}}
  short: {optim: {lr: 0.01}}
  shorter: {train: {epochs: 1}}
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")


def swept(
    runs: list[schema.RunConfig], experiment: ExperimentFolder, executor: Workers | InProcess
) -> dict[str, Any]:
    """Sweep, and what that leaves behind."""
    with closing(executor):
        sweep(runs, experiment, executor, Screen(quiet_console(), runs=1), Stop())
    return {run.name: evidence(run) for run in experiment.runs()}


def command(*arguments: str) -> list[str]:
    """`bnbench sweep` of the small file."""
    return [sys.executable, "-m", "bnbench", "sweep", "small.yaml", *arguments]


def environment() -> dict[str, str]:
    """Ours, with one thread a process."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "COLUMNS": "80"}


@pytest.mark.slow
def test_two_workers_give_the_bits_of_one_process(tmp_path: Path) -> None:
    path = write_experiment(tmp_path / "small.yaml", FOUR)
    done = completed(*command("--workers", "2"), cwd=tmp_path, env=environment())
    begun, *lines = done.stderr.splitlines()
    assert begun == "4 runs to train"
    ended = [line for line in lines if ": val " in line]  # between them an estimate
    assert [line.split()[0] for line in ended] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert max(map(len, done.stdout.splitlines())) <= 80
    runs = list(plans.expand(loading.load_experiment(path)).runs)
    here = experiment_in(tmp_path / "here")
    whole = swept(runs, here, in_process(here))
    experiment = ExperimentFolder(tmp_path / "runs" / "small")
    assert {run.name: evidence(run) for run in experiment.runs()} == whole


@pytest.mark.slow
def test_neither_the_number_of_workers_nor_the_order_changes_a_bit(tmp_path: Path) -> None:
    path = write_experiment(tmp_path / "small.yaml", FOUR + "seeds: 2\n")
    runs = list(plans.expand(loading.load_experiment(path)).runs)
    here, there = experiment_in(tmp_path / "here"), experiment_in(tmp_path / "there")
    whole = swept(runs, here, in_process(here))
    random.Random(0).shuffle(runs)
    assert swept(runs, there, workers_in(there, 3)) == whole


@pytest.mark.slow
def test_two_sweeps_at_once_share_the_work(tmp_path: Path) -> None:
    path = write_experiment(tmp_path / "small.yaml", FOUR + "seeds: 2\n")
    with ThreadPoolExecutor() as pool:
        one = partial(
            completed, *command("--workers", "1", "--quiet"), cwd=tmp_path, env=environment()
        )
        for done in [pool.submit(one) for _ in range(2)]:
            assert "missing" not in done.result().stdout
    experiment = ExperimentFolder(tmp_path / "runs" / "small")
    assert all((run.manifest() or {})["attempts"] == 1 for run in experiment.runs())
    here = experiment_in(tmp_path / "here")
    whole = swept(
        list(plans.expand(loading.load_experiment(path)).runs),
        here,
        in_process(here),
    )
    assert {run.name: evidence(run) for run in experiment.runs()} == whole


# --- Ctrl-C and SIGTERM ---------------------------------------------------------------------------


class Terminal:
    """A sweep under a pseudo-terminal, whose Ctrl-C reaches its whole process group."""

    def __init__(self, path: Path) -> None:
        self.slow = path / "slow"
        self.slow.touch()
        norm = json.dumps(slow_norm(self.slow, quick=25))
        write_experiment(path / "small.yaml", f"{LONG}norm: {norm}\n")
        self.experiment = ExperimentFolder(path / "runs" / "small")
        self.shown = b""
        self.process, self._terminal = pty.fork()
        if self.process == 0:
            os.chdir(path)
            os.execve(sys.executable, command("--workers", "2"), environment())

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process, signal.SIGKILL)
        os.close(self._terminal)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Read what is shown until it holds."""
        until = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < until, self.shown.decode(errors="replace")
            self._read()

    def _read(self) -> None:
        ready, _, _ = select.select([self._terminal], [], [], 0.02)
        if ready:
            with suppress(OSError):  # the other end has been closed
                self.shown += os.read(self._terminal, 65536)

    def trains(self) -> bool:
        """Whether two runs have committed something."""
        return sum(committed_step(run) > 0 for run in self.experiment.runs()) >= 2

    def press_ctrl_c(self) -> None:
        """What the terminal does with the key: SIGINT to its foreground group."""
        os.write(self._terminal, b"\x03")

    def ended(self) -> int:
        """The exit code; a test fails that waits longer."""
        until = time.monotonic() + LIMIT
        while True:
            process, status = os.waitpid(self.process, os.WNOHANG)
            if process:
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < until, self.shown.decode(errors="replace")
            self._read()


def resumed(terminal: Terminal, path: Path) -> None:
    """The same command again gives the undisturbed bits."""
    experiment = terminal.experiment
    terminal.slow.unlink()
    assert "interrupted" in {store.read(run).state for run in experiment.runs()}
    completed(*command("--workers", "2", "--quiet"), cwd=path, env=environment())
    here = experiment_in(path / "here")
    runs = list(plans.expand(loading.load_experiment(path / "small.yaml")).runs)
    whole = swept(runs, here, in_process(here))
    assert {run.name: evidence(run) for run in experiment.runs()} == whole


@pytest.mark.slow
def test_ctrl_c_commits_what_trains_and_the_same_command_goes_on(tmp_path: Path) -> None:
    with Terminal(tmp_path) as terminal:
        terminal.wait_for(terminal.trains)
        terminal.press_ctrl_c()
        assert terminal.ended() == 130
        shown = terminal.shown.decode()
        assert "stopping after this step (again: at once)" in shown
        assert re.search("of 4 runs done; of [12] more, what was trained is saved", shown)
        assert "the same command goes on from there" in shown
        assert "Traceback" not in shown
        resumed(terminal, tmp_path)


@pytest.mark.slow
def test_a_second_ctrl_c_leaves_at_once_and_the_disk_stays_whole(tmp_path: Path) -> None:
    with Terminal(tmp_path) as terminal:
        terminal.wait_for(terminal.trains)
        for worker in torture.children(terminal.process):
            os.kill(worker, signal.SIGSTOP)  # so that the first one has to wait
        terminal.press_ctrl_c()
        terminal.wait_for(lambda: b"stopping" in terminal.shown)
        terminal.press_ctrl_c()
        assert terminal.ended() == 130
        shown = terminal.shown.decode()
        assert "the same command goes on from the last checkpoint" in shown, "it waited for nobody"
        assert "Traceback" not in shown
        states = {store.read(run).state for run in terminal.experiment.runs()}
        assert "interrupted" in states
        assert "running" not in states


@pytest.mark.slow
def test_ctrl_c_while_the_workers_start(tmp_path: Path) -> None:
    """It reaches them too, before they have learned to leave it to the driver."""
    with Terminal(tmp_path) as terminal:
        terminal.wait_for(lambda: len(torture.children(terminal.process)) == 2)
        terminal.press_ctrl_c()
        assert terminal.ended() == 130
        assert "Traceback" not in terminal.shown.decode()
        assert all(store.read(run).state != "running" for run in terminal.experiment.runs())


@pytest.mark.slow
def test_sigterm_to_the_whole_group_commits_and_is_143(tmp_path: Path) -> None:
    """As schedulers and `timeout` send it."""
    with Terminal(tmp_path) as terminal:
        terminal.wait_for(terminal.trains)
        before = {run.name: committed_step(run) for run in terminal.experiment.runs()}
        os.killpg(terminal.process, signal.SIGTERM)
        assert terminal.ended() == 143
        after = {run.name: committed_step(run) for run in terminal.experiment.runs()}
        assert all(after[name] >= step for name, step in before.items())
        assert "interrupted" in {store.read(run).state for run in terminal.experiment.runs()}


# --- torture --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_random_kills_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`scripts/torture` for as long as CI can wait."""
    monkeypatch.setattr(torture, "LATEST", 1.0)  # so that four runs last until the last kill
    experiment = torture.EXPERIMENT.replace("seeds: 2", "seeds: 1")
    work = torture.Torture(tmp_path, seed=0, experiment=experiment)
    work.sweep_once(kills=4)
    assert work.tally.faults == []
    assert work.tally.total > 0, "more, unless this process was held up"
    assert work.tally.runs == 4


def test_negative_control_torture_notices_a_difference(tmp_path: Path) -> None:
    work = torture.Torture(tmp_path, seed=0, experiment=SMALL_YAML + "setups: {bn: {}}\n")
    name = next(iter(work.whole))
    work.whole[name]["events"][0]["loss"] = 0.0
    work.compare(ExperimentFolder(tmp_path / "reference" / "small"), number=1)
    assert work.tally.faults == [f"sweep 1: {name} differs"]
