"""Runs trained without the driver's disk: the same folders, the same bits, whatever dies."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sys
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bnbench.config import files, identity, schema
from bnbench.errors import HeldError, Interrupted
from bnbench.runner.execution import execute
from bnbench.runner.settings import Settings, Stop
from bnbench.sinks.terminal import Screen
from bnbench.store import ExperimentFolder, read
from bnbench.sweeps.jobs import Check, Failed, SweepOutcome, Train
from bnbench.sweeps.shipping import Reply, Sent, Shipment, Shipping, _folder
from tests.executors import Elsewhere, in_process, sweep
from tests.injection import Killed, disk, kills, stopping
from tests.processes import completed
from tests.runs import (
    MANIFEST,
    committed_step,
    evidence,
    experiment_in,
    quiet_console,
    slow_norm,
    small_config,
)
from tests.stub import build_stub

LAYER = """
from torch import nn

class Scaled(nn.Module):
    def __init__(self, channels, scale):
        super().__init__()
        self.norm, self.scale = nn.BatchNorm2d(channels), scale

    def forward(self, x):
        assert self.scale > 0
        return self.scale * self.norm(x)
"""


def custom_config(folder: Path, *, scale: float = 0.5, **changes: Any) -> schema.RunConfig:
    """A run with a layer of the user's own, in a file."""
    (folder / "layer.py").write_text(LAYER)
    norm = schema.CustomNormConfig(
        kind="custom", target=f"{folder / 'layer.py'}:Scaled", options={"scale": scale}
    )
    return small_config(setup="custom", norm=norm, **changes)


def long_config(slow: Path) -> schema.RunConfig:
    """A run of 200 steps, committed after 20, which does not end while this file is there."""
    norm = schema.CustomNormConfig(**slow_norm(slow, quick=25))
    config = small_config(setup="slow", norm=norm)
    train = config.train.model_copy(
        update={"epochs": None, "steps": 200, "checkpoint_every": 20, "evaluations": 1}
    )
    return config.model_copy(update={"train": train})


def swept(
    runs: list[schema.RunConfig],
    experiment: ExperimentFolder,
    elsewhere: Elsewhere,
    *,
    stop: Stop | None = None,
    console: Console | None = None,
) -> SweepOutcome:
    """Sweep, with nothing but shipments."""
    screen = Screen(console or quiet_console(), runs=len(runs))
    with closing(Shipping(elsewhere, experiment)) as executor:
        return sweep(runs, experiment, executor, screen, stop or Stop())


def locally(path: Path, runs: list[schema.RunConfig]) -> ExperimentFolder:
    """The same runs in this process, in their folders."""
    experiment = experiment_in(path)
    with closing(in_process(experiment)) as executor:
        sweep(runs, experiment, executor, Screen(quiet_console(), runs=1), Stop())
    return experiment


def stored(experiment: ExperimentFolder) -> dict[str, Any]:
    """All runs' results, events and weights."""
    return {run.name: evidence(run) for run in experiment.runs()}


def names(experiment: ExperimentFolder) -> dict[str, list[str]]:
    """The files of each run; TensorBoard's carry the time in their names."""
    return {
        run.name: sorted(name.split(".out.")[0] for name in run.contents())
        for run in experiment.runs()
    }


KILLED = """
import os, signal
from bnbench.sweeps.shipping import _folder

with _folder() as folder:
    print(folder, end="", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_killed_workers_have_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "bnbench-mine").mkdir()
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    killed = completed(sys.executable, "-c", KILLED, code=-signal.SIGKILL, env=environment)
    left = Path(killed.stdout)
    assert left.parent == tmp_path
    assert left.exists()
    with _folder() as one, _folder():
        assert not left.exists()
        assert Path(one).exists(), "its worker lives"
    assert [each.name for each in tmp_path.iterdir()] == ["bnbench-mine"], "that is somebody's own"


class FarFrom(Elsewhere):
    """Processes that run where a file is not."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path, self._hidden = path, path.with_suffix(".hidden")

    def submit(self, shipment: Shipment) -> None:
        self._path.rename(self._hidden)
        super().submit(shipment)

    def answers(self, seconds: float) -> list[tuple[Shipment, Reply]]:
        replies = super().answers(seconds)
        if any(isinstance(reply, Sent) and reply.end for _, reply in replies):
            self._hidden.rename(self._path)
        return replies


@pytest.mark.slow
def test_another_disk_gives_the_same_folder(tmp_path: Path) -> None:
    """The layer's file does not exist where it is trained, and nobody there is told a folder."""
    config = custom_config(tmp_path)
    experiment, elsewhere = experiment_in(tmp_path / "runs"), FarFrom(tmp_path / "layer.py")
    outcome = swept([config], experiment, elsewhere)
    assert (outcome.trained, outcome.failures) == (1, [])
    here = locally(tmp_path / "here", [config])
    assert stored(experiment) == stored(here)
    assert names(experiment) == names(here)
    (folder,) = experiment.runs()
    assert folder.config_text() == files.dump(config)
    assert not folder.held()
    check, train = elsewhere.shipments
    assert isinstance(check.job, Check)
    assert isinstance(train.job, Train)
    assert str(experiment.path).encode() not in pickle.dumps(elsewhere.shipments)


