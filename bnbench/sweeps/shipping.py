"""For executors whose workers share no disk with the driver: what is sent, and how it comes back.

The driver holds the lock of a run while it is trained elsewhere. It sends the files of the run that
it has, and the content of the user's own code files. The worker trains in a temporary folder and
sends that folder's files back: when the run ends, and now and then before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, chdir
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

from bnbench.config import custom, identity
from bnbench.errors import BnbenchError, StorageError
from bnbench.runner.settings import Stop
from bnbench.store import ExperimentFolder, RunFolder
from bnbench.store.run_folder import CHECKPOINT, ERROR
from bnbench.sweeps import jobs

SAVE_SECONDS = 30.0
"""How often a worker sends the files of its run if there is a new checkpoint, and so the work that
its death can cost."""

PLACE = "<experiment>"
"""The folder of the experiment on every worker, below its working directory: the driver puts its
own path in place of it wherever an answer names a file."""

Files: TypeAlias = Mapping[str, bytes]


@dataclass(frozen=True, slots=True, eq=False)
class Shipment:
    """A job, with all that it needs of the driver's disk.

    `code`: the content of files that custom targets name, by path. `run`: the name of the run's
    folder, for a training; `files`: what the driver has in it.
    """

    job: jobs.Job
    code: Files
    run: str | None
    files: Files


@dataclass(frozen=True, slots=True)
class Sent:
    """The files of a run, if they have changed; `end`: how the job ended, None if it goes on."""

    files: Files
    end: jobs.End | None = None


Reply: TypeAlias = jobs.Stated | jobs.Said | jobs.Lost | Sent


class Shipping:
    """An `Executor[Job, Answer]`, made of one that does shipments."""

    queues = False

    def __init__(
        self, remote: jobs.Executor[Shipment, Reply], experiment: ExperimentFolder
    ) -> None:
        self.start = remote.start
        self.ask_to_stop = remote.ask_to_stop
        self._remote = remote
        self._experiment = experiment
        self._held: dict[Shipment, ExitStack] = {}
        self._refused: list[tuple[jobs.Job, jobs.Answer]] = []

    @property
    def size(self) -> int:
        return self._remote.size

    @size.setter
    def size(self, size: int) -> None:
        self._remote.size = size

    def submit(self, job: jobs.Job) -> None:
        """Hold the run, and send the job with what it needs."""
        code: dict[str, bytes] = {}
        run, contents, held = None, {}, ExitStack()
        try:
            for config in jobs.configs(job):
                for target, _ in custom.targets(config).values():
                    code |= {str(path): custom.content(path) for path in custom.files_of(target)}
                code |= {str(path): custom.content(path) for path in custom.weights(config)}
            if isinstance(job, jobs.Train):
                folder = self._experiment.run(identity.run_id(job.config))
                held.enter_context(folder.hold(wait_seconds=0.0))
                run, contents = folder.name, folder.contents()
        except BnbenchError as error:
            held.close()
            self._refused.append((job, jobs.failed(error)))
        else:
            shipment = Shipment(job, code, run, contents)
            self._held[shipment] = held
            self._remote.submit(shipment)

    def answers(self, seconds: float) -> list[tuple[jobs.Job, jobs.Answer]]:
        """What has been answered; files that came along are in the run's folder by then."""
        found, self._refused = self._refused, []
        for shipment, reply in self._remote.answers(0.0 if found else seconds):
            answer = self._received(shipment, reply)
            if isinstance(answer, jobs.End):
                self._held.pop(shipment).close()
            if answer is not None:
                found.append((shipment.job, answer))
        return found

    def _received(self, shipment: Shipment, reply: Reply) -> jobs.Answer | None:
        def here(text: str) -> str:
            return text.replace(PLACE, str(self._experiment.path))

        if isinstance(reply, jobs.Said):
            return jobs.Said(here(reply.line))
        if not isinstance(reply, Sent):
            return reply
        files = dict(reply.files)
        if ERROR in files:
            files[ERROR] = here(files[ERROR].decode()).encode(errors="replace")
        try:
            if shipment.run is not None and files:
                self._experiment.run(shipment.run).adopt(files)
        except StorageError as error:
            if reply.end is None:
                return jobs.Said(f"warning: a run is not saved: {error.what}")
            return jobs.failed(error)
        if isinstance(reply.end, jobs.Failed):
            told = reply.end.error
            told.what, told.do = here(told.what), told.do and here(told.do)
        return reply.end

    def close(self) -> None:
        self._remote.close()
        for held in self._held.values():
            held.close()
        self._held.clear()


def perform_shipment(
    shipment: Shipment,
    options: jobs.SweepOptions,
    send: Callable[[jobs.Answer | Sent], None],
    stop: Stop,
    *,
    save_seconds: float = SAVE_SECONDS,
) -> Sent:
    """Do a job on any machine, for the worker of an executor; changes the process's working
    directory meanwhile. `send` gets what there is to see until then, and files to save."""
    saved_at, saved = time.monotonic(), shipment.files.get(CHECKPOINT)
    experiment = ExperimentFolder(Path(PLACE))
    folder = None if shipment.run is None else RunFolder(experiment.path / shipment.run)

    def forward(answer: jobs.Answer) -> None:
        nonlocal saved_at, saved
        send(answer)
        if folder is not None and time.monotonic() - saved_at >= save_seconds:
            files = folder.contents()
            if files.get(CHECKPOINT) != saved:
                send(Sent(files))
            saved_at, saved = time.monotonic(), files.get(CHECKPOINT)

    with (
        TemporaryDirectory(prefix="bnbench-") as temporary,
        chdir(temporary),
        custom.received(shipment.code),
    ):
        try:
            if folder is not None:
                folder.adopt(shipment.files)
            end = jobs.perform(shipment.job, options, experiment, forward, stop)
            found = isinstance(end, jobs.Trained) and end.found
            return Sent({} if folder is None or found else folder.contents(), end)
        except StorageError as error:
            return Sent({}, jobs.failed(error))
