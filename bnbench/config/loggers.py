"""The loggers that `log` names: whether their libraries are there, and where they show runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import assert_never

from bnbench.config import schema
from bnbench.config.experiments import ExperimentConfig
from bnbench.config.faults import Faults


def require(experiment: ExperimentConfig) -> None:
    """Whoever trains asks before the first run. Raises ConfigError for what is not installed."""
    faults = Faults()
    for name in experiment.log:
        if name not in schema.LOGGERS and not _installed(name):
            do = f"pip install 'bnbench[{name}]', or {name}; or leave it out of log"
            faults.add(experiment.log_place, f"log: {name} is not installed", do)
    if faults.found:
        raise faults.error()


def curves(experiment: ExperimentConfig, folder: Path) -> Iterator[str]:
    """Where each logger shows the runs of the experiment in this folder: a command, or a place."""
    for name in experiment.log:
        match name:
            case "tensorboard":
                yield f"bnbench tensorboard {folder}"
            case "wandb" if [*folder.glob("wandb/offline-run-*")]:
                yield f"wandb sync {folder}/wandb/offline-run-*"
            case "wandb":
                yield f"W&B, project {experiment.name}"
            case "mlflow" if uri := os.environ.get("MLFLOW_TRACKING_URI"):
                yield f"MLflow at {uri}, experiment {experiment.name}"
            case "mlflow":
                yield f"mlflow ui --backend-store-uri sqlite:///{folder}/mlflow.db"
            case "trackio":
                yield f"trackio show --project {experiment.name}"
            case _:
                assert_never(name)


def _installed(name: str) -> bool:
    """Without importing it. A folder of its name, as wandb makes one, is no library."""
    found = find_spec(name)
    return found is not None and found.origin is not None
