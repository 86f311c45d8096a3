"""Random SIGKILLs of real sweeps, and whether anything was lost, doubled or changed by them.

`scripts/torture` runs it for as long as asked, a slow test for a few kills.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bnbench.config import loading, plans
from bnbench.runner.settings import Stop
from bnbench.sinks.terminal import Screen
from bnbench.store import ExperimentFolder
from tests.executors import in_process, sweep
from tests.processes import LIMIT, lives, wait_until
from tests.runs import committed_step, evidence, quiet_console

EXPERIMENT = """\
data:
  dataset: synthetic
  train_images: 640
  test_images: 64
  classes: 4
  image_size: 8
  validation_size: 64
  eval_batch_size: 32
  augment: flip-crop
model: {widths: [4, 8], blocks: 1, dropout: 0.2}
optim: {lr: 0.05}
train: {steps: 500, evaluations: 5, evaluation_images: 32, log_every: 7, checkpoint_every: 11}
setups:
  none: {norm: {kind: none}}
  bn: {}
axes: {data.batch_size: [8, 32]}
seeds: 2
"""
"""Eight runs of about two seconds, each committed some forty times."""

SOONEST, LATEST = 0.01, 3.0
"""Seconds between the first sign of training and a kill, at log-uniform distances."""


@dataclass(slots=True)
class Tally:
    """What has been done, and what has gone wrong."""

    kills: dict[str, int] = field(default_factory=lambda: {"worker": 0, "driver": 0, "group": 0})
    sweeps: int = 0
    runs: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Kills of all kinds."""
        return sum(self.kills.values())


class Torture:
    """Sweeps of one experiment, each killed several times and then compared."""

    def __init__(self, folder: Path, seed: int, *, experiment: str = EXPERIMENT) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.tally = Tally()
        self._folder = folder
        self._random = random.Random(seed)
        (folder / "small.yaml").write_text(experiment)
        self._configs = plans.expand(loading.load_experiment(folder / "small.yaml")).runs
        self.whole = self._undisturbed()

    def _undisturbed(self) -> dict[str, Any]:
        """What is stored when nobody disturbs it: one run after the other, in this process."""
        reference = ExperimentFolder(self._folder / "reference" / "small")
        executor = in_process(reference)
        sweep(self._configs, reference, executor, Screen(quiet_console(), runs=1), Stop())
        return {run.name: evidence(run) for run in reference.runs()}

    def sweep_once(self, kills: int) -> None:
        """One sweep, killed so often, run again each time, and compared when it has ended."""
        number = self.tally.sweeps = self.tally.sweeps + 1
        experiment = ExperimentFolder(self._folder / f"runs-{number}" / "small")
        progress: dict[str, int] = {}
        left = kills
        while True:
            driver = self._start(experiment)
            try:
                for _ in range(left):
                    if not self._wait_for_training(driver, experiment):
                        break
                    left -= 1
                    victim = self._kill(driver)
                    self.tally.kills[victim] += 1
                    self._compare_progress(experiment, progress)
                    if victim != "worker":
                        break
                code, said = self._end(driver)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(driver.pid, signal.SIGKILL)
            # A worker that was being started has no more to read: Python says so, not we.
            traces = said.split("Traceback")[1:]
            if any("EOFError: Ran out of input" not in each for each in traces):
                self.tally.faults.append(f"sweep {number}: a traceback:\n{said}")
            if code == 0:
                break
            # 1: a run whose workers were killed three times is failed; it is to be retried.
            if code not in (-signal.SIGKILL, 1):
                self.tally.faults.append(f"sweep {number}: exit code {code}:\n{said}")
                return
        self.compare(experiment, number)

    def _start(self, experiment: ExperimentFolder) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "bnbench", "sweep", "small.yaml", "--quiet"]
        command += ["--retry-failed", "--workers", "2", "--runs-dir", str(experiment.path.parent)]
        return subprocess.Popen(
            command,
            cwd=self._folder,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _wait_for_training(
        self, driver: subprocess.Popen[str], experiment: ExperimentFolder
    ) -> bool:
        """Until some run has stated something new, and then a little; False where it has ended."""
        before = _written(experiment)
        begun = time.monotonic()
        while _written(experiment) <= before:
            if driver.poll() is not None:
                return False
            if time.monotonic() - begun > LIMIT:
                self.tally.faults.append("a sweep hangs")
                return False
            time.sleep(0.005)
        time.sleep(math.exp(self._random.uniform(math.log(SOONEST), math.log(LATEST))))
        return driver.poll() is None

    def _kill(self, driver: subprocess.Popen[str]) -> str:
        victim = self._random.choices(("worker", "driver", "group"), (6, 1, 1))[0]
        workers = children(driver.pid)
        with contextlib.suppress(ProcessLookupError):
            if victim == "worker" and workers:
                os.kill(self._random.choice(workers), signal.SIGKILL)
                return "worker"
            if victim == "group":
                os.killpg(driver.pid, signal.SIGKILL)
            else:
                victim = "driver"
                driver.kill()
        driver.wait()
        self._expect_workers_to_end(workers)
        return victim

    def _expect_workers_to_end(self, workers: list[int]) -> None:
        try:
            wait_until(lambda: not any(map(lives, workers)))
        except AssertionError as late:
            self.tally.faults.append(f"workers outlive their driver: {late}")

    def _end(self, driver: subprocess.Popen[str]) -> tuple[int, str]:
        try:
            _, said = driver.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(driver.pid, signal.SIGKILL)  # all that might hold its streams
            _, said = driver.communicate()
            self.tally.faults.append("a sweep hangs at its end")
        return driver.returncode, said

    def _compare_progress(self, experiment: ExperimentFolder, progress: dict[str, int]) -> None:
        """No run may fall behind what it has committed."""
        for run in experiment.runs():
            step = committed_step(run)
            if 0 < step < progress.get(run.name, 0):
                self.tally.faults.append(f"{run}: from step {progress[run.name]} to {step}")
            progress[run.name] = max(step, progress.get(run.name, 0))

    def compare(self, experiment: ExperimentFolder, number: int) -> None:
        """Every run must be what nobody disturbed."""
        found = {run.name: evidence(run) for run in experiment.runs() if run.result()}
        self.tally.runs += len(found)
        for name, whole in self.whole.items():
            if found.get(name) != whole:
                self.tally.faults.append(f"sweep {number}: {name} differs")
        if found.keys() - self.whole.keys():
            self.tally.faults.append(f"sweep {number}: runs that nobody asked for")


def _written(experiment: ExperimentFolder) -> float:
    """When a run last stated something."""
    times = [0.0]
    for path in experiment.path.glob("*/metrics.jsonl"):
        with contextlib.suppress(FileNotFoundError):
            times.append(path.stat().st_mtime)
    return max(times)


def children(process: int) -> list[int]:
    """The workers of a driver: its child processes. Linux."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*"):
        with contextlib.suppress(OSError):  # a thread that ends meanwhile
            for child in (task / "children").read_text().split():
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
    return found
