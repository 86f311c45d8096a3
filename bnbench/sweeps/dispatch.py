"""The one loop between a sweep and its executor, and what it finds out before the first run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator

from bnbench.config import feasible, schema
from bnbench.config.custom import code_of
from bnbench.errors import ConfigError
from bnbench.runner.settings import Fitting, Stop
from bnbench.sweeps import jobs

WAIT_SECONDS = 0.25
"""How long to wait for an answer before looking at the clock and at Ctrl-C."""

CUSTOM_KEYS = ("norm.target", "model.target", "model.name", "norm.kind", "model.kind")
"""What may be wrong where a network kills its worker."""


class Dispatcher:
    """Keeps an executor busy with the jobs that are added; its answers come out of `answers`.

    `stopping`: no further job is submitted.
    """

    def __init__(
        self,
        executor: jobs.Executor[jobs.Job, jobs.Answer],
        say: Callable[[str], None],
        stop: Stop,
    ) -> None:
        self.stopping = False
        self._executor = executor
        self._say = say
        self._stop = stop
        self._waiting: dict[jobs.Job, float] = {}  # with the time from which it may be submitted
        self._submitted: set[jobs.Job] = set()
        self._deadline = math.inf
        self._warned: set[str] = set()

    @property
    def limit(self) -> int:
        """How many jobs may be in work at a time."""
        return self._executor.size

    def add(self, new: Iterable[jobs.Job], *, delay_seconds: float = 0.0) -> None:
        """Have these jobs done, after a delay if one is given."""
        self._waiting |= dict.fromkeys(new, time.monotonic() + delay_seconds)

    def answers(
        self,
        *,
        choose: Callable[[list[jobs.Job]], jobs.Job] = lambda ready: ready[0],
        each_turn: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[jobs.Job, jobs.Answer]]:
        """All answers until no job is left, or until `stop` is called or a signal has asked for it.

        `choose` picks the job that is submitted next. `each_turn` is called a few times a second. A
        job whose worker died at its start is submitted again.
        """
        while self._unfinished():
            if self._stop.exit_code is not None:
                self.stop()
            ready = [job for job, due in self._waiting.items() if due <= time.monotonic()]
            while ready and (self._executor.queues or len(self._submitted) < self.limit):
                job = ready[0] if self._executor.queues else choose(ready)
                ready.remove(job)
                del self._waiting[job]
                self._submitted.add(job)
                self._executor.submit(job)
            each_turn()
            for job, answer in self._executor.answers(WAIT_SECONDS):
                if isinstance(answer, jobs.End):
                    self._submitted.discard(job)
                match answer:
                    case jobs.Said(line):
                        # Each worker may have the same to say, and again for each of its runs.
                        if line not in self._warned:
                            self._say(line)
                        if line.startswith("warning: "):
                            self._warned.add(line)
                    case jobs.Lost(how, at_start=True) if not self.stopping:
                        self._say(f"warning: a worker {how} at its start; another takes its job")
                        self.add([job])
                    case _:
                        yield job, answer

    def found(self, new: Iterable[jobs.Job]) -> dict[jobs.Job, jobs.Found | jobs.Lost]:
        """Have jobs done that find something out. Raises the error of one that has failed; where
        the sweep is stopped, some have no answer."""
        self.add(new)
        found: dict[jobs.Job, jobs.Found | jobs.Lost] = {}
        for job, answer in self.answers():
            if isinstance(answer, jobs.Failed):
                raise answer.error
            if isinstance(answer, jobs.Found | jobs.Lost):
                found[job] = answer
        return found

    def stop(self) -> None:
        """Submit nothing more, and let the runs that train commit; one that takes too long will
        continue from its last checkpoint."""
        self._waiting.clear()
        if not self.stopping:
            self.stopping = True
            self._executor.ask_to_stop()
            self._deadline = time.monotonic() + self._stop.commit_seconds

    def _unfinished(self) -> bool:
        if not self.stopping:
            return bool(self._waiting or self._submitted)
        trains = any(isinstance(job, jobs.Train) for job in self._submitted)
        return trains and time.monotonic() < self._deadline

    def check_networks(self, configs: Iterable[schema.RunConfig], faults_of: jobs.FaultsOf) -> None:
        """Check each distinct network of these runs. Raises ConfigError with all that is wrong."""
        # A job for each network: if its worker dies, the culprit is known. In the order of the
        # user's code, since a worker that has run some does no job without it.
        checks = [
            jobs.Check(tuple({config.setup: config for config in same}.values()))
            for same in sorted(feasible.networks(configs), key=lambda same: code_of(same[0]))
        ]
        found = self.found(checks)
        refused: list[jobs.Refused] = []
        for check in checks:
            match found.get(check):
                case jobs.Found(tuple(each)):
                    refused += each
                case jobs.Lost(how):
                    message = f"the first step fails: the worker {how}"
                    obstacle = feasible.Obstacle(CUSTOM_KEYS, message)
                    refused += [(config, obstacle) for config in check.configs]
                case _:
                    pass
        if refused and not self.stopping:
            raise ConfigError(faults_of(refused))

    def fit_gpus(self, config: schema.RunConfig) -> None:
        """Set the limit to one run on each of several GPUs, or lower it to how many runs like this
        one fit a single GPU's memory."""
        fit = jobs.Fit(config)
        match self.found([fit]).get(fit):
            case jobs.Found(Fitting(runs, gpus)) if gpus > 1 or runs < self.limit:
                why = "one on each GPU" if gpus > 1 else "as many as the GPU holds"
                self._say(f"{runs} at a time, {why}")
                self._executor.size = runs
            case _:
                pass
