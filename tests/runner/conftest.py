"""The run of `three_commits`: undisturbed, and killed on its way."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from bnbench.runner.execution import execute
from bnbench.runner.settings import Settings
from bnbench.store import ExperimentFolder
from tests.injection import Killed, dying
from tests.runner.three_commits import CONFIG, trained
from tests.runs import experiment_in
from tests.stub import build_stub


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the run stores when nothing fails."""
    return trained(experiment_in(tmp_path_factory.mktemp("undisturbed")))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment whose run was killed two steps, with their events, after its second commit."""
    path = tmp_path_factory.mktemp("killed")
    with pytest.raises(Killed):
        execute(CONFIG, experiment_in(path), Settings(), dying(build_stub, 8))
    return path


@pytest.fixture
def interrupted(killed: Path, tmp_path: Path) -> ExperimentFolder:
    """A copy of that experiment, to be damaged."""
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    return experiment_in(tmp_path)
