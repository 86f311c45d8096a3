"""Runs in real loggers, without a network: read back, and compared with `metrics.jsonl`."""

from __future__ import annotations

import errno
import os
import random
import signal
import sys
from collections.abc import Iterator
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bnbench.config import identity, schema
from bnbench.runner.execution import execute
from bnbench.runner.settings import Settings
from bnbench.store import RunFolder
from tests.extras import required
from tests.loggers import CLOCK, READERS, Curves, Kept, stated
from tests.processes import completed
from tests.runs import committed_step, evidence, experiment_in, small_config
from tests.stub import build_stub

for library in READERS:
    required(library)
pytestmark = pytest.mark.xdist_group("loggers")  # another process would make MLflow's tables again
LOG: tuple[schema.Logger, ...] = ("tensorboard", "wandb", "mlflow", "trackio")


def logged(**changes: Any) -> schema.RunConfig:
    """A small run that states something after each step."""
    train = small_config().train.model_copy(update={"log_every": 1})
    return small_config(train=train, log=LOG, **changes)


@pytest.fixture(autouse=True, scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A place for all runs of this file: MLflow takes seconds to make its tables."""
    place = tmp_path_factory.mktemp("here")
    experiment = place / "small"
    # trackio reads the environment where it is imported.
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("WANDB_MODE", "offline")
        patched.setenv("TRACKIO_DIR", str(experiment / "trackio"))
        patched.setattr("trackio.sqlite_storage.TRACKIO_DIR", experiment / "trackio")
        yield place


def kept(folder: RunFolder, library: str) -> list[Kept]:
    """What a library has of the run."""
    return [each for each in READERS[library](folder.path.parent) if each.name == folder.name]


def same(folder: RunFolder, curves: Curves) -> None:
    """Every number that the run states is there once, in its order, and nothing else is."""
    expected = stated(folder)
    around = ("progress/", "summary/")
    assert {tag for tag in curves if not tag.startswith(around)} == {
        tag for tag in expected if not tag.startswith(around)
    }
    for tag, points in expected.items():
        assert curves[tag] == points, tag
    for tag, points in curves.items():
        steps = [step for step, _ in points]
        assert steps == sorted(set(steps)), tag


@pytest.fixture(scope="module")
def run(here: Path) -> RunFolder:
    """A run that nobody has disturbed."""
    said: list[str] = []
    settings = Settings(announce=said.append)
    folder = execute(logged(), experiment_in(here), settings, build_stub).folder
    assert said == []
    return folder


@pytest.mark.parametrize("library", READERS)
def test_every_number_is_there(run: RunFolder, library: str) -> None:
    (found,) = kept(run, library)
    same(run, found.curves)
    board = EventAccumulator(str(run.path), size_guidance={"scalars": 0})
    board.Reload()
    assert set(found.curves) == set(board.Tags()["scalars"])
    for tag, points in found.curves.items():
        shown = [(each.step, each.value) for each in board.Scalars(tag)]
        assert shown == [(step, pytest.approx(value, rel=1e-6)) for step, value in points], tag


@pytest.mark.parametrize("library", READERS)
def test_a_run_has_its_names_and_settings(run: RunFolder, library: str) -> None:
    (found,) = kept(run, library)
    manifest = run.manifest()
    assert manifest is not None
    assert found.group == manifest["cell"]
    expected = manifest["hparams"] | {"seed": 0}
    assert {key: str(found.settings[key]) for key in expected} == {
        key: str(value) for key, value in expected.items()
    }


def test_negative_control_a_number_too_few_or_too_many_is_noticed(run: RunFolder) -> None:
    curves = stated(run)
    same(run, curves)
    for points in (curves["loss/train"][:-1], [*curves["loss/train"], curves["loss/train"][-1]]):
        with pytest.raises(AssertionError):
            same(run, curves | {"loss/train": points})


@pytest.mark.usefixtures("run")  # torch itself sets something at the first run of a process
def test_loggers_change_no_bit_and_leave_the_process_as_it_was(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def around() -> list[Any]:
        handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
        hooks = [sys.exit, sys.excepthook, sys.stdout, sys.stderr]
        return [*handlers, *hooks, random.getstate(), dict(os.environ), Path.cwd(), children()]

    before = around()
    with_them = execute(logged(seed=1), experiment_in(here), Settings(), build_stub).folder
    assert around() == before
    assert capfd.readouterr() == ("", "")
    alone = logged(seed=1).model_copy(update={"log": ()})
    without = execute(alone, experiment_in(here / "alone"), Settings(), build_stub).folder
    assert evidence(with_them) == evidence(without)


@pytest.mark.slow
@pytest.mark.usefixtures("no_child_is_left")
def test_a_run_is_offline_where_the_server_does_not_answer(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", 40 * "a")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("bnbench.sinks.loggers.wandb.SECONDS_TO_CONNECT", 1.0)
    monkeypatch.setattr("bnbench.sinks.loggers.wandb.Run.unreachable", False)
    said: list[str] = []
    for seed in (3, 4):
        config = logged(seed=seed).model_copy(update={"log": ("wandb",)})
        folder = execute(
            config, experiment_in(here), Settings(announce=said.append), build_stub
        ).folder
        assert len(said) == 1
        (found,) = kept(folder, "wandb")
        same(folder, found.curves)
    (line,) = said
    assert line.startswith("warning: wandb: offline (")
    assert line.endswith(f"): wandb sync {folder.path.parent}/wandb/offline-run-*")


def test_a_server_that_does_not_answer_is_not_waited_for(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow itself would try for minutes."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    said: list[str] = []
    config = logged(seed=5).model_copy(update={"log": ("mlflow",)})
    monkeypatch.setattr("bnbench.sinks.loggers.mlflow.MlflowClient", None)  # is not asked
    execute(config, experiment_in(here), Settings(announce=said.append), build_stub)
    assert "mlflow failed and is left out (ConnectionRefusedError" in " ".join(said)


@pytest.mark.usefixtures("no_child_is_left")
@pytest.mark.parametrize(
    ("library", "variable", "value"),
    [
        ("wandb", "WANDB_DIR", "/proc/nope"),
        ("trackio", "TRACKIO_DIR", "/proc/nope"),
        ("mlflow", "MLFLOW_TRACKING_URI", "sqlite:////proc/nope/mlflow.db"),
    ],
)
def test_a_place_that_cannot_be_written_is_said(
    library: str, variable: str, value: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B itself would write elsewhere, trackio would lose all, MLflow would try for minutes."""
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", Path("/proc/nope"))
    said: list[str] = []
    config = logged(seed=7).model_copy(update={"log": (library,)})
    execute(config, experiment_in(here / library), Settings(announce=said.append), build_stub)
    assert said == [
        f"warning: {library} failed and is left out (/proc/nope cannot be written: No such file or "
        f"directory; set {variable} to another place); training goes on"
    ]


@pytest.mark.usefixtures("no_child_is_left")
def test_what_a_full_disk_may_have_cut_is_said(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B itself says nothing."""
    full = os.strerror(errno.ENOSPC)
    tries = count()

    def next_try(**_: object) -> BytesIO:
        if next(tries):
            raise OSError(errno.ENOSPC, full)
        return BytesIO()

    monkeypatch.setattr("bnbench.sinks.loggers.TemporaryFile", next_try)
    said: list[str] = []
    config = logged(seed=8).model_copy(update={"log": ("wandb",)})
    execute(config, experiment_in(here), Settings(announce=said.append), build_stub)
    assert len(said) == 1
    assert f"{here / 'small'} cannot be written: {full}" in said[0]


@pytest.fixture
def no_child_is_left() -> Iterator[None]:
    """Of the libraries' own processes."""
    before = children()
    yield
    assert children() == before


def children() -> list[int]:
    """Processes that this one has started and that are still there."""
    tasks = Path("/proc/self/task").glob("*/children")
    return sorted(int(each) for task in tasks for each in task.read_text().split())


KILLED = """
import os, signal, sys
from pathlib import Path
from bnbench.runner.execution import execute
from bnbench.runner.settings import Settings
from tests.runner.test_loggers import logged
from tests.runs import experiment_in
from tests.stub import build_stub

class Kill:
    def take(self, moment):
        if moment.step == {step}:
            os.kill(os.getpid(), signal.SIGKILL)
    def close(self): pass

settings = Settings(view=lambda *_: Kill())
execute(logged(seed=2), experiment_in(Path(sys.argv[1])), settings, build_stub)
"""


def kill_at(step: int, here: Path) -> None:
    """A run of its own process, which is killed when it has stated what it has to say of a step."""
    completed(sys.executable, "-c", KILLED.format(step=step), here, code=-signal.SIGKILL)


@pytest.mark.slow
def test_a_run_that_is_killed_twice_and_goes_on_is_one_run(here: Path) -> None:
    """First before there is a checkpoint, then six steps after the last one."""
    config = logged(seed=2)
    folder = experiment_in(here).run(identity.run_id(config))
    kill_at(3, here)
    assert committed_step(folder) == 0
    kill_at(15, here)
    assert committed_step(folder) == 12
    said: list[str] = []
    execute(config, experiment_in(here), Settings(announce=said.append), build_stub)
    assert said == []
    for library in READERS:
        (found,) = kept(folder, library)
        same(folder, found.curves)


def test_a_run_that_is_trained_again_is_another(here: Path) -> None:
    for settings in (Settings(), Settings(restart=True)):
        folder = execute(logged(seed=6), experiment_in(here), settings, build_stub).folder
    for library in READERS:
        first, second = (
            {tag: points for tag, points in each.curves.items() if tag not in CLOCK}
            for each in kept(folder, library)
        )
        assert first == second
