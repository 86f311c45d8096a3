"""What an actor of a Ray cluster does: one shipment after the other."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from bnbench.assemble.inputs import Packed
from bnbench.runner.provenance import environment
from bnbench.runner.settings import Stop
from bnbench.sweeps import jobs
from bnbench.sweeps.shipping import Reply, Sent, Shipment, perform_shipment
from bnbench.sweeps.workers import passed_on

BEAT_SECONDS = 5.0
"""How often an actor says that it is alive, where it has nothing else to say."""


@dataclass(frozen=True, slots=True)
class About:
    """What an actor is and where; `sees`: whether it sees the file that it was asked for."""

    node: str
    host: str
    environment: dict[str, str]
    sees: bool


class Actor:
    """Does one shipment after the other."""

    def __init__(
        self, options: jobs.SweepOptions, arguments: list[str], save_seconds: float
    ) -> None:
        sys.argv = arguments  # a manifest tells the command
        self._options, self._save_seconds = options, save_seconds
        self._stop = Stop()

    def about(self, seen: Path | None) -> About:
        """Import what training needs, and say what this is."""
        import ray

        from bnbench.runner.execution import execute  # noqa: F401  and with it torch

        node = ray.get_runtime_context().get_node_id()
        sees = seen is None or seen.exists()
        return About(node, socket.gethostname(), environment(), sees)

    def do(self, shipment: Shipment, pause: float, *images: Packed) -> Iterator[list[Reply]]:
        """The replies to a shipment, those of so many seconds together; none where there is nothing
        to say but that this process lives."""
        replies = SimpleQueue[Any]()

        def perform() -> None:
            work = shipment, self._options, replies.put, self._stop, images
            with passed_on(replies.put):
                replies.put(perform_shipment(*work, save_seconds=self._save_seconds))

        Thread(target=perform, daemon=True).start()
        ended = False
        while not ended:
            together = _gathered(replies, pause)
            ended = any(map(is_end, together))
            yield together

    def stop(self) -> None:
        """Ask for a commit after the current step."""
        self._stop.exit_code = 130


def is_end(reply: Reply) -> bool:
    return isinstance(reply, Sent) and reply.end is not None


def _gathered(replies: SimpleQueue[Reply], pause: float) -> list[Reply]:
    """The next reply and what comes within a pause after it, up to an end; none after a beat."""
    found: list[Reply] = []
    until = time.monotonic() + BEAT_SECONDS
    with suppress(Empty):
        while not any(map(is_end, found)):
            found.append(replies.get(timeout=max(0.0, until - time.monotonic())))
            if len(found) == 1:
                until = time.monotonic() + pause
    return found
