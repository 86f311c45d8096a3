"""A short run of the stub, committed three times."""

from __future__ import annotations

from typing import Any

from bnbench.config import identity, schema
from bnbench.runner.execution import execute
from bnbench.runner.settings import Executed, Settings
from bnbench.store import ExperimentFolder, RunFolder
from tests.runs import evidence, small_config
from tests.stub import build_stub

CONFIG = small_config(
    train=schema.TrainConfig(
        steps=9, evaluations=2, evaluation_images=16, log_every=1, checkpoint_every=3
    )
)
"""Three commits, with events after each."""


def folder_of(experiment: ExperimentFolder) -> RunFolder:
    return experiment.run(identity.run_id(CONFIG))


def start(experiment: ExperimentFolder, **settings: Any) -> Executed:
    """Train it on the stub."""
    return execute(CONFIG, experiment, Settings(**settings), build_stub)


def trained(experiment: ExperimentFolder, **settings: Any) -> dict[str, Any]:
    """Go on to the result, and what is there then."""
    return evidence(start(experiment, **settings).folder)
