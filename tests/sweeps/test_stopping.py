"""What a sweep does before the first run, and where it is stopped."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from bnbench.config import feasible, files, identity, schema
from bnbench.errors import ConfigError, HeldError, Interrupted
from bnbench.runner.settings import Stop
from bnbench.sinks.terminal import Screen
from bnbench.store import ExperimentFolder
from bnbench.sweeps.jobs import (
    Answer,
    Check,
    Found,
    Job,
    Lost,
    Said,
    Train,
    Trained,
)
from tests.executors import Scripted, sweep
from tests.runs import MANIFEST, no_norm_config, small_config
from tests.sweeps.scheduling import RESULT, finish, run_sweep, seeds, trained


def test_restart_throws_away_what_is_there_after_saying_so(
    experiment: ExperimentFolder, screen: tuple[Screen, io.StringIO]
) -> None:
    runs = seeds(3)
    finish(experiment, runs[0])
    experiment.run(identity.run_id(runs[1])).begin(
        config_text=files.dump(runs[1]), manifest=MANIFEST
    )
    _, executor = run_sweep(runs, experiment, trained, screen[0], restart=True)
    assert executor.given == runs
    assert experiment.run(identity.run_id(runs[0])).result() is None
    assert screen[1].getvalue().startswith("2 earlier runs thrown away\n")


def test_a_run_that_is_being_trained_is_not_thrown_away(
    experiment: ExperimentFolder, screen: tuple[Screen, io.StringIO]
) -> None:
    runs = seeds(1)
    finish(experiment, runs[0])
    folder = experiment.run(identity.run_id(runs[0]))
    with folder.hold(), pytest.raises(HeldError):
        run_sweep(runs, experiment, trained, screen[0], restart=True)
    assert folder.result() is not None


def test_networks_are_checked_before_the_first_run(
    experiment: ExperimentFolder, screen: tuple[Screen, io.StringIO], tmp_path: Path
) -> None:
    """Each distinct one once, whatever its seed or learning rate; all that are wrong are said.
    Those with code of the user's own are jobs of their own: they may kill their worker."""
    (tmp_path / "layer.py").write_text("class Layer: ...\n")
    norm = schema.CustomNormConfig(kind="custom", target=f"{tmp_path / 'layer.py'}:Layer")

    def own(setup: str, **changes: Any) -> schema.RunConfig:
        other = norm.model_copy(update={"options": {"setup": setup}})
        return small_config(setup=setup, norm=other, **changes)

    begun = own("begun")
    experiment.run(identity.run_id(begun)).begin(config_text=files.dump(begun), manifest=MANIFEST)
    runs = [
        config
        for seed in (0, 1)
        for lr in (0.1, 0.2)
        for config in (
            small_config(seed=seed, optim=schema.SGDConfig(lr=lr)),
            no_norm_config(seed=seed, optim=schema.SGDConfig(lr=lr)),
            *(own(setup, seed=seed, optim=schema.SGDConfig(lr=lr)) for setup in "abc"),
        )
    ]
    checked: list[list[str]] = []

    def behave(job: Job) -> list[Answer]:
        assert isinstance(job, Check), "nothing is trained"
        checked.append([config.setup for config in job.configs])
        match checked[-1]:
            case ["a"] if checked.count(["a"]) == 1:
                return [Lost("was killed by SIGKILL", at_start=True)]
            case ["b"]:
                return [
                    Found(tuple((each, feasible.Obstacle((), "it breaks")) for each in job.configs))
                ]
            case ["c"]:
                return [Lost("was killed by SIGSEGV", at_start=False)]
            case _:
                return [Said("a note"), Found(())]

    with pytest.raises(ConfigError) as refused:
        run_sweep([begun, *runs], experiment, behave, screen[0], checks=True)
    assert str(refused.value) == (
        "setup b: it breaks\nsetup c: the first step fails: the worker was killed by SIGSEGV"
    )
    assert checked == [["bn"], ["none"], ["a"], ["b"], ["c"], ["a"]]
    assert screen[1].getvalue().splitlines() == [
        "21 runs to train",
        "a note",
        "a note",
        "warning: a worker was killed by SIGKILL at its start; another takes its job",
        "a note",
    ]


def test_where_nothing_is_missing_nothing_is_started(
    experiment: ExperimentFolder, screen: tuple[Screen, io.StringIO], tmp_path: Path
) -> None:
    (tmp_path / "layer.py").write_text("class Layer: ...\n")
    norm = schema.CustomNormConfig(kind="custom", target=f"{tmp_path / 'layer.py'}:Layer")
    runs = seeds(2, norm=norm)
    for config in runs:
        finish(experiment, config)

    def behave(job: Job) -> list[Answer]:
        raise AssertionError(job)

    outcome, executor = run_sweep(runs, experiment, behave, screen[0], checks=True, device="cuda")
    assert (outcome.found, executor.started) == (2, 0)


@pytest.mark.parametrize(("code", "saved"), [(130, 0), (143, 1)])
def test_stopping_commits_and_says_what_is_saved_and_how_to_go_on(
    experiment: ExperimentFolder, screen: tuple[Screen, io.StringIO], code: int, saved: int
) -> None:
    runs = seeds(4)
    for config in runs[1 : 1 + saved]:
        folder = experiment.run(identity.run_id(config))
        folder.begin(config_text=files.dump(config), manifest=MANIFEST)
        folder.commit(b"a state")
    stop = Stop()

    def behave(job: Job) -> list[Answer]:
        if isinstance(job, Train) and job.config == runs[0]:
            stop.exit_code = code
            return [Trained(RESULT, found=False)]
        return []

    executor = Scripted(experiment, behave, size=2)
    with pytest.raises(Interrupted) as stopped:
        sweep(runs, experiment, executor, screen[0], stop)
    assert executor.stopped
    assert executor.given == runs[:2], "nothing is begun after the stop"
    assert executor.busy == 0
    assert stopped.value.exit_code == code
    assert str(stopped.value) == (
        "stopped with 1 of 4 runs done; "
        + ("of 1 more, what was trained is saved" if saved else "nothing else is saved")
        + "\n  the same command goes on from there"
    )


def test_a_worker_that_does_not_commit_is_not_waited_for_forever(
    experiment: ExperimentFolder,
    screen: tuple[Screen, io.StringIO],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Stop, "commit_seconds", 0.05)
    stop = Stop()

    class Deaf(Scripted):
        def ask_to_stop(self) -> None:
            """Nobody listens."""

    def behave(_: Job) -> list[Answer]:
        stop.exit_code = 130
        return []

    with pytest.raises(Interrupted):
        sweep(seeds(1), experiment, Deaf(experiment, behave), screen[0], stop)
