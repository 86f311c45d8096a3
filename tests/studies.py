"""A finished experiment: two batch sizes, two seeds, a setup that diverges and a resumed run; and
TensorBoard on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bnbench.board.bands import update_tensorboard
from bnbench.config import files, loading, plans
from bnbench.errors import Interrupted
from bnbench.runner.execution import execute
from bnbench.runner.settings import Settings, Stop
from bnbench.store import ExperimentFolder
from tests.processes import LIMIT, SHARED, started
from tests.runs import StopAt, write_experiment

QUESTION = "Which one survives small batches?"
SETUPS = """\
setups:
  bn: {norm: {kind: batch}}
  gn: {norm: {kind: group, groups: 2}}
  wild: {norm: {kind: none}, optim: {lr: 1.0e+6}}
axes: {data.batch_size: [4, 16]}
seeds: 2
probes: {histograms: {every: 2}}
"""
RESUMED = "bn_bs004_s01"
DIVERGING = "wild"


def finished(path: Path) -> ExperimentFolder:
    """Train it below `path`."""
    write_experiment(path / "study.yaml", f"question: {QUESTION}\n{SETUPS}")
    experiment = loading.load_experiment(path / "study.yaml")
    folder = ExperimentFolder(path / "runs" / "study")
    folder.begin(files.dump_experiment(experiment))
    for run in plans.expand(experiment).runs:
        stop = Stop()
        settings = Settings(stop=stop, view=lambda *_, at=stop: StopAt(at, 30))
        if (run.setup, run.seed) == ("bn", 1) and run.data.batch_size == 4:
            with pytest.raises(Interrupted):
                execute(run, folder, settings)
        execute(run, folder, Settings())
    update_tensorboard(folder, pytest.fail)  # as at the end of a sweep
    return folder


@contextmanager
def served(folder: ExperimentFolder, *, port: int = 6006) -> Iterator[Served]:
    """`bnbench tensorboard` on it, in a process of its own, until Ctrl-C."""
    command = [sys.executable, "-m", "bnbench", "tensorboard", str(folder.path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    command += ["--port", str(port)]
    with started(*command, seconds=SHARED, env=environment, **pipes) as process:
        found = Served(process)
        assert process.stdout is not None
        for line in process.stdout:
            found.out.append(line.rstrip("\n"))
            if line.startswith("from another machine"):
                break
        yield found
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        out, err = process.communicate(timeout=LIMIT)
        found.out.extend(out.splitlines())
        found.err.extend(err.splitlines())


@dataclass(frozen=True)
class Served:
    """A process that serves, and what it has said; its errors are known when it has ended."""

    process: subprocess.Popen[str]
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)

    @property
    def link(self) -> str:
        """The address that it names."""
        (line,) = [line.strip() for line in self.out if line.strip().startswith("http")]
        return line
