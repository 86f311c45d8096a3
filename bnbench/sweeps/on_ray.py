"""The executor of a Ray cluster: an actor for each run that trains at a time.

Ray places the actors, moves bytes and says who has died; what an actor does with a shipment, and
how it comes back, is `shipping`'s. No disk is shared: the driver keeps every run.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from bnbench.config import schema
from bnbench.config.custom import code_of
from bnbench.errors import RunError, UsageError
from bnbench.runner.settings import Stop, workers_for
from bnbench.sweeps import jobs
from bnbench.sweeps.shipping import Reply, Sent, Shipment, perform_shipment
from bnbench.sweeps.workers import FAILED_STARTS, SILENCE_SECONDS, passed_on

BEAT_SECONDS = 5.0
"""How often an actor says that it is alive, where it has nothing else to say."""

MESSAGES_PER_SECOND = 100
"""Of all actors together: more of what is only shown would keep the driver busy."""

PROBE_SECONDS = 10.0
"""How long a cluster may take to say that it is there; Ray itself would wait for 80 s."""

LOCAL_STORE_BYTES = 100_000_000
"""Of the object store of a Ray that is started here: all that passes is what is shown."""


def connect(address: str | None) -> None:
    """Use the cluster at an address, or at RAY_ADDRESS, or start one on this machine, which ends
    with this process. Raises UsageError."""
    # For a Ray that is started here: nothing is reported to its makers, and it listens on
    # 127.0.0.1 alone, as it does where no cluster can be.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError:
        raise UsageError("Ray is not installed", do='pip install "bnbench[ray]"') from None
    if ray.is_initialized():
        return
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address == "local":
            here = {"include_dashboard": False, "object_store_memory": LOCAL_STORE_BYTES}
            ray.init("local", **here, **quiet)
        else:
            _require_answer(address)
            ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        why = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"Ray cannot be used at {address}: {why}",
            do="the cluster needs the Ray and Python of this environment",
        ) from error


def _require_answer(address: str) -> None:
    """Raises UsageError where no cluster answers: `ray.init` would end this process."""
    if "://" in address:
        raise UsageError(
            f"--address {address}: a cluster is joined, not reached through Ray's client",
            do="run the command on a node of the cluster, with HOST:PORT (6379 by default) or auto",
        )
    do = "look at `ray status` there, or leave out --address and RAY_ADDRESS for a Ray of your own"
    host, _, port = address.rpartition(":")
    if address != "auto":
        try:
            socket.create_connection((host, int(port)), timeout=PROBE_SECONDS / 2).close()
        except (OSError, ValueError) as error:
            raise UsageError(f"no Ray cluster answers at {address}: {error}", do=do) from error
    ask = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--skip-version-check"]
    at = [] if address == "auto" else ["--address", address]
    try:
        subprocess.run([*ask, *at], check=True, capture_output=True, timeout=PROBE_SECONDS)
    except subprocess.SubprocessError as error:
        raise UsageError(f"no Ray cluster answers at {address}", do=do) from error


@dataclass(slots=True)
class _Worker:
    """An actor. `starting`: what its answer to `about` will be, until it is ready; `replies`: of
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


