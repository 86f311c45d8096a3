"""The one loop between a sweep and its executor: jobs are submitted, answers are handed on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator

from bnbench.runner import Stop
from bnbench.sweep.jobs import Answer, End, Executor, Job, Lost, Said, Train

WAIT_SECONDS = 0.25
"""How long to wait for an answer before looking at the clock and at Ctrl-C."""

COMMIT_SECONDS = 8.0
"""How long a stopped sweep waits for its runs to commit before it ends them."""


class Dispatcher:
    """Keeps an executor busy with the jobs that are added; its answers come out of `answers`.

    `limit`: how many jobs may be in work at a time. `stopping`: no further job is submitted.
    """

    def __init__(
        self, executor: Executor[Job, Answer], say: Callable[[str], None], stop: Stop
    ) -> None:
        self.limit = executor.size
        self.stopping = False
        self._executor = executor
        self._say = say
        self._stop = stop
        self._waiting: list[tuple[float, Job]] = []  # with the time from which it may be submitted
        self._submitted: set[Job] = set()
        self._deadline = math.inf

    def add(self, jobs: Iterable[Job], *, delay_seconds: float = 0.0) -> None:
        """Have these jobs done, after a delay if one is given."""
        self._waiting += [(time.monotonic() + delay_seconds, job) for job in jobs]

    def answers(
        self,
        *,
        choose: Callable[[list[Job]], Job] = lambda ready: ready[0],
        each_turn: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[Job, Answer]]:
        """All answers until no job is left, or until `stop` is called or a signal has asked for it.

        `choose` picks the job that is submitted next. `each_turn` is called a few times a second. A
        job whose worker died at its start is submitted again.
        """
        while self._unfinished():
            if self._stop.exit_code is not None:
                self.stop()
            self._submit(choose)
            each_turn()
            for job, answer in self._executor.answers(WAIT_SECONDS):
                if isinstance(answer, End):
                    self._submitted.discard(job)
                match answer:
                    case Said(line):
                        self._say(line)
                    case Lost(how, at_start=True) if not self.stopping:
                        self._say(f"warning: a worker {how} at its start; another takes its job")
                        self.add([job])
                    case _:
                        yield job, answer

    def stop(self) -> None:
        """Submit nothing more, and let the runs that train commit; one that takes too long will
        continue from its last checkpoint."""
        self._waiting.clear()
        if not self.stopping:
            self.stopping = True
            self._executor.ask_to_stop()
            self._deadline = time.monotonic() + COMMIT_SECONDS

    def _unfinished(self) -> bool:
        if not self.stopping:
            return bool(self._waiting or self._submitted)
        trains = any(isinstance(job, Train) for job in self._submitted)
        return trains and time.monotonic() < self._deadline

    def _submit(self, choose: Callable[[list[Job]], Job]) -> None:
        ready = [job for due, job in self._waiting if due <= time.monotonic()]
        while ready and len(self._submitted) < self.limit:
            job = choose(ready)
            ready.remove(job)
            self._waiting = [each for each in self._waiting if each[1] is not job]
            self._submitted.add(job)
            self._executor.submit(job)
