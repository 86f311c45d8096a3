"""The executor of a Ray cluster: an actor for each run that trains at a time.

Ray places the actors, moves bytes and says who has died; what an actor does with a shipment, and
how it comes back, is `shipping`'s.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from bnbench.assemble.inputs import pack
from bnbench.config import datasets, identity, schema
from bnbench.config.custom import code_of
from bnbench.errors import ClusterError, RunError, StorageError
from bnbench.runner import provenance
from bnbench.runner.rehearsal import memory
from bnbench.runner.settings import workers_for
from bnbench.store import ExperimentFolder, files
from bnbench.sweeps import jobs, shipping
from bnbench.sweeps.ray.actor import About, Actor, is_end
from bnbench.sweeps.ray.address import connect
from bnbench.sweeps.ray.nodes import Nodes, lost
from bnbench.sweeps.shipping import Reply, Sent, Shipment
from bnbench.sweeps.workers import FAILED_STARTS, SILENCE_SECONDS

MESSAGES_PER_SECOND = 100
"""Of all actors together: more of what is only shown would keep the driver busy."""

SEEN_SECONDS = 30.0
"""How long nodes may take to say whether they see a file; those that say nothing do not."""

WAITING_SECONDS = 12.0
"""Without a worker after this long, what is waited for is said."""


@dataclass(slots=True)
class _Worker:
    """An actor. `starting`: what its answer to `about` will be, until it is ready; `replies`: to
    the shipment that it works on. `ran`: files of the user's own whose code it has run."""

    actor: Any
    starting: Any
    replies: Any = None
    shipment: Shipment | None = None
    ran: frozenset[Path] = frozenset()
    silent_seconds: float = 0.0

    @property
    def idle(self) -> bool:
        return self.starting is None and self.shipment is None


