"""For executors whose workers share no disk with the driver: what is sent, and how it comes back.

The driver holds the lock of a run while it is trained elsewhere. It sends the files of the run that
it has, and the content of the user's own code files. The worker trains in a temporary folder and
sends that folder's files back: when the run ends, and now and then before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias, TypeVar

from bnbench import config as configuration
from bnbench.config import custom, schema
from bnbench.errors import BnbenchError, StorageError
from bnbench.runner import Stop
from bnbench.store import ExperimentFolder, RunFolder
from bnbench.store.run_folder import CHECKPOINT, CONFIG, ERROR
from bnbench.sweep.jobs import (
    Answer,
    Check,
    End,
    Executor,
    Failed,
    Job,
    Lost,
    Said,
    Stated,
    Train,
    Trained,
    WorkerOptions,
    failed,
)
from bnbench.sweep.worker import perform

SAVE_SECONDS = 30.0
"""How often a worker sends the files of its run, if there is a new checkpoint: what its death can
cost."""

PLACE = "<experiment>"
"""The experiment's folder in messages: a path of either machine says nothing on the other."""

Files: TypeAlias = Mapping[str, bytes]


@dataclass(frozen=True, slots=True, eq=False)
class Shipment:
    """A job, with all that it needs of the driver's disk.

    `code`: the content of files that custom targets name, by path. `run`: the name of the run's
    folder, for a training; `files`: what the driver has in it.
    """

    job: Job
    code: Files
    run: str | None
    files: Files


@dataclass(frozen=True, slots=True)
class Saved:
    """The files of a run that goes on, with a new checkpoint."""

    files: Files


@dataclass(frozen=True, slots=True)
class Returned:
    """A job has ended; the files of its run, if there are new ones."""

    end: End
    files: Files


Reply: TypeAlias = Stated | Said | Saved | Returned | Lost
R = TypeVar("R", bound=Reply)


@dataclass(frozen=True, slots=True)
class _Sent:
    job: Job
    folder: RunFolder | None
    held: ExitStack


class Shipping:
    """An `Executor[Job, Answer]`, made of one that does shipments."""

    def __init__(self, remote: Executor[Shipment, Reply], experiment: ExperimentFolder) -> None:
        self._remote = remote
        self._experiment = experiment
        self._sent: dict[Shipment, _Sent] = {}
        self._refused: list[tuple[Job, Answer]] = []

    @property
    def size(self) -> int:
        """How many jobs it does at a time."""
        return self._remote.size

    def start(self, jobs: int) -> None:
        """Prepare for this many jobs."""
        self._remote.start(jobs)

    def submit(self, job: Job) -> None:
        """Hold the run, and send the job with what it needs."""
        held = ExitStack()
        configs = job.configs if isinstance(job, Check) else (job.config,)
        folder: RunFolder | None = None
        files: Files = {}
        try:
            code = _code(configs)
            if isinstance(job, Train):
                folder = self._experiment.run(configuration.run_id(job.config))
                held.enter_context(folder.hold(wait_seconds=0.0))
                files = folder.contents()
                if CONFIG in files:
                    code = _kept_code(folder.path / CONFIG) | code
        except BnbenchError as error:
            held.close()
            self._refused.append((job, failed(error)))
            return
        shipment = Shipment(job, code, folder.name if folder else None, files)
        self._sent[shipment] = _Sent(job, folder, held)
        self._remote.submit(shipment)

    def answers(self, seconds: float) -> list[tuple[Job, Answer]]:
        """What has been answered; files that came along are in the run's folder by then."""
        found, self._refused = self._refused, []
        for shipment, reply in self._remote.answers(0.0 if found else seconds):
            sent = self._sent[shipment]
            answer = self._received(sent, reply)
            if isinstance(answer, End):
                self._sent.pop(shipment).held.close()
            if answer is not None:
                found.append((sent.job, answer))
        return found

    def _received(self, sent: _Sent, reply: Reply) -> Answer | None:
        reply = _relocated(reply, PLACE, str(self._experiment.path))
        try:
            match reply:
                case Saved(files) | Returned(_, files) if files and sent.folder is not None:
                    sent.folder.adopt(files)
        except StorageError as error:
            if isinstance(reply, Returned):
                return failed(error)
            return Said(f"warning: a run is not saved: {error.what}")
        match reply:
            case Saved():
                return None
            case Returned(end, _):
                return end
            case _:
                return reply

    def ask_to_stop(self) -> None:
        """Ask all runs to commit after their current step and to end."""
        self._remote.ask_to_stop()

    def close(self) -> None:
        """End everything now, and let go of the runs."""
        self._remote.close()
        for sent in self._sent.values():
            sent.held.close()
        self._sent.clear()


def perform_shipment(
    shipment: Shipment,
    options: WorkerOptions,
    send: Callable[[Stated | Said | Saved], None],
    stop: Stop,
    *,
    save_seconds: float = SAVE_SECONDS,
) -> Returned:
    """Do a job in a temporary folder, on any machine; for the worker of an executor.

    `send` gets what there is to see, and files worth saving, until then.
    """
    with (
        TemporaryDirectory(prefix="bnbench-", ignore_cleanup_errors=True) as temporary,
        custom.received(shipment.code),
    ):
        experiment = ExperimentFolder(Path(temporary))
        folder = None if shipment.run is None else RunFolder(experiment.path / shipment.run)
        saved_at, saved = time.monotonic(), shipment.files.get(CHECKPOINT)

        def forward(answer: Answer) -> None:
            nonlocal saved_at, saved
            assert isinstance(answer, Stated | Said)
            send(_relocated(answer, temporary, PLACE))
            if folder is None or time.monotonic() - saved_at < save_seconds:
                return
            files = folder.contents()
            saved_at = time.monotonic()
            if files.get(CHECKPOINT) != saved:
                saved = files.get(CHECKPOINT)
                send(_relocated(Saved(files), temporary, PLACE))

        files: Files = {}
        try:
            if folder is not None:
                folder.adopt(shipment.files)
            end = perform(shipment.job, options, experiment, forward, stop)
            if folder is not None and not (isinstance(end, Trained) and end.found):
                files = folder.contents()
        except StorageError as error:
            end = failed(error)
        return _relocated(Returned(end, files), temporary, PLACE)


def _code(configs: Iterable[schema.RunConfig]) -> dict[str, bytes]:
    """The content of the user's own code files that these runs name, by path."""
    blocks = [block for config in configs for block in (config.model, config.norm)]
    targets = [block.target for block in blocks if hasattr(block, "target")]
    paths = [configuration.custom_target(target)[0] for target in targets]
    return {str(path): custom.content(path) for path in paths}


def _kept_code(path: Path) -> dict[str, bytes]:
    """The same for the configuration that is stored with a run, which its worker compares."""
    try:
        return _code([configuration.expand_one(configuration.load_experiment(path))])
    except BnbenchError:
        return {}  # the worker will say what is wrong with it


def _relocated(reply: R, there: str, here: str) -> R:
    """The reply with another path of the experiment's folder in its texts."""

    def changed(files: Files) -> Files:
        if ERROR not in files:
            return files
        return {**files, ERROR: files[ERROR].replace(there.encode(), here.encode())}

    match reply:
        case Said(line):
            return replace(reply, line=line.replace(there, here))
        case Saved(files):
            return replace(reply, files=changed(files))
        case Returned(end, files):
            if isinstance(end, Failed):
                end.error.what = end.error.what.replace(there, here)
                end.error.do = end.error.do and end.error.do.replace(there, here)
            return replace(reply, files=changed(files))
        case _:
            return reply
