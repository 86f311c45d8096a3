"""Loggers that fail, are left out or come later: runs do not mind."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bnbench.board.bands import update_tensorboard
from bnbench.board.rebuild import rebuild
from bnbench.config import files, identity, loading, schema
from bnbench.runner import views
from bnbench.runner.execution import execute
from bnbench.runner.settings import Settings
from bnbench.sinks.loggers import Labels
from bnbench.store import RunFolder
from tests.runs import evidence, experiment_in, small_config
from tests.stub import build_stub


class Fake:
    """A logger that fails at its n-th call, and does what libraries had better not do."""

    def __init__(self, fails_at: int, error: BaseException) -> None:
        self.calls, self.fails_at, self.error = 0, fails_at, error
        self.rows: list[int] = []
        self._call()

    def _call(self) -> None:
        print("a library says hello")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        sys.exit = exit
        self.calls += 1
        if self.calls == self.fails_at:
            raise self.error

    def has(self, tag: str, step: int) -> bool:  # noqa: ARG002
        return False

    def log(self, values: Mapping[str, float], *, step: int, seconds: float) -> None:  # noqa: ARG002
        self._call()
        self.rows.append(step)

    def close(self, *, ended: bool) -> None:  # noqa: ARG002
        self._call()


def config(*log: schema.Logger, **changes: Any) -> schema.RunConfig:
    """A small run with these loggers."""
    return small_config(log=log, **changes)


def run(path: Path, config: schema.RunConfig, settings: Settings | None = None) -> RunFolder:
    """Train it, as a stub."""
    return execute(config, experiment_in(path), settings or Settings(), build_stub).folder


@pytest.mark.parametrize("fails_at", [1, 2, 5, 100])
@pytest.mark.parametrize("error", [OSError("no\nnetwork"), SystemExit(3)], ids=["raises", "exits"])
def test_a_logger_that_fails_costs_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    fails_at: int,
    error: BaseException,
) -> None:
    monkeypatch.setattr(views, "open_logger", lambda *_: Fake(fails_at, error))
    said: list[str] = []
    leave = sys.exit
    folder = run(tmp_path, config("wandb", "tensorboard"), Settings(announce=said.append))
    why = "OSError: no network" if isinstance(error, OSError) else "SystemExit: 3"
    line = f"warning: wandb failed and is left out ({why}); training goes on"
    assert said == ([line] if fails_at < 100 else [])
    assert evidence(folder) == evidence(run(tmp_path / "without", config()))
    assert folder.views()
    assert sys.exit is leave
    assert capfd.readouterr() == ("", "")


def test_what_a_library_warns_its_users_of_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Warns(Fake):
        def close(self, *, ended: bool) -> None:  # noqa: ARG002
            warnings.warn("some rows are not stored", stacklevel=1)

    monkeypatch.setattr(views, "open_logger", lambda *_: Warns(100, OSError()))
    said: list[str] = []
    run(tmp_path, config("trackio"), Settings(announce=said.append))
    assert said == ["warning: trackio: some rows are not stored"]


def test_without_tensorboard_there_are_no_event_files_until_they_are_asked_for(
    tmp_path: Path,
) -> None:
    probes = schema.ProbesConfig(running_error=True)
    folder = run(tmp_path, config(probes=probes))
    update_tensorboard(experiment_in(tmp_path), pytest.fail)
    assert [*experiment_in(tmp_path).path.rglob("*tfevents*")] == []
    assert rebuild(experiment_in(tmp_path))[:2] == (1, [])
    with_it = run(tmp_path / "with", config("tensorboard", probes=probes))
    assert len(folder.views()) == len(with_it.views()) == 2


def test_loggers_are_no_part_of_what_a_run_is(tmp_path: Path) -> None:
    plain, logged = small_config(), config("tensorboard", "mlflow")
    assert identity.identity(plain) == identity.identity(logged)
    assert identity.hparams(plain) == identity.hparams(logged)
    assert "log:" not in files.dump(plain)
    (tmp_path / "config.yaml").write_text(files.dump(logged))
    assert loading.load_run(tmp_path) == logged


def test_a_run_that_has_ended_is_not_sent_to_a_logger_that_comes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, config("tensorboard"))
    monkeypatch.setattr(views, "open_logger", lambda *_: pytest.fail("it is opened"))
    for log, otherwise in (
        (("mlflow", "trackio"), ("log: it ended without mlflow, trackio",)),
        ((), ()),
        (("tensorboard",), ()),
    ):
        again = execute(config(*log), experiment_in(tmp_path), Settings(), build_stub)
        assert again.found
        assert again.otherwise == otherwise


def test_a_run_has_one_identifier_until_it_is_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Labels] = []

    def opened(_: str, labels: Labels, __: Path) -> Fake:
        found.append(labels)
        return Fake(100, OSError())

    monkeypatch.setattr(views, "open_logger", opened)
    logged = config("wandb")
    folder = experiment_in(tmp_path).run(identity.run_id(logged))

    def fails(*_: Any, **__: Any) -> Any:
        made, facts = build_stub(*_, **__)
        step = made.batch_at

        def batch_at(at: int) -> Any:
            if at == 2:
                raise ValueError("no more")
            return step(at)

        return replace(made, batch_at=batch_at), facts

    with pytest.raises(Exception, match="no more"):
        execute(logged, experiment_in(tmp_path), Settings(), fails)
    assert not folder.is_saved()
    run(tmp_path, logged)
    run(tmp_path, logged, Settings(restart=True))
    first, second, third = found
    assert first.identifier == second.identifier != third.identifier
    assert [each.resumed for each in found] == [False, True, False]


def test_what_would_be_lost_with_a_worker_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path | None] = []

    def opened(_: str, __: Labels, folder: Path | None) -> Fake:
        folders.append(folder)
        return Fake(100, OSError())

    monkeypatch.setattr(views, "open_logger", opened)
    run(tmp_path, config("mlflow"), Settings(lasting=False))
    run(tmp_path / "here", config("mlflow"))
    assert folders == [None, experiment_in(tmp_path / "here").path]


def test_a_run_that_is_taken_over_is_logged_under_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[Labels, Fake]] = []

    def opened(_: str, labels: Labels, __: Path) -> Fake:
        found.append((labels, Fake(100, OSError())))
        return found[-1][1]

    monkeypatch.setattr(views, "open_logger", opened)
    first = run(tmp_path, config("wandb"))
    other = experiment_in(tmp_path).path.parent / "other"
    settings = Settings(siblings=(experiment_in(tmp_path).path,))
    taken = config("wandb", experiment="other")
    execute(taken, type(experiment_in(tmp_path))(other), settings, build_stub)
    (of_first, told_first), (of_other, told_other) = found
    assert of_first.name == of_other.name == first.name
    assert (of_first.project, of_other.project) == ("small", "other")
    assert of_first.identifier != of_other.identifier
    assert told_first.rows == told_other.rows