class Ray:
    """An `Executor[Shipment, Reply]`. An actor is started when it is needed and kept for later
    jobs, but for those that do not run the user's code that it has run. A shipment waits here until
    an actor is ready: Ray may take its time to place one.

    `size`: what `--workers` says, else as many as there are cores and GPUs for, also on nodes that
    join later. A node with another environment than the first run, or this process where none has
    begun, is not used, unless changes are accepted.
    """

    queues = False

    def __init__(
        self,
        options: jobs.SweepOptions,
        runs: Sequence[schema.RunConfig],
        experiment: ExperimentFolder,
        say: Callable[[str], None],
    ) -> None:
        self._size = None if options.workers == "auto" else workers_for(options.workers, runs)
        connect(options.address)
        import ray

        self._ray = ray
        self._options, self._say = options, say
        self._runs = runs
        folders = experiment.folders_of(map(identity.run_id, runs))
        self._first = provenance.environment() | provenance.first_environment(folders)
        self._refused: dict[str, str] = {}  # nodes by id, with the reason
        self._seen: Path | None = None  # a file that all nodes see
        self._images: dict[str, Any] = {}  # in the object store, by source
        self._workers: list[_Worker] = []
        self._waiting: list[Shipment] = []
        self._failed_starts = 0
        self._stopping = False
        self._begun: float | None = time.monotonic()  # until an actor is ready
        self._nodes = Nodes(say)  # the last, so that it is closed

    @cached_property
    def _needs(self) -> dict[str, float]:
        """What an actor takes of its node: cores, bytes and, where runs may use one, of a GPU one
        or what `--workers` leaves it."""
        threads = [run.compute.threads for run in self._runs if run.compute.threads != "auto"]
        needs = {"CPU": float(max(threads, default=1)), "memory": float(memory(self._runs))}
        there = sum(node["Resources"].get("GPU", 0.0) for node in self._nodes.alive())
        devices = {self._options.device or run.compute.device for run in self._runs}
        if any(each.startswith("cuda") or (each == "auto" and there) for each in devices):
            needs["GPU"] = min(1.0, int(1e4 * there / (self._size or there or 1)) / 1e4) or 1.0
        return needs

    @property
    def size(self) -> int:
        if self._size is not None:
            return self._size
        return max(1, sum(map(self._room, self._usable())))

    @size.setter
    def size(self, size: int) -> None:
        self._size = size

    def _usable(self) -> list[dict[str, Any]]:
        """Nodes that are there and not refused."""
        return [each for each in self._nodes.alive() if each["NodeID"] not in self._refused]

    def _room(self, node: Mapping[str, Any]) -> int:
        """How many actors a node has room for."""
        there = node["Resources"]
        return min(int(there.get(name, 0) // need) for name, need in self._needs.items())

    def sees(self, experiment: ExperimentFolder) -> bool:
        """Whether all nodes see this folder: they are asked for a file in it. One that joins later
        and does not is not used."""
        name = f"seen-{secrets.token_hex(8)}{files.TEMPORARY}"
        experiment.keep({name: b""}, synced=False)
        self._seen = experiment.path.absolute() / name
        # By value: importing this package would take a node as long as starting an actor.
        look = self._ray.remote(lambda path: path.exists()).options
        there = [{"ray.io/node-id": node["NodeID"]} for node in self._usable() if self._room(node)]

        def seen_by_all() -> bool:
            asked = [look(num_cpus=0, label_selector=each).remote(self._seen) for each in there]
            return all(self._ray.get(asked, timeout=SEEN_SECONDS))

        try:
            seen = self._nodes.ask(seen_by_all)
        except self._ray.exceptions.RayError:
            seen = False
        if not seen:
            self._forget_file()
        return seen

    def _forget_file(self) -> None:
        if self._seen is not None:
            files.remove(self._seen)
            self._seen = None

    def start(self, jobs: int) -> None:
        while len(self._workers) < min(jobs, self.size):
            self._spawn()

    def _spawn(self) -> None:
        selector = {"ray.io/node-id": f"!in({','.join(self._refused)})"} if self._refused else None
        actor = self._ray.remote(Actor).options(
            num_cpus=self._needs["CPU"],
            num_gpus=self._needs.get("GPU", 0.0),
            memory=self._needs["memory"],
            label_selector=selector,
            max_concurrency=2,  # it trains, and can be asked to stop
        )
        options = self._options, sys.argv, shipping.SAVE_SECONDS
        made = self._nodes.ask(lambda: actor.remote(*options))
        self._workers.append(_Worker(made, made.about.remote(self._seen)))

    def submit(self, shipment: Shipment) -> None:
        """Give it to an actor, or have it wait for one. Raises DataError where its images cannot be
        read, StorageError where the object store has no room for them."""
        for data in shipment.data:
            if datasets.source(data) not in self._images:
                self._images[datasets.source(data)] = self._put(data)
        self._waiting.append(shipment)
        self._hand_out()

    def _put(self, data: schema.DataConfig) -> Any:
        """A dataset in the object store, from which each node takes it once."""
        packed = pack(data, self._say)
        try:
            return self._ray.put(packed)
        except self._ray.exceptions.RayError as error:
            raise StorageError(
                f"Ray's object store has no room for the images: {_cause(error)}",
                do="start Ray with a larger --object-store-memory, or make room on its disk",
            ) from error

    def _hand_out(self) -> None:
        for shipment in list(self._waiting):
            code = frozenset(path for each in jobs.configs(shipment.job) for path in code_of(each))
            idle = [worker for worker in self._workers if worker.idle]
            fitting = [worker for worker in idle if worker.ran <= code]
            if fitting:
                worker = max(fitting, key=lambda each: len(each.ran))
                worker.ran |= code
                worker.shipment, worker.silent_seconds = shipment, 0.0
                self._waiting.remove(shipment)
                images = [self._images[datasets.source(data)] for data in shipment.data]
                do = worker.actor.do.options(num_returns="streaming")
                pause = len(self._workers) / MESSAGES_PER_SECOND
                worker.replies = do.remote(shipment, pause, *images)
            elif idle and len(self._workers) >= self.size:
                self._end(idle[0])
        busy = sum(worker.shipment is not None for worker in self._workers)
        self.start(busy + len(self._waiting))

    def answers(self, seconds: float) -> list[tuple[Shipment, Reply]]:
        begun = time.monotonic()
        of = {worker.starting or worker.replies: worker for worker in self._workers
              if worker.starting or worker.replies}  # fmt: skip
        if not of:
            time.sleep(seconds)
        ready = self._ray.wait([*of], timeout=seconds)[0] if of else []
        ready = self._ray.wait([*of], num_returns=len(of), timeout=0)[0] if ready else []
        # At most what was asked for: if this process was suspended too, silence proves nothing.
        waited = min(time.monotonic() - begun, seconds)
        self._nodes.waited(waited)
        found: list[tuple[Shipment, Reply]] = []
        if self._stopping:
            found += [(shipment, Sent({}, jobs.Stopped())) for shipment in self._waiting]
            self._waiting.clear()
        for worker in of.values():
            worker.silent_seconds += waited
        for each in ready:
            found += self._heard(of[each])
        for worker in of.values():
            if worker.shipment is not None and worker.silent_seconds > SILENCE_SECONDS:
                found += self._lost(worker, "stopped responding")
        self._hand_out()
        if self._begun is not None and time.monotonic() - self._begun > WAITING_SECONDS:
            self._begun = None
            self._say(f"waiting for the cluster: each worker needs {self._resources(self._needs)}; "
                      f"free now: {self._resources(self._nodes.free)}")  # fmt: skip
        return found

    def _resources(self, there: Mapping[str, float]) -> str:
        amounts = {name: there.get(name, 0.0) for name in self._needs}
        return ", ".join(
            f"{decimal(int(amount))} of memory" if name == "memory" else f"{amount:g} {name}"
            for name, amount in amounts.items()
        )

    def _heard(self, worker: _Worker) -> Iterator[tuple[Shipment, Reply]]:
        """What an actor has said: what it is, or replies. It may have died before."""
        worker.silent_seconds = 0.0
        try:
            if worker.starting is not None:
                self._ready(worker, self._ray.get(worker.starting))
                return
            replies = self._ray.get(next(worker.replies))
        except (self._ray.exceptions.RayError, StopIteration) as error:
            yield from self._lost(worker, _cause(error))
            return
        for reply in replies:
            assert worker.shipment is not None
            yield worker.shipment, reply
            if is_end(reply):
                worker.shipment = worker.replies = None

    def _ready(self, worker: _Worker, about: About) -> None:
        """An actor can work, unless its environment is another."""
        worker.starting = None
        self._failed_starts, self._begun = 0, None
        other = provenance.other_environment(self._first, about.environment)
        if other and self._options.accept_changes:
            self._say(f"warning: {about.host} trains with {other}")
            other = ""
        if not about.sees:
            other = "another disk"
        if other:
            self._end(worker)
            self._refused[about.node] = f"{about.host} has {other}"
            self._say(f"warning: not used: {self._refused[about.node]}")
        if self._refused and not any(map(self._room, self._usable())):
            raise ClusterError(
                f"no node can be used: {'; '.join(self._refused.values())}",
                do="install there what the study was begun with, or go on all the same: "
                "--accept-changes",
            )

    def _lost(self, worker: _Worker, how: str) -> list[tuple[Shipment, Reply]]:
        """An actor is no more: its shipment is lost, if it had one."""
        self._end(worker)
        if worker.starting is not None:
            self._failed_starts += 1
            if self._failed_starts == FAILED_STARTS:
                raise RunError(
                    f"{FAILED_STARTS} workers in a row died at their start: each {how}",
                    do="each node needs the bnbench and the libraries that are installed here",
                )
        shipment = worker.shipment
        return [] if shipment is None else [(shipment, jobs.Lost(how, at_start=False))]

    def ask_to_stop(self) -> None:
        self._stopping = True
        for worker in self._workers:
            worker.actor.stop.remote()

    def close(self) -> None:
        with suppress(ClusterError):
            for worker in list(self._workers):
                self._end(worker)
        self._nodes.close()
        self._forget_file()

    def _end(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self._nodes.ask(lambda: self._ray.kill(worker.actor))


def _cause(error: BaseException) -> str:
    """How an actor was lost, for people; Ray tells it in a page. Raises ClusterError where it was
    not the actor that was lost, but we."""
    said = str(error).strip()
    if "its owner has died" in said:
        raise lost("has lost the node of this machine") from error
    if "its node has died" in said:
        return "was lost with its node"
    if "worker process has died" in said:
        return "was killed or crashed: often the system was out of memory"
    if "unavailable" in said:
        return "cannot be reached any more"
    return f"ended: {said.splitlines()[-1] if said else type(error).__name__}"
