"""Whole sweeps on a cluster: submitit's stand-in, and SLURM itself where its daemons start."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bnbench.config import loading, plans
from bnbench.runner.settings import Stop
from bnbench.sinks.terminal import Screen
from bnbench.store import ExperimentFolder, RunFolder
from tests.executors import in_process, sweep
from tests.extras import required
from tests.processes import completed, started, wait_until
from tests.runs import committed_step, evidence, experiment_in, quiet_console, write_experiment
from tests.sweeps.slurm import daemons

submitit = required("submitit")

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parents[3]
EIGHT = """\
setups: {slow: {norm: {kind: custom, target: slow.py:Slow}, train: {steps: 40}}, bn: {}}
seeds: 4
"""
SLOW = """\
import os, time
from torch import nn

class Slow(nn.BatchNorm2d):
    def forward(self, x):
        if self.training and os.path.exists(os.environ.get("SLOW", "")):
            time.sleep(0.5)
        return super().forward(x)
"""
"""While a file is there, a step of this takes time, and no core."""


@dataclass(frozen=True)
class Driver:
    """`bnbench sweep --on slurm` in a process of its own, and the file to which it says things."""

    process: subprocess.Popen[str]
    said: Path

    def ends(self, code: int) -> str:
        """What it has said by its end, with this exit code."""
        ended = self.process.wait()
        assert ended == code, self.said.read_text()
        return self.said.read_text()


Drive = Callable[..., Driver]


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    """Starts drivers, with more of an environment and of arguments; killed at the end of the test,
    with tasks that are processes of this machine."""
    with ExitStack() as running:

        def start(environment: dict[str, str], *arguments: str) -> Driver:
            more = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
            more["SLOW"] = str(tmp_path / "slow")
            # A pipe would stay open as long as its tasks.
            said = tmp_path / f"said-{time.monotonic()}"
            process = started(
                *(sys.executable, "-m", "bnbench", "sweep", "small.yaml", "--on", "slurm"),
                *arguments,
                cwd=tmp_path,
                env=environment | more,
                stdout=subprocess.DEVNULL,
                stderr=running.enter_context(said.open("wb")),
            )
            return Driver(running.enter_context(process), said)

        yield start


def ends_here(path: Path, folder: Path) -> dict[str, Any]:
    """What the runs of a file leave when they are trained in this process."""
    here = experiment_in(folder / "here")
    runs = list(plans.expand(loading.load_experiment(path)).runs)
    with closing(in_process(here)) as executor:
        sweep(runs, here, executor, Screen(quiet_console(), runs=1), Stop())
    return {run.name: evidence(run) for run in here.runs()}


def ends_there(experiment: ExperimentFolder) -> dict[str, Any]:
    """What they have left on the cluster."""
    return {run.name: evidence(run) for run in experiment.runs()}


def tasks_of(experiment: ExperimentFolder) -> dict[str, list[RunFolder]]:
    """The runs of each task of the only array there is, or nothing yet."""
    for record in experiment.kept("slurm/tasks_*.json").values():
        return {
            task: [run for run in experiment.runs() if run.name.rpartition("_")[2] in runs]
            for task, runs in json.loads(record).items()
        }
    return {}


def trains(experiment: ExperimentFolder, task: str) -> bool:
    """Whether a task is in the middle of a run."""
    return any(run.is_saved() and run.result() is None for run in tasks_of(experiment)[task])


def child(process: str) -> int:
    """The only process that it has started."""
    (found,) = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return int(found)


def file_with(folder: Path, more: str) -> Path:
    """An experiment with slow runs."""
    (folder / "slow.py").write_text(SLOW)
    return write_experiment(folder / "small.yaml", more)


# --- submitit's stand-in --------------------------------------------------------------------------


def test_drivers_and_tasks_are_killed_and_nothing_is_lost_or_doubled(
    drive: Drive, tmp_path: Path
) -> None:
    """Two tasks with four runs each: one is killed, one is told that its time is up; of two
    drivers, one is killed."""
    path = file_with(tmp_path, EIGHT)
    experiment = ExperimentFolder(tmp_path / "runs" / "small")
    local = (dict(os.environ), "--slurm", "cluster=local", "--workers", "2")
    first = drive(*local)
    killed, told = wait_until(lambda: tasks_of(experiment))
    (tmp_path / "slow").touch()
    wait_until(lambda: trains(experiment, killed) and trains(experiment, told))
    first.process.kill()
    first.process.wait()
    os.kill(child(told), signal.SIGUSR2)
    task = child(killed)
    os.kill(int(killed), signal.SIGKILL)
    os.kill(task, signal.SIGKILL)
    log = experiment.path / "slurm" / f"{told}_0_log.out"
    wait_until(lambda: "Requeued job" in log.read_text())
    (tmp_path / "slow").unlink()
    said = drive(*local).ends(0)
    assert re.search(r"^1 task of an earlier command still there$", said, re.MULTILINE), said
    assert ends_there(experiment) == ends_here(path, tmp_path)


# --- SLURM itself ---------------------------------------------------------------------------------

SLOWLY = """\
setups:
  slow: {norm: {kind: custom, target: slow.py:Slow}, train: {steps: 600, checkpoint_every: 10}}
  bn: {}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which SLURM is found."""
    why = daemons.missing()
    if why is not None and os.environ.get("BNBENCH_SLURM") != "required":
        pytest.skip(why)
    with daemons.running(tmp_path_factory.mktemp("slurm") / "run") as environment:
        yield environment


def said_by(cluster: dict[str, str], *command: str) -> str:
    """What one of SLURM's commands prints."""
    return completed(*command, env=cluster).stdout.strip()


