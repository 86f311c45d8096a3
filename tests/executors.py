"""Executors for tests: jobs done in this process, where a test can reach inside."""

from __future__ import annotations

from collections.abc import Sequence

from bnbench.runner import Stop
from bnbench.store import ExperimentFolder
from bnbench.sweep.jobs import Answer, Job, WorkerOptions
from bnbench.sweep.worker import perform


class InProcess:
    """Does one job at a time, here, with the code that a worker runs."""

    size = 1

    def __init__(
        self,
        _size: int,
        options: WorkerOptions,
        experiment: ExperimentFolder,
        siblings: Sequence[ExperimentFolder] = (),
    ) -> None:
        self._place = (options, experiment)
        self._siblings = siblings
        self._stop = Stop()
        self._submitted: list[Job] = []

    def start(self, jobs: int) -> None:
        """There is nothing to start."""

    def submit(self, job: Job) -> None:
        """It waits for `answers`."""
        self._submitted.append(job)

    def answers(self, seconds: float) -> list[tuple[Job, Answer]]:
        """Does the job that was submitted."""
        del seconds
        if not self._submitted:
            return []
        job = self._submitted.pop()
        said: list[Answer] = []
        end = perform(job, *self._place, said.append, self._stop, siblings=self._siblings)
        return [(job, answer) for answer in (*said, end)]

    def ask_to_stop(self) -> None:
        """The next run ends after its first step."""
        self._stop.exit_code = 130

    def close(self) -> None:
        """Nothing is held."""
