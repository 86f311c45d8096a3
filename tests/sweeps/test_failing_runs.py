"""What a sweep does where runs fail, their workers die, or others train them."""

from __future__ import annotations

import io

import pytest

from bnbench import store
from bnbench.config import files, identity
from bnbench.errors import DataError, HeldError, RunError
from bnbench.runner.settings import Stop
from bnbench.sinks.terminal import Screen
from bnbench.store import ExperimentFolder
from bnbench.sweeps.jobs import (
    Answer,
    Failed,
    Job,
    Lost,
    Train,
    Trained,
)
from tests.executors import Scripted, sweep
from tests.runs import MANIFEST
from tests.sweeps.scheduling import RESULT, failing, run_sweep, seeds, trained


def test_a_failure_is_said_at_once_and_does_not_stop_the_others(
    experiment: ExperimentFolder, screen: tuple[Screen, io.StringIO]
) -> None:
    runs = seeds(3)
    error = RunError("the run failed: a bug", do="look at it")
    outcome, executor = run_sweep(runs, experiment, failing(runs[0], error), screen[0])
    assert len(executor.given) == 3
    assert outcome.failures == [(identity.run_id(runs[0]), "the run failed: a bug\n  look at it")]
    assert outcome.trained == 2
    assert screen[1].getvalue().splitlines()[1] == (
        f"[1/3] {identity.run_id(runs[0])} failed: the run failed: a bug"
    )


def test_fail_fast_lets_the_others_commit_and_leaves_the_rest(
    experiment: ExperimentFolder, screen: tuple[Screen, io.StringIO]
) -> None:
    runs = seeds(4)

    def behave(job: Job) -> list[Answer]:
        return (
            [Failed(RunError("a bug"), hopeless=False)]
            if isinstance(job, Train) and job.config == runs[0]
            else []
        )

    outcome, executor = run_sweep(runs, experiment, behave, screen[0], size=2, fail_fast=True)
    assert executor.stopped
    assert executor.given == runs[:2]
    assert (outcome.done, len(outcome.failures)) == (1, 1)


def test_a_failure_from_before_stops_nothing(
    experiment: ExperimentFolder, screen: tuple[Screen, io.StringIO]
) -> None:
    runs = seeds(3)
    folder = experiment.run(identity.run_id(runs[0]))
    folder.begin(config_text=files.dump(runs[0]), manifest=MANIFEST)
    folder.fail({"message": "out of luck", "of_the_machine": False})
    outcome, executor = run_sweep(runs, experiment, trained, screen[0], fail_fast=True)
    assert executor.given == runs[1:]
    assert (outcome.trained, len(outcome.failures)) == (2, 1)


def test_what_would_fail_in_every_run_ends_the_sweep(
    experiment: ExperimentFolder, screen: tuple[Screen, io.StringIO]
) -> None:
    runs = seeds(4)
    executor = Scripted(experiment, failing(runs[1], DataError("no images"), hopeless=True), size=2)
    with pytest.raises(DataError, match="no images"):
        sweep(runs, experiment, executor, screen[0], Stop())
    assert executor.stopped
    assert len(executor.given) < 4


@pytest.mark.parametrize(("of_the_machine", "again"), [(False, False), (True, True)])
def test_a_failed_run_is_tried_again_if_asked_or_if_it_was_not_its_own_fault(
    experiment: ExperimentFolder,
    screen: tuple[Screen, io.StringIO],
    of_the_machine: bool,
    again: bool,
) -> None:
    runs = seeds(1)
    folder = experiment.run(identity.run_id(runs[0]))
    folder.begin(config_text=files.dump(runs[0]), manifest=MANIFEST)
    folder.fail({"message": "out of luck", "of_the_machine": of_the_machine})
    outcome, executor = run_sweep(runs, experiment, trained, screen[0])
    assert bool(executor.given) == again
    if not again:
        assert outcome.failures == [(folder.name, "failed before: out of luck")]
    outcome, executor = run_sweep(runs, experiment, trained, screen[0], retry_failed=True)
    assert executor.given == runs
    assert outcome.failures == []


def test_a_run_whose_worker_dies_three_times_is_failed(
    experiment: ExperimentFolder, screen: tuple[Screen, io.StringIO]
) -> None:
    runs = seeds(2)
    experiment.run(identity.run_id(runs[0])).begin(
        config_text=files.dump(runs[0]), manifest=MANIFEST
    )

    def deadly(job: Job) -> list[Answer]:
        if isinstance(job, Train) and job.config == runs[0]:
            return [Lost("was killed by SIGSEGV", at_start=False)]
        return [Trained(RESULT, found=False)]

    outcome, executor = run_sweep(runs, experiment, deadly, screen[0])
    assert executor.given.count(runs[0]) == 3
    assert executor.given.count(runs[1]) == 1
    assert outcome.trained == 1
    ((name, message),) = outcome.failures
    assert name == identity.run_id(runs[0])
    assert message.startswith("its worker was killed by SIGSEGV, 3 times\n")
    folder = experiment.run(name)
    assert store.read(folder).state == "failed"
    assert (folder.error() or {})["message"] == message
    outcome, executor = run_sweep(runs, experiment, trained, screen[0])
    assert executor.given == [runs[1]], "it is kept as failed"


def test_deaths_at_the_start_are_not_held_against_the_run(
    experiment: ExperimentFolder, screen: tuple[Screen, io.StringIO]
) -> None:
    runs = seeds(1)
    left = [Lost("was killed by SIGKILL", at_start=True)] * 4

    def behave(_: Job) -> list[Answer]:
        return [left.pop() if left else Trained(RESULT, found=False)]

    outcome, _ = run_sweep(runs, experiment, behave, screen[0])
    assert outcome.trained == 1


def test_a_run_that_another_process_trains_is_waited_for(
    experiment: ExperimentFolder,
    screen: tuple[Screen, io.StringIO],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bnbench.sweeps.schedule.HELD_SECONDS", 0.01)
    runs = seeds(2)
    held = 3

    def behave(job: Job) -> list[Answer]:
        nonlocal held
        if isinstance(job, Train) and job.config == runs[0] and held:
            held -= 1
            return [Failed(HeldError("held"), hopeless=False)]
        return [Trained(RESULT, found=held == 0)]

    outcome, executor = run_sweep(runs, experiment, behave, screen[0])
    assert executor.given[:2] == runs, "the others first"
    assert executor.given.count(runs[0]) == 4
    assert (outcome.done, outcome.failures) == (2, [])
