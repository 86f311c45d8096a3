"""A stand-in for SLURM, whose tasks do what a test says, and a sweep there."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bnbench import store
from bnbench.cli.root import PlainConsole
from bnbench.config import files, identity, schema
from bnbench.runner.settings import Cost, Stop
from bnbench.sinks.terminal import Screen
from bnbench.sweeps.jobs import Answer, Found, Job, Measure, SweepOptions, SweepOutcome
from bnbench.sweeps.slurm import executor, share
from tests.executors import Scripted, sweep
from tests.runs import MANIFEST, a_result, end, experiment_in

PRINTED = {"torch": "1.0", "cpu_capability": "NO"}

Behaviour = Callable[[str, share.Share], None]


class Cluster:
    """Does one task whenever it is asked what there is, as `behaviour` says: it ends all runs."""

    asks_seconds = 0.0
    workers = 1

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.queue: dict[str, Any] = {}
        self.submitted: list[list[schema.RunConfig]] = []
        self.minutes = 0
        self.at_a_time: set[int] = set()
        self.cancelled: list[str] = []
        self._behaviour = behaviour or (lambda _, share: done(share))

    def submit(
        self, tasks: Sequence[Any], folder: Path, name: str, minutes: int, most: int
    ) -> list[str]:
        """Queue them."""
        assert (folder.name, name, most) == ("slurm", "bnbench-small", most)
        ids = [f"{len(self.submitted)}_{each}" for each in range(len(tasks))]
        self.submitted += [list(task.configs) for task in tasks]
        self.queue |= dict(zip(ids, tasks, strict=True))
        self.minutes = minutes
        self.at_a_time |= {task.workers for task in tasks}
        return ids

    def active(self, ids: Iterable[str], folder: Path) -> Mapping[str, str]:
        """Those that have not had their turn; the first of them has it now."""
        assert folder.name == "slurm"
        del ids
        there = dict.fromkeys(self.queue, "")
        if there:
            first = next(iter(there))
            self._behaviour(first, self.queue.pop(first))
        return there

    def cancel(self, ids: Iterable[str]) -> None:
        """Remember it."""
        self.cancelled += ids
        self.queue.clear()


def done(task: share.Share, count: int | None = None) -> None:
    """A task trains its runs, or the first few."""
    for config in task.configs[:count]:
        end(task.experiment.run(identity.run_id(config)), files.dump(config), a_result())


def begun(task: share.Share) -> None:
    """A task begins with its first run."""
    folder = task.experiment.run(identity.run_id(task.configs[0]))
    folder.begin(config_text=files.dump(task.configs[0]), manifest=MANIFEST)
    step = {"event": "step", "step": 4, "examples": 32, "train_seconds": 1.0, "lr": 0.1}
    lines = [step | {"loss": 1.0, "loss_max": 1.0, "step": each} for each in (2, 4)]
    (folder.path / "metrics.jsonl").write_bytes(store.encode_records(lines))


def left(task: share.Share, number: str, what: str, *, told: bool) -> None:
    """A task says why it ends."""
    task._leave(number, share.Ended(what, "do this", told))


class Swept:
    """Sweeps of the same runs, one after the other, and what was said."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.experiment = experiment_in(path)
        self.said = io.StringIO()
        self.stop = Stop()
        self._seconds = seconds

    def __call__(
        self, runs: Sequence[schema.RunConfig], cluster: Cluster, **options: Any
    ) -> SweepOutcome:
        """Sweep, with workers for checks that say what a run costs."""

        def known(job: Job) -> list[Answer]:
            cost = Cost(self._seconds, 1000)
            return [Found(cost if isinstance(job, Measure) else ())]

        class Here(Scripted):
            def answers(self, seconds: float) -> list[tuple[Job, Answer]]:
                time.sleep(0.002)
                return super().answers(seconds)

            def turn_to(self, size: int, *_: Any) -> None:
                self.size = size

        def here(_: SweepOptions) -> Scripted:
            return Here(self.experiment, known, checks=True)

        console = PlainConsole(file=self.said, width=200)
        chosen = SweepOptions(on="slurm", **options)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bnbench.sweeps.workers.Workers", here)
            patch.setattr(executor, "LOOK_SECONDS", 0.0)
            slurm = executor.Slurm(cluster, chosen, self.experiment, console.print)
            with closing(slurm):
                screen = Screen(console, runs=len(runs))
                return sweep(runs, self.experiment, slurm, screen, self.stop, **options)
