"""Which of a sweep's workers there are, by stand-ins for their processes."""

from __future__ import annotations

import multiprocessing
import os
import time
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from bnbench.config import loading
from bnbench.sweeps.experiments import executors, plan_all
from bnbench.sweeps.jobs import Found, SweepOptions, Train
from bnbench.sweeps.workers import END_SECONDS
from tests.executors import workers_in
from tests.runs import experiment_in, small_config, write_experiment


class Numbered:
    """A process that only remembers what it was given: its number, and jobs."""

    all: ClassVar[list[Numbered]] = []

    def __init__(self, target: object, args: tuple[Any, ...], name: str) -> None:
        del target, name
        self.given, self.number, self.alive = args[0], args[-1], True
        self.sentinel, self._end = multiprocessing.Pipe()
        self.exitcode = -9

    def start(self) -> None:
        self.inbox: Any = Connection(os.dup(self.given.fileno()))
        Numbered.all.append(self)

    def is_alive(self) -> bool:
        return self.alive

    def kill(self) -> None:
        self.alive = False
        self._end.close()

    def join(self, timeout: float | None = None) -> None:
        if timeout is None:
            self.inbox.close()


@pytest.fixture
def numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are stand-ins."""
    monkeypatch.setattr(Numbered, "all", [])
    context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=Numbered)
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: context)


@pytest.mark.usefixtures("numbered")
def test_workers_have_numbers_from_0_and_only_those_below_the_size_work(
    tmp_path: Path,
) -> None:
    jobs = [Train(small_config(seed=seed)) for seed in range(4)]
    with closing(workers_in(experiment_in(tmp_path), 3)) as workers:
        workers.start(9)
        assert [each.number for each in Numbered.all] == [0, 1, 2]
        Numbered.all[1].kill()
        assert workers.answers(0) == []
        workers.start(9)
        assert [each.number for each in Numbered.all] == [0, 1, 2, 1], "the number that is free"
        workers.size = 2
        for job in jobs[:2]:
            workers.submit(job)
        assert [each.number for each in Numbered.all if each.alive and each.inbox.poll()] == [0, 1]
        workers.size = 4
        for job in jobs[2:]:
            workers.submit(job)
        assert [each.number for each in Numbered.all if each.alive] == [0, 2, 1, 3]


@pytest.mark.usefixtures("numbered")
def test_workers_that_do_not_end_are_waited_for_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited, now = list[float](), [100.0]

    def join(_: Numbered, timeout: float | None = None) -> None:
        waited.append(timeout or 0.0)
        now[0] += timeout or 0.0

    monkeypatch.setattr(Numbered, "join", join)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    workers = workers_in(experiment_in(tmp_path), 3)
    workers.start(3)
    workers.close()
    assert sum(waited) == END_SECONDS
    assert not any(each.alive for each in Numbered.all)


@pytest.mark.usefixtures("numbered")
def test_experiments_of_a_folder_have_the_same_workers(
    tmp_path: Path,
) -> None:
    for name in "ab":
        write_experiment(tmp_path / f"{name}.yaml", "seeds: 2\n")
    planned = plan_all(
        str(tmp_path),
        loading.Overrides(),
        max_runs=4,
        runs_dir=tmp_path / "runs",
        say=lambda _: None,
    )
    a, b = (each.folder for each in planned)
    assert (a.siblings, b.siblings) == ((b.path,), (a.path,))
    with closing(executors(planned, SweepOptions(workers="1"), lambda _: None)) as found:
        for each, executor in found:
            executor.start(2)
            (worker,) = Numbered.all
            executor.submit(Train(each.plan.runs[0]))
            job, place = worker.inbox.recv()
            assert job.config == each.plan.runs[0]
            assert place == each.folder
            worker.inbox.send(Found(()))
            executor.answers(0)
    assert not worker.alive