@pytest.mark.slow
def test_a_run_whose_process_is_killed_goes_on_from_what_it_has_sent(tmp_path: Path) -> None:
    (slow := tmp_path / "slow").touch()
    config = long_config(slow)
    experiment = experiment_in(tmp_path)
    folder = experiment.run(identity.run_id(config))

    class Killing(Elsewhere):
        def answers(self, seconds: float) -> Any:
            trained = [each for each in self.shipments if isinstance(each.job, Train)]
            if committed_step(folder) > 0 and slow.exists():
                self.processes[trained[0]].kill()
                slow.unlink()
            return super().answers(seconds)

    with (tmp_path / "said").open("w+") as said:
        outcome = swept(
            [config], experiment, Killing(save_seconds=0.0), console=Console(file=said, width=200)
        )
        said.seek(0)
        assert (
            f"warning: the worker of {folder.name} ended with exit code -9; "
            "the run goes on in another\n"
        ) in said.readlines()
    assert outcome.trained == 1
    assert (folder.manifest() or {})["attempts"] == 2, "it went on, and did not begin again"
    assert stored(experiment) == stored(locally(tmp_path / "here", [config]))


@pytest.mark.slow
def test_a_stopped_run_comes_back_and_goes_on_anywhere(tmp_path: Path) -> None:
    (slow := tmp_path / "slow").touch()
    config = long_config(slow)
    experiment = experiment_in(tmp_path)
    folder = experiment.run(identity.run_id(config))
    stop = Stop()

    class Stopping(Elsewhere):
        def answers(self, seconds: float) -> Any:
            if committed_step(folder) > 0:
                stop.exit_code = 130
            return super().answers(seconds)

    with pytest.raises(Interrupted):
        swept([config], experiment, Stopping(save_seconds=0.0), stop=stop)
    slow.unlink()
    assert read(folder).state == "interrupted"
    assert 0 < committed_step(folder) < 200
    assert locally(tmp_path, [config]).path == experiment.path
    assert (folder.manifest() or {})["attempts"] == 2
    assert stored(experiment) == stored(locally(tmp_path / "here", [config]))


@pytest.mark.slow
def test_what_fails_elsewhere_is_told_with_paths_that_are_here(tmp_path: Path) -> None:
    config = custom_config(tmp_path, scale=-1.0)
    experiment = experiment_in(tmp_path / "runs")
    folder = experiment.run(identity.run_id(config))
    # It has begun before: its network is not checked again.
    folder.begin(config_text=files.dump(config), manifest=MANIFEST)
    ((name, message),) = swept([config], experiment, Elsewhere()).failures
    assert name == folder.name
    assert message == (
        f"the run failed: {tmp_path / 'layer.py'}:10: AssertionError\n"
        f"  the traceback is in {folder.path / 'error.json'}"
    )
    kept = folder.error() or {}
    assert "layer.py" in kept["traceback"]
    assert read(folder).state == "failed"


class Nowhere:
    """An executor that is given nothing."""

    size = 1
    queues = False

    def start(self, jobs: int) -> None:
        """Nothing is started."""

    def submit(self, shipment: Any) -> None:
        raise AssertionError(shipment)

    def answers(self, seconds: float) -> list[Any]:
        """There are none."""
        del seconds
        return []

    def ask_to_stop(self) -> None:
        """Nobody is asked."""

    def close(self) -> None:
        """Nothing is held."""


def test_a_run_that_another_process_trains_is_not_sent(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path)
    job = Train(small_config())
    with (
        experiment.run(identity.run_id(job.config)).hold(),
        closing(Shipping(Nowhere(), experiment)) as executor,
    ):
        executor.submit(job)
        ((answered, answer),) = executor.answers(0.0)
        assert answered is job
        assert isinstance(answer, Failed)
        assert isinstance(answer.error, HeldError)


# --- bringing a folder home -----------------------------------------------------------------------


def train_until(step: int | None, config: schema.RunConfig, experiment: ExperimentFolder) -> None:
    """Train, or go on, until a stop during a step; None: to the end."""
    stop = Stop()
    build = build_stub if step is None else stopping(build_stub, step, stop)
    with suppress(Interrupted):
        execute(config, experiment, Settings(stop=stop), build)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("begun", "until"), [(True, 12), (False, None)], ids=["begun and stopped", "new and finished"]
)
def test_killed_while_files_come_back_nothing_is_lost(
    tmp_path: Path, begun: bool, until: int | None
) -> None:
    """At any file operation: the run continues, from what was there or from what has come."""
    train = small_config().train.model_copy(update={"epochs": None, "steps": 16})
    config = small_config(train=train)
    name = identity.run_id(config)
    before = experiment_in(tmp_path / "before")
    before.begin("question: none\n")
    if begun:
        train_until(6, config, before)

    def as_before(path: Path) -> ExperimentFolder:
        return ExperimentFolder(Path(shutil.copytree(before.path, path)))

    elsewhere = as_before(tmp_path / "elsewhere")
    train_until(until, config, elsewhere)
    files = elsewhere.run(name).contents()
    undisturbed = experiment_in(tmp_path / "undisturbed")
    train_until(None, config, undisturbed)

    whole = as_before(tmp_path / "whole")
    with disk(whole.path) as seen:
        whole.run(name).adopt(files)
    assert whole.run(name).contents() == files
    for number, failure in kills(seen.seen):
        experiment = as_before(tmp_path / f"{number}-{failure}")
        with disk(experiment.path, number, failure) as killed, pytest.raises(Killed):
            experiment.run(name).adopt(files)
        assert read(experiment.run(name)).state in ("new", "interrupted", "completed")
        train_until(None, config, experiment)
        assert stored(experiment) == stored(undisturbed), f"{failure} at {killed.operation}"
