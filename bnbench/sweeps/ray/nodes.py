"""The nodes of the Ray cluster that this process has joined, and whether it still answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import wait
from threading import Event, Thread
from typing import Any

from bnbench.errors import ClusterError
from bnbench.sweeps.ray.address import Found, in_thread

LOOK_SECONDS = 2.0
"""How often to look which nodes there are."""

SILENCE_SECONDS = 10.0
"""A cluster that has not answered for this long is spoken of."""

LOST_SECONDS = 45.0
"""For this long its head may be starting again; after 60 s Ray itself ends this process."""


def lost(how: str) -> ClusterError:
    """The cluster is no more, as far as this process can see."""
    do = "what has come back is saved; the same command goes on from there once Ray runs again"
    return ClusterError(f"the Ray cluster {how}", do=do)


class Nodes:
    """Looks which nodes there are, and asks for more, in threads: Ray holds up whoever asks a head
    that gives no answer, and no Ctrl-C reaches him. Raises ClusterError if there is no first one.

    `free`: resources that nobody has taken. Close it when done.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        import ray

        self._ray, self._say = ray, say
        self._found: list[dict[str, Any]] = []
        self.free: Mapping[str, float] = {}
        self._silent_seconds = 0.0
        self._error: Exception | None = None
        self._answered, self._closed = Event(), Event()
        Thread(target=self._look, daemon=True).start()
        self.ask(self._answered.wait)

    def alive(self) -> list[dict[str, Any]]:
        """Those that were there a moment ago."""
        return [each for each in self._found if each["Alive"]]

    def ask(self, call: Callable[[], Found]) -> Found:
        """What a call of Ray gives. Raises what it raises, and ClusterError as `waited` does."""
        found = in_thread(call)
        while not wait([found], LOOK_SECONDS).done:
            self.waited(LOOK_SECONDS)
        return found.result()

    def waited(self, seconds: float) -> None:
        """So long this process was awake without a look. Raises ClusterError if the cluster has not
        answered for too long."""
        before, self._silent_seconds = self._silent_seconds, self._silent_seconds + seconds
        if before <= SILENCE_SECONDS < self._silent_seconds:
            self._say("warning: the Ray cluster does not answer; its head is waited for")
        if self._silent_seconds > LOST_SECONDS:
            self.close()
            raise lost("does not answer any more") from self._error

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def _look(self) -> None:
        while not self._closed.is_set():
            try:
                self._found, self.free = self._ray.nodes(), self._ray.available_resources()
                self._silent_seconds = 0.0
                self._answered.set()
            except Exception as error:  # of all kinds; what counts is that there is no answer
                self._error = error
            self._closed.wait(LOOK_SECONDS)