def test_slurm_queues_limits_requeues_and_cancels(
    cluster: dict[str, str], drive: Drive, tmp_path: Path
) -> None:
    """A driver leaves; a run reaches its time limit and queues up again; the next driver is
    stopped with Ctrl-C, the last one brings all to its end."""
    path = file_with(tmp_path, SLOWLY)
    experiment = ExperimentFolder(tmp_path / "runs" / "small")
    asked = ("--slurm", "partition=short", "--workers", "2")
    said = drive(cluster, *asked, "--detach").ends(0)
    assert "2 runs submitted as job " in said
    (tmp_path / "slow").touch()
    wait_until(lambda: any(run.is_saved() for run in experiment.runs() if "slow" in run.name))
    runs_of = tasks_of(experiment)
    ((task, slow),) = (
        (each, run) for each, runs in runs_of.items() for run in runs if "slow" in run.name
    )
    job = f"JobId={task}"
    elapsed = said_by(cluster, "squeue", "--noheader", f"--jobs={task}", "--format=%M")
    minutes = int(elapsed.rpartition(":")[0]) + 1
    said_by(cluster, "scontrol", "update", job, f"TimeLimit={minutes}")
    wait_until(lambda: "Restarts=1" in said_by(cluster, "scontrol", "show", "job", task), pause=0.5)
    said_by(cluster, "scontrol", "update", job, "TimeLimit=60")
    step = committed_step(slow)
    assert 0 < step < 600

    second = drive(cluster, *asked)
    wait_until(lambda: committed_step(slow) > step)
    second.process.send_signal(signal.SIGINT)
    assert "of 1 more, what was trained is saved" in second.ends(130)
    wait_until(lambda: not said_by(cluster, "squeue", "--noheader"), pause=0.5)
    assert committed_step(slow) < 600

    (tmp_path / "slow").unlink()
    drive(cluster, *asked).ends(0)
    manifest = slow.manifest()
    assert manifest is not None
    assert manifest["attempts"] == 3
    assert ends_there(experiment) == ends_here(path, tmp_path)


def test_what_slurm_refuses_is_said(cluster: dict[str, str], drive: Drive, tmp_path: Path) -> None:
    write_experiment(tmp_path / "small.yaml", "")
    said = drive(cluster, "--slurm", "partition=nowhere").ends(2)
    assert "SLURM refuses the jobs: invalid partition specified: nowhere" in said
    assert not (tmp_path / "runs").exists()
