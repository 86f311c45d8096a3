"""Runs in other people's loggers: W&B, MLflow and trackio, each a module that imports its library.

A logger keeps what it was told when a run is killed. So `LoggerSink` is given a run from its first
moment on, those of earlier attempts included, and tells the logger what that does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal, Protocol, TypeAlias, assert_never

from bnbench.errors import RunError
from bnbench.events import Diverged, Finished, Moment
from bnbench.sinks.scalars import Scalars
from bnbench.store import Record

Name: TypeAlias = Literal["wandb", "mlflow", "trackio"]
ROOM = 100_000
"""Bytes that a small run takes in a logger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What a run is called in a logger.

    `identifier`: of this run and of no other, the same however often it is resumed. `resumed`:
    whether it may be there already. `project`: the experiment. `group`: what its seeds share.
    `settings`: plain values by dotted key. `started`: seconds since the epoch.
    """

    identifier: str
    resumed: bool
    project: str
    group: str
    name: str
    tags: tuple[str, ...]
    settings: Mapping[str, bool | int | float | str]
    started: float


def labels_of(manifest: Record, identifier: str, *, resumed: bool) -> Labels:
    """From a run's manifest."""
    point = (f"{key}={value}" for key, value in manifest["point"].items() if value is not None)
    return Labels(
        identifier=identifier,
        resumed=resumed,
        project=manifest["experiment"],
        group=manifest["cell"],
        name=manifest["run"],
        tags=(manifest["setup"], *point),
        settings=manifest["hparams"] | {"seed": manifest["seed"]},
        started=manifest["started"],
    )


class Logger(Protocol):
    """One run in a logger's hands."""

    def has(self, tag: str, step: int) -> bool:
        """Whether an earlier attempt has logged this value, or one after it."""

    def log(self, values: Mapping[str, float], *, step: int, seconds: float) -> None:
        """Log values by tag. Steps only grow. `seconds`: of training work, since the start."""

    def close(self, *, ended: bool) -> None:
        """Send and release what is held. `ended`: the run has a result, and is not resumed."""


def lost(what: str, do: str) -> RunError:
    """The error where what a logger keeps on this machine would be lost."""
    return RunError(f"{what} would be lost with this worker: {do}")


def require_room(folder: Path, variable: str) -> None:
    """Ask before a library writes to a folder, which this environment variable may name, and, if it
    does not tell, after it: some try for minutes, some write elsewhere, some lose what they are
    told, without a word. Raises RunError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            file.write(bytes(ROOM))
    except OSError as error:
        do = f"set {variable} to another place"
        raise RunError(f"{folder} cannot be written: {error.strerror}; {do}") from None


class LoggerSink:
    """Shows a run in a logger, with TensorBoard's names and steps: images seen.

    A step is told once it is whole: loggers take no second value for one. Where a run stops, its
    last step is told by the attempt that goes on.
    """

    def __init__(self, logger: Logger, scalars: Scalars) -> None:
        self._logger, self._scalars = logger, scalars
        self._step, self._seconds = 0, 0.0
        self._values: dict[str, float] = {}
        self._ended = False

    def take(self, moment: Moment) -> None:
        """Log what came before this moment; keep its own numbers, which more may follow."""
        if moment.examples != self._step:
            self._tell()
        self._step, self._seconds = moment.examples, moment.train_seconds
        for fact in moment.facts:
            self._values |= self._scalars.of(fact, moment)
            self._ended |= isinstance(fact, Diverged | Finished)

    def close(self) -> None:
        """Log the last step of a run that has ended; release the logger in any case."""
        try:
            if self._ended:
                self._tell()
        finally:
            self._logger.close(ended=self._ended)

    def _tell(self) -> None:
        values, self._values = self._values, {}
        new = {tag: each for tag, each in values.items() if not self._logger.has(tag, self._step)}
        if new:
            self._logger.log(new, step=self._step, seconds=self._seconds)


def open_logger(name: Name, labels: Labels, folder: Path | None) -> Logger:
    """The logger that a configuration calls so: class `Run` of the module of this name.

    `folder`: the experiment's, for what is kept on this machine; None: what is would be lost, as in
    a worker without the driver's disk. Raises RunError there without a server, and what its library
    raises.
    """
    match name:
        case "wandb":
            from bnbench.sinks.loggers import wandb

            return wandb.Run(labels, folder)
        case "mlflow":
            from bnbench.sinks.loggers import mlflow

            return mlflow.Run(labels, folder)
        case "trackio":
            from bnbench.sinks.loggers import trackio

            return trackio.Run(labels, folder)
        case _:
            assert_never(name)
