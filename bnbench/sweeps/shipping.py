"""For executors whose workers share no disk with the driver: what is sent, and how it comes back.

The driver holds the lock of a run while it is trained elsewhere. It sends the files of the run that
it has, and the content of the user's own code files. The worker trains in a temporary folder and
sends that folder's files back: when the run ends, and now and then before. Where it turns out that
workers do see the driver's disk, a run is trained in its folder, and nothing is copied.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, chdir, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeAlias

from filelock import FileLock, Timeout

from bnbench.config import custom, datasets, identity, schema
from bnbench.errors import BnbenchError, StorageError
from bnbench.runner.settings import Stop
from bnbench.store import ExperimentFolder, RunFolder
from bnbench.store.run_folder import CHECKPOINT, ERROR, RESULT
from bnbench.sweeps import jobs

if TYPE_CHECKING:
    from bnbench.assemble.inputs import Packed

SAVE_SECONDS = 30.0
"""How often a worker sends the files of its run if there is a new checkpoint, and so the work that
its death can cost."""

PLACE = "<experiment>"
"""The folder of the experiment on every worker, below its working directory: the driver puts its
own path in place of it wherever an answer names a file."""

PREFIX, HELD = "bnbench-", ".worker"
"""Of the temporary folders of workers: how their names begin, and the file that each locks."""

Files: TypeAlias = Mapping[str, bytes]


@dataclass(frozen=True, slots=True, eq=False)
class Shipment:
    """A job, with all that it needs of the driver's disk.

    `code`: the content of files that custom targets name, by path. `data`: the datasets whose
    images the executor is to bring along. `run`: the name of the run's folder, for a training;
    `files`: what the driver has in it. `siblings`: what it has of the same run, finished, in other
    experiments, by their names. `place`: the experiment's on a disk that the worker sees, which
    makes all of the others empty.
    """

    job: jobs.Job
    code: Files = field(default_factory=dict)
    data: tuple[schema.DataConfig, ...] = ()
    run: str | None = None
    files: Files = field(default_factory=dict)
    siblings: Mapping[str, Files] = field(default_factory=dict)
    place: ExperimentFolder | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """The files of a run, if they have changed; `end`: how the job ended, None if it goes on."""

    files: Files
    end: jobs.End | None = None


Reply: TypeAlias = jobs.Stated | jobs.Said | jobs.Lost | Sent


class Shipping:
    """An `Executor[Job, Answer]`, made of one that does shipments.

    `shared`: whether all workers see the folder of the experiment, asked when the first run is to
    be trained.
    """

    queues = False

    def __init__(
        self,
        remote: jobs.Executor[Shipment, Reply],
        experiment: ExperimentFolder,
        shared: Callable[[ExperimentFolder], bool] = lambda _: False,
    ) -> None:
        self.start = remote.start
        self.ask_to_stop = remote.ask_to_stop
        self._remote = remote
        self._experiment = experiment
        self._is_shared = shared
        self._shared: bool | None = None
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
        held = ExitStack()
        try:
            shipment = self._shipment(job, held)
            self._remote.submit(shipment)
        except BnbenchError as error:
            held.close()
            self._refused.append((job, jobs.failed(error)))
        else:
            self._held[shipment] = held

    def _shipment(self, job: jobs.Job, held: ExitStack) -> Shipment:
        if isinstance(job, jobs.Train):
            if self._shared is None:
                self._shared = self._is_shared(self._experiment)
            if self._shared:
                return Shipment(job, place=self._experiment.absolute())
        code: dict[str, bytes] = {}
        data: dict[str, schema.DataConfig] = {}
        for config in jobs.configs(job):
            for target, _ in custom.targets(config).values():
                code |= {str(path): custom.content(path) for path in custom.files_of(target)}
            code |= {str(path): custom.content(path) for path in custom.weights(config)}
            if datasets.on_disk(config.data):
                data[datasets.source(config.data)] = config.data
        images = tuple(data.values())
        if not isinstance(job, jobs.Train):
            return Shipment(job, code, images)
        run = identity.run_id(job.config)
        folder = self._experiment.run(run)
        held.enter_context(folder.hold(wait_seconds=0.0))
        there = (ExperimentFolder(each).run(run) for each in self._experiment.siblings)
        siblings = {each.path.parent.name: each.contents() for each in there
                    if (each.path / RESULT).exists()}  # fmt: skip
        return Shipment(job, code, images, folder.name, folder.contents(), siblings)

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


@contextmanager
def _folder() -> Iterator[str]:
    """A temporary folder. Those that killed processes have left on this machine are removed: a lock
    ends with its process, and theirs are free. It has its name only once it is held, so that nobody
    takes a new folder for one of them."""
    # While it is removed, another worker that looks at it may make its file again.
    made = TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
    with made as folder, FileLock(f"{folder}/new"):
        Path(folder, "new").rename(Path(folder, HELD))
        for other in Path(folder).parent.glob(f"{PREFIX}*/{HELD}"):
            if other.parent != Path(folder):
                with suppress(OSError, Timeout), FileLock(other, blocking=False):
                    shutil.rmtree(other.parent)
        yield folder


def perform_shipment(
    shipment: Shipment,
    options: jobs.SweepOptions,
    send: Callable[[jobs.Answer | Sent], None],
    stop: Stop,
    images: Sequence[Packed] = (),
    *,
    save_seconds: float = SAVE_SECONDS,
) -> Sent:
    """Do a job on any machine, for the worker of an executor; changes the process's working
    directory meanwhile. `send` gets what there is to see until then, and files to save. `images`:
    those of the shipment's `data`."""
    if shipment.place:
        return Sent({}, jobs.perform(shipment.job, options, shipment.place, send, stop))
    saved_at, saved = time.monotonic(), shipment.files.get(CHECKPOINT)
    experiment = ExperimentFolder(Path(PLACE), siblings=tuple(map(Path, shipment.siblings)))
    folder = None if shipment.run is None else RunFolder(experiment.path / shipment.run)

    def forward(answer: jobs.Answer) -> None:
        nonlocal saved_at, saved
        send(answer)
        if folder is not None and time.monotonic() - saved_at >= save_seconds:
            files = folder.contents()
            if files.get(CHECKPOINT) != saved:
                send(Sent(files))
            saved_at, saved = time.monotonic(), files.get(CHECKPOINT)

    with ExitStack() as stack:
        stack.enter_context(chdir(stack.enter_context(_folder())))
        stack.enter_context(custom.received(shipment.code))
        if shipment.data:
            from bnbench.assemble.inputs import received  # it imports torch

            stack.enter_context(received(shipment.data, images))
        try:
            if folder is not None:
                folder.adopt(shipment.files)
                for name, files in shipment.siblings.items():
                    ExperimentFolder(Path(name)).run(folder.name).adopt(files)
            end = jobs.perform(shipment.job, options, experiment, forward, stop, lasting=False)
            found = isinstance(end, jobs.Trained) and end.found
            return Sent({} if folder is None or found else folder.contents(), end)
        except StorageError as error:
            return Sent({}, jobs.failed(error))
