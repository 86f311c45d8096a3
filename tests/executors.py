"""Executors for tests: jobs done in this process, where a test can reach inside."""

from __future__ import annotations

from bnbench.runner import Stop
from bnbench.sweep import Terms
from bnbench.sweep.jobs import Answer, Job
from bnbench.sweep.worker import perform


class InProcess:
    """Does one job at a time, here, with the code that a worker runs."""

    def __init__(self, size: int, terms: Terms) -> None:
        del size
        self.size = 1
        self.busy = 0
        self._terms = terms
        self._stop = Stop()
        self._given: list[Job] = []

    def give(self, job: Job) -> None:
        """It waits for `answers`."""
        self._given.append(job)
        self.busy = 1

    def answers(self, seconds: float) -> list[tuple[Job, Answer]]:
        """Does the job that was given."""
        del seconds
        if not self._given:
            return []
        job = self._given.pop()
        said: list[Answer] = []
        end = perform(job, self._terms, said.append, self._stop)
        self.busy = 0
        return [(job, answer) for answer in (*said, end)]

    def stop(self) -> None:
        """The next run ends after its first step."""
        self._stop.exit_code = 130

    def close(self) -> None:
        """Nothing is held."""
