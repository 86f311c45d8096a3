"""A screen to read, and a folder."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from bnbench.cli.root import PlainConsole
from bnbench.sinks.terminal import Screen
from bnbench.store import ExperimentFolder
from tests.runs import experiment_in


@pytest.fixture
def screen() -> tuple[Screen, io.StringIO]:
    said = io.StringIO()
    return Screen(PlainConsole(file=said, width=200), runs=4), said


@pytest.fixture
def experiment(tmp_path: Path) -> ExperimentFolder:
    return experiment_in(tmp_path)
