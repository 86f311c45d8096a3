"""Whole sweeps on a cluster: submitit's stand-in, and SLURM itself where its daemons start."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bnbench.config import loading, plans
from bnbench.runner.settings import Stop
from bnbench.sinks.terminal import Screen
from bnbench.store import ExperimentFolder, RunFolder
from tests.executors import in_process, sweep
from tests.extras import required
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


class Driver:
    """`bnbench sweep --on slurm` in a process of its own."""

    def __init__(self, folder: Path, environment: dict[str, str], *arguments: str) -> None:
        self._said = (
            folder / f"said-{time.monotonic()}"
        )  # a pipe would stay open as long as its tasks
        more = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "bnbench",
                    "sweep",
                    "small.yaml",
                    "--on",
                    "slurm",
                    *arguments,
                ],
                cwd=folder,
                env=environment | more | {"SLOW": str(folder / "slow")},
                stdout=subprocess.DEVNULL,
                stderr=said,
            )

    def ends(self, code: int) -> str:
        """What it has said by its end, with this exit code."""
        ended = self.process.wait(timeout=400)
        said = self._said.read_text()
        assert ended == code, said
        return said


def until(condition: Callable[[], Any], seconds: float = 240.0) -> Any:
    """What the condition gives as soon as it is something."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)
    return found


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


def local(folder: Path, *arguments: str) -> Driver:
    """A driver whose tasks are processes of this machine."""
    return Driver(folder, dict(os.environ), "--slurm", "cluster=local", *arguments)


def test_drivers_and_tasks_are_killed_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """Two tasks with four runs each: one is killed, one is told that its time is up; of two
    drivers, one is killed."""
    path = file_with(tmp_path, EIGHT)
    experiment = ExperimentFolder(tmp_path / "runs" / "small")
    first = local(tmp_path, "--workers", "2")
    killed, told = until(lambda: tasks_of(experiment))
    (tmp_path / "slow").touch()
    until(lambda: trains(experiment, killed) and trains(experiment, told))
    first.process.kill()
    first.process.wait()
    os.kill(child(told), signal.SIGUSR2)
    task = child(killed)
    os.kill(int(killed), signal.SIGKILL)
    os.kill(task, signal.SIGKILL)
    log = experiment.path / "slurm" / f"{told}_0_log.out"
    until(lambda: "Requeued job" in log.read_text())
    (tmp_path / "slow").unlink()
    said = local(tmp_path, "--workers", "2").ends(0)
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
    return subprocess.run(
        command, env=cluster, check=True, capture_output=True, text=True, timeout=30
    ).stdout.strip()


def test_slurm_queues_limits_requeues_and_cancels(cluster: dict[str, str], tmp_path: Path) -> None:
    """A driver leaves; a run reaches its time limit and queues up again; the next driver is
    stopped with Ctrl-C, the last one brings all to its end."""
    path = file_with(tmp_path, SLOWLY)
    experiment = ExperimentFolder(tmp_path / "runs" / "small")
    asked = ("--slurm", "partition=short", "--workers", "2")
    said = Driver(tmp_path, cluster, *asked, "--detach").ends(0)
    assert "2 runs submitted as job " in said
    (tmp_path / "slow").touch()
    until(lambda: any(run.is_saved() for run in experiment.runs() if "slow" in run.name))
    runs_of = tasks_of(experiment)
    ((task, slow),) = (
        (each, run) for each, runs in runs_of.items() for run in runs if "slow" in run.name
    )
    job = f"JobId={task}"
    elapsed = said_by(cluster, "squeue", "--noheader", f"--jobs={task}", "--format=%M")
    minutes = int(elapsed.rpartition(":")[0]) + 1
    said_by(cluster, "scontrol", "update", job, f"TimeLimit={minutes}")
    until(lambda: "Restarts=1" in said_by(cluster, "scontrol", "show", "job", task))
    said_by(cluster, "scontrol", "update", job, "TimeLimit=60")
    step = committed_step(slow)
    assert 0 < step < 600

    second = Driver(tmp_path, cluster, *asked)
    until(lambda: committed_step(slow) > step)
    second.process.send_signal(signal.SIGINT)
    assert "of 1 more, what was trained is saved" in second.ends(130)
    until(lambda: not said_by(cluster, "squeue", "--noheader"))
    assert committed_step(slow) < 600

    (tmp_path / "slow").unlink()
    Driver(tmp_path, cluster, *asked).ends(0)
    manifest = slow.manifest()
    assert manifest is not None
    assert manifest["attempts"] == 3
    assert ends_there(experiment) == ends_here(path, tmp_path)


def test_slurm_refuses_at_once(cluster: dict[str, str], tmp_path: Path) -> None:
    write_experiment(tmp_path / "small.yaml", "")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    said = Driver(tmp_path, cluster, "--slurm", "partition=nowhere").ends(2)
    assert "SLURM refuses the jobs: invalid partition specified: nowhere" in said
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert used < 8, "CPU seconds, of which importing torch takes two"
    assert not (tmp_path / "runs").exists()
