"""A finished experiment, to look at and to damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bnbench.store import ExperimentFolder
from tests.studies import finished


@pytest.fixture(scope="package")
def study(tmp_path_factory: pytest.TempPathFactory) -> ExperimentFolder:
    """The finished experiment: only to be read."""
    return finished(tmp_path_factory.mktemp("study"))


@pytest.fixture
def own_study(study: ExperimentFolder, tmp_path: Path) -> ExperimentFolder:
    """A copy, to damage."""
    shutil.copytree(study.path, tmp_path / "runs" / "study")
    return ExperimentFolder(tmp_path / "runs" / "study")