class Cluster:
    """An `Executor[Shipment, Reply]`. An actor is started when it is needed and kept for later
    jobs, but for those that do not run the user's code that it has run.

    `size`: as many as the cluster has cores for, nodes that join later included, or what
    `--workers` says. A shipment waits here until an actor is ready: Ray may take its time to place
    one.
    """

    queues = False

    def __init__(self, options: jobs.SweepOptions, runs: Sequence[schema.RunConfig]) -> None:
        connect(options.address)
        import ray

        self._ray = ray
        threads = [run.compute.threads for run in runs if run.compute.threads != "auto"]
        self._threads = max(threads, default=1)
        self._options = options
        auto = options.workers == "auto"
        self._size = None if auto else workers_for(options.workers, runs)
        self._workers: list[_Worker] = []
        self._waiting: list[Shipment] = []
        self._failed_starts = 0

    @property
    def size(self) -> int:
        if self._size is not None:
            return self._size
        cores = [node["Resources"].get("CPU", 0) for node in self._ray.nodes() if node["Alive"]]
        return max(1, sum(int(each // self._threads) for each in cores))

    @size.setter
    def size(self, size: int) -> None:
        self._size = size

    def start(self, jobs: int) -> None:
        while len(self._workers) < min(jobs, self.size):
            self._spawn()

    def submit(self, shipment: Shipment) -> None:
        """Give it to an actor, or have it wait for one."""
        self._waiting.append(shipment)
        self._hand_out()

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
                do = worker.actor.do.options(num_returns="streaming")
                worker.replies = do.remote(shipment, len(self._workers) / MESSAGES_PER_SECOND)
            elif idle and len(self._workers) >= self.size:
                self._end(idle[0])
        busy = sum(worker.shipment is not None for worker in self._workers)
        self.start(busy + len(self._waiting))

    def _spawn(self) -> None:
        actor = self._ray.remote(Actor).options(num_cpus=self._threads, max_concurrency=2)
        made = actor.remote(self._options, sys.argv)
        self._workers.append(_Worker(made, made.about.remote()))

    def answers(self, seconds: float) -> list[tuple[Shipment, Reply]]:
        begun = time.monotonic()
        of = {worker.starting or worker.replies: worker for worker in self._workers
              if worker.starting or worker.replies}  # fmt: skip
        if not of:
            time.sleep(seconds)
            return []
        if self._ray.wait([*of], timeout=seconds)[0]:
            ready = self._ray.wait([*of], num_returns=len(of), timeout=0)[0]
        else:
            ready = []
        waited = min(time.monotonic() - begun, seconds)
        found: list[tuple[Shipment, Reply]] = []
        for worker in of.values():
            worker.silent_seconds += waited
        for each in ready:
            found += self._heard(of[each])
        for worker in of.values():
            if worker.shipment is not None and worker.silent_seconds > SILENCE_SECONDS:
                found += self._lost(worker, "stopped responding")
        self._hand_out()
        return found

    def _heard(self, worker: _Worker) -> Iterator[tuple[Shipment, Reply]]:
        worker.silent_seconds = 0.0
        try:
            if worker.starting is not None:
                self._ray.get(worker.starting)
                worker.starting = None
                self._failed_starts = 0
                return
            replies = self._ray.get(next(worker.replies))
        except (self._ray.exceptions.RayError, StopIteration) as error:
            yield from self._lost(worker, _cause(error))
            return
        for reply in replies:
            assert worker.shipment is not None
            yield worker.shipment, reply
            if isinstance(reply, Sent) and reply.end:
                worker.shipment = worker.replies = None

    def _lost(self, worker: _Worker, how: str) -> list[tuple[Shipment, Reply]]:
        """An actor is no more: its shipment is lost, if it had one."""
        self._end(worker)
        if worker.starting is not None:
            self._failed_starts += 1
            if self._failed_starts == FAILED_STARTS:
                raise RunError(f"{FAILED_STARTS} workers in a row died at their start ({how})")
        shipment = worker.shipment
        return [] if shipment is None else [(shipment, jobs.Lost(how, at_start=False))]

    def ask_to_stop(self) -> None:
        for worker in self._workers:
            worker.actor.stop.remote()

    def close(self) -> None:
        for worker in list(self._workers):
            self._end(worker)

    def _end(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self._ray.kill(worker.actor)


def _cause(error: Exception) -> str:
    return f"died: {str(error).strip()}"


# --- inside an actor ------------------------------------------------------------------------------


class Actor:
    """Does one shipment after the other."""

    def __init__(self, options: jobs.SweepOptions, arguments: list[str]) -> None:
        sys.argv = arguments  # a manifest tells the command
        self._options = options
        self._stop = Stop()

    def about(self) -> None:
        """Import what training needs."""
        from bnbench.runner.execution import execute  # noqa: F401  and with it torch

    def do(self, shipment: Shipment, seconds: float) -> Iterator[list[Reply]]:
        """The replies to a shipment, those of so many seconds together; none where there is nothing
        to say but that this process lives."""
        replies = SimpleQueue[Reply]()
        Thread(target=self._perform, args=(shipment, replies.put), daemon=True).start()
        ended = False
        while not ended:
            together = _gathered(replies, seconds)
            ended = _is_end(together)
            yield together

    def _perform(self, shipment: Shipment, send: Callable[[Any], None]) -> None:
        with passed_on(send):
            send(perform_shipment(shipment, self._options, send, self._stop))

    def stop(self) -> None:
        """Ask for a commit after the current step."""
        self._stop.exit_code = 130


def _is_end(replies: Sequence[Reply]) -> bool:
    return any(isinstance(each, Sent) and each.end is not None for each in replies)


def _gathered(replies: SimpleQueue[Reply], seconds: float) -> list[Reply]:
    found: list[Reply] = []
    until = time.monotonic() + BEAT_SECONDS
    while not _is_end(found):
        try:
            found.append(replies.get(timeout=max(0.0, until - time.monotonic())))
        except Empty:
            break
        if len(found) == 1:
            until = time.monotonic() + seconds
    return found
