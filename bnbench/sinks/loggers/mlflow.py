"""MLflow: where `MLFLOW_TRACKING_URI` says, else a SQLite file in the experiment's folder."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from bnbench.sinks.loggers import Labels, lost, require_room

STORE = "mlflow.db"
IDENTIFIER = "bnbench.run"
NAME_LENGTH, VALUE_LENGTH = 250, 6000
"""MLflow refuses longer names, and longer parameters."""

SECONDS_TO_CONNECT = 10

PARAMS, METRICS = 100, 1000
"""The most that MLflow takes at a time."""

T = TypeVar("T")


class Run:
    """A run of MLflow, found again by a tag."""

    def __init__(self, labels: Labels, folder: Path | None) -> None:
        self._started = labels.started
        self._last: dict[str, int] = {}
        uri, artifacts = os.environ.get("MLFLOW_TRACKING_URI"), None
        making: AbstractContextManager[object] = nullcontext()
        if not uri:
            if folder is None:
                raise lost(STORE, "set MLFLOW_TRACKING_URI there")
            uri = f"sqlite:///{folder.absolute() / STORE}"
            artifacts = (folder.absolute() / "mlflow-artifacts").as_uri()
            # Two workers that make the tables at the same time would fail.
            making = FileLock(folder / f"{STORE}.lock")
        _reach(uri)
        with making:
            self._client = MlflowClient(tracking_uri=uri)
            experiment = self._experiment(labels.project, artifacts)
        wanted = f"tags.`{IDENTIFIER}` = '{labels.identifier}'"
        found = labels.resumed and self._client.search_runs([experiment], wanted, max_results=1)
        if not found:
            self._run = self._begun(labels, experiment)
            return
        self._run = found[0].info.run_id
        self._client.update_run(self._run, status="RUNNING")
        for name in found[0].data.metrics:
            history = self._client.get_metric_history(self._run, name)
            self._last[name] = max(each.step for each in history)

    def _experiment(self, name: str, artifacts: str | None) -> str:
        """The id of MLflow's experiment, which another worker may be making on a server."""
        if found := self._client.get_experiment_by_name(name):
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:
            if found := self._client.get_experiment_by_name(name):
                return str(found.experiment_id)
            raise

    def _begun(self, labels: Labels, experiment: str) -> str:
        tags = {IDENTIFIER: labels.identifier, "cell": labels.group, "tags": ", ".join(labels.tags)}
        run = self._client.create_run(
            experiment, start_time=self._at(0.0), tags=tags, run_name=labels.name
        )
        params = [
            Param(_allowed(key), str(value)[:VALUE_LENGTH])
            for key, value in labels.settings.items()
        ]
        for part in _parts(params, PARAMS):
            self._client.log_batch(run.info.run_id, params=part)
        return str(run.info.run_id)

    def has(self, tag: str, step: int) -> bool:
        """By the last step of each metric: a kill may have left a part of a step."""
        return step <= self._last.get(_allowed(tag), -1)

    def log(self, values: Mapping[str, float], *, step: int, seconds: float) -> None:
        """MLflow's times are those of training, as TensorBoard's are."""
        at = self._at(seconds)
        metrics = [Metric(_allowed(tag), float(value), at, step) for tag, value in values.items()]
        for part in _parts(metrics, METRICS):
            self._client.log_batch(self._run, metrics=part)

    def close(self, *, ended: bool) -> None:
        """Say how the run has ended."""
        self._client.set_terminated(self._run, status="FINISHED" if ended else "KILLED")

    def _at(self, seconds: float) -> int:
        """Milliseconds since the epoch."""
        return round(1000 * (self._started + seconds))


def _allowed(name: str) -> str:
    """A name with the characters that MLflow takes: layers of the user's own may have others."""
    return re.sub(r"[^\w\-. /:]", "_", name, flags=re.ASCII)[:NAME_LENGTH]


def _parts(items: Sequence[T], size: int) -> list[Any]:
    return [items[at : at + size] for at in range(0, len(items), size)]


def _reach(uri: str) -> None:
    """Raises OSError where no server answers, and RunError where a SQLite file cannot be: MLflow
    would try for minutes."""
    server = urlsplit(uri)
    if server.scheme.startswith("sqlite") and server.path:
        require_room(Path(server.path[1:]).absolute().parent, "MLFLOW_TRACKING_URI")
    if server.scheme in ("http", "https") and server.hostname:
        port = server.port or (443 if server.scheme == "https" else 80)
        socket.create_connection((server.hostname, port), SECONDS_TO_CONNECT).close()
