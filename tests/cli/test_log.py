"""`log` of a file: what is not installed is said before anything is trained; where curves are."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from bnbench.config import loggers
from bnbench.config.loading import load_experiment
from tests.commands import bnbench
from tests.processes import completed
from tests.runs import write_experiment


@pytest.mark.parametrize(
    "command", ["train", "sweep", "sweep --dry-run", "sweep --json", "configs check"]
)
@pytest.mark.parametrize("folder", [False, True], ids=["nothing", "a folder called mlflow"])
def test_a_library_that_is_not_there_is_said_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, folder: bool
) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda _: ModuleSpec("x", None) if folder else None)
    monkeypatch.chdir(tmp_path)
    write_experiment(tmp_path / "study.yaml", "log: [tensorboard, mlflow]\n")
    said = bnbench(*command.split(), "study.yaml")
    assert said.code == 2
    assert said.out == ""
    assert said.err == (
        "study.yaml:12:6: log: mlflow is not installed\n"
        "  pip install 'bnbench[mlflow]', or mlflow; or leave it out of log\n"
    )
    assert [each.name for each in tmp_path.iterdir()] == ["study.yaml"]
    assert bnbench(*command.split(), "study.yaml", "--set", "log=[wandb]").err.startswith(
        "--set log: log: wandb is not installed"
    )


def test_what_is_stored_is_read_without_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_experiment(tmp_path / "study.yaml", "log: []\n")
    said = bnbench("train", "study.yaml")
    assert (said.code, "curves" in said.out) == (0, False)
    text = (tmp_path / "runs/study").glob("*/config.yaml")
    (run,) = [each.read_text() for each in text]
    assert run.endswith("log: []\n")
    monkeypatch.setattr(loggers, "find_spec", lambda _: None)
    study = tmp_path / "runs/study/experiment.yaml"
    write_experiment(study, "log: [trackio]\n")
    assert bnbench("report", "study").code == 0
    assert bnbench("status", "study").code == 0


def test_where_curves_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everywhere = "log: [tensorboard, wandb, mlflow, trackio]\n"
    experiment = load_experiment(write_experiment(tmp_path / "study.yaml", everywhere))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    place = tmp_path / "runs/study"
    assert [*loggers.curves(experiment, place)] == [
        f"bnbench tensorboard {place}",
        "W&B, project study",
        f"mlflow ui --backend-store-uri sqlite:///{place}/mlflow.db",
        "trackio show --project study",
    ]
    (place / "wandb/offline-run-1-a").mkdir(parents=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert [*loggers.curves(experiment, place)][1:3] == [
        f"wandb sync {place}/wandb/offline-run-*",
        "MLflow at http://127.0.0.1:1, experiment study",
    ]


def test_no_logger_is_imported_unasked() -> None:
    code = (
        "import sys, bnbench.runner.execution, bnbench.cli\n"
        "print({'wandb', 'mlflow', 'trackio', 'mlflow.entities'} & {*sys.modules})"
    )
    assert completed(sys.executable, "-c", code).stdout == "set()\n"
