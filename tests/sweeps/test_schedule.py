"""What a sweep does with its runs, whoever trains them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bnbench import store
from bnbench.cli.root import PlainConsole
from bnbench.config import feasible, files, identity, schema
from bnbench.errors import ConfigError, DataError, HeldError, Interrupted, RunError
from bnbench.events import Moment
from bnbench.runner.settings import Fitting, Stop
from bnbench.sinks.terminal import Screen
from bnbench.store import ExperimentFolder
from bnbench.sweeps.jobs import (
    Answer,
    Check,
    Failed,
    Fit,
    Found,
    Job,
    Lost,
    Said,
    Stated,
    SweepOutcome,
    Train,
    Trained,
)
from tests.executors import Behaviour, Scripted, sweep
from tests.runs import MANIFEST, a_result, end, experiment_in, no_norm_config, small_config

RESULT = a_result()


@pytest.fixture
def screen() -> tuple[Screen, io.StringIO]:
    said = io.StringIO()
    return Screen(PlainConsole(file=said, width=200), runs=4), said


@pytest.fixture
def experiment(tmp_path: Path) -> ExperimentFolder:
    return experiment_in(tmp_path)


def trained(_: Job) -> list[Answer]:
    """Every run succeeds."""
    return [Trained(RESULT, found=False)]


def seeds(count: int, **changes: Any) -> list[schema.RunConfig]:
    """One cell's runs."""
    return [small_config(seed=seed, **changes) for seed in range(count)]


def finish(experiment: ExperimentFolder, config: schema.RunConfig, **changes: Any) -> None:
    """Let a run have a result on disk."""
    folder = experiment.run(identity.run_id(config))
    end(folder, files.dump(config), replace(RESULT, **changes))


def run_sweep(
    runs: list[schema.RunConfig],
    experiment: ExperimentFolder,
    behaviour: Behaviour,
    screen: Screen,
    *,
    size: int = 1,
    checks: bool = False,
    **options: Any,
) -> tuple[SweepOutcome, Scripted]:
    executor = Scripted(experiment, behaviour, size, checks=checks)
    return sweep(runs, experiment, executor, screen, Stop(), **options), executor


def test_only_what_is_missing_is_trained(
    experiment: ExperimentFolder, screen: tuple[Screen, io.StringIO]
) -> None:
    runs = seeds(4)
    finish(experiment, runs[1])
    finish(experiment, runs[2], state="diverged", step=3, reason="loss is not finite")
    outcome, executor = run_sweep(runs, experiment, trained, screen[0])
    assert executor.given == [runs[0], runs[3]]
    assert outcome == SweepOutcome(runs=4, found=2, trained=2, diverged=1)
    assert screen[1].getvalue().splitlines() == [
        f"[3/4] {identity.run_id(runs[0])}: val 50.0% in 2.0 s",
        f"[4/4] {identity.run_id(runs[3])}: val 50.0% in 2.0 s",
    ]


def test_a_finished_run_of_another_configuration_is_looked_at_closely(
    experiment: ExperimentFolder, screen: tuple[Screen, io.StringIO]
) -> None:
    """Its file is not the one that would be written now."""
    runs = seeds(1)
    folder = experiment.run(identity.run_id(runs[0]))
    end(folder, files.dump(runs[0]).replace("lr: 0.05", "lr: 0.06"), RESULT)
    outcome, executor = run_sweep(runs, experiment, lambda _: [], screen[0])
    assert executor.given == []
    ((name, why),) = outcome.failures
    assert name == folder.name
    assert why.startswith(f"damaged: {folder.path / 'config.yaml'} is not the configuration")


def test_seed_after_seed_and_of_each_the_longest_first(
    experiment: ExperimentFolder, screen: tuple[Screen, io.StringIO]
) -> None:
    """Pairs of a seed are what claims are judged by. Seeds follow each other as in the file."""
    seconds = {"short": 100.0, "long": 900.0, "unknown": 400.0}
    runs = [
        replaced(small_config(seed=seed), setup=setup, steps=int(each) // 25)
        for seed in (5, 3, 4)
        for setup, each in seconds.items()
    ]
    finish(experiment, runs[0], wall_seconds=seconds["short"])
    finish(experiment, runs[1], wall_seconds=seconds["long"])

    def timed(job: Job) -> list[Answer]:
        assert isinstance(job, Train)
        result = replace(RESULT, wall_seconds=seconds[job.config.setup])
        return [Trained(result, found=False)]

    _, executor = run_sweep(runs, experiment, timed, screen[0])
    assert [(config.seed, config.setup) for config in executor.given] == [
        (5, "unknown"),
        *((seed, setup) for seed in (3, 4) for setup in ("long", "unknown", "short")),
    ]


def replaced(config: schema.RunConfig, *, setup: str, steps: int) -> schema.RunConfig:
    """The run under another setup and budget."""
    train = config.train.model_copy(update={"epochs": None, "steps": steps})
    return config.model_copy(update={"setup": setup, "train": train})


def test_of_cells_that_nobody_knows_the_one_with_most_steps_comes_first(
    experiment: ExperimentFolder, screen: tuple[Screen, io.StringIO]
) -> None:
    few, many = (replaced(small_config(), setup=f"steps-{steps}", steps=steps) for steps in (5, 50))
    _, executor = run_sweep([few, many], experiment, trained, screen[0])
    assert executor.given == [many, few]


@pytest.mark.parametrize("minutes", [0.1, 2])
def test_short_runs_with_the_same_code_of_the_users_own_follow_each_other(
    experiment: ExperimentFolder,
    screen: tuple[Screen, io.StringIO],
    tmp_path: Path,
    minutes: float,
) -> None:
    """A worker that has run a file does no job without it, which matters for short runs alone."""

    def own(name: str, seed: int, steps: int) -> schema.RunConfig:
        path = tmp_path / f"{name}.py"
        path.write_text("class Layer: ...\n")
        norm = schema.CustomNormConfig(kind="custom", target=f"{path}:Layer")
        return replaced(small_config(seed=seed, norm=norm), setup=name, steps=steps)

    runs = [
        run
        for seed in (0, 1)
        for run in (own("b", seed, 17), small_config(seed=seed), own("a", seed, 18))
    ]

    def timed(_: Job) -> list[Answer]:
        return [Trained(replace(RESULT, wall_seconds=60 * minutes), found=False)]

    _, executor = run_sweep(runs, experiment, timed, screen[0])
    given = "".join(f"{config.setup}{config.seed} " for config in executor.given)
    in_turn = "bn0 a0 b0 b1 bn1 a1 "  # at first by what the code is, as nobody knows how long
    assert given == ("bn0 bn1 a0 a1 b0 b1 " if minutes < 1 else in_turn)


def test_all_workers_are_given_work_at_once(
    experiment: ExperimentFolder, screen: tuple[Screen, io.StringIO]
) -> None:
    runs = seeds(5)
    busiest = 0

    def watched(_: Job) -> list[Answer]:
        nonlocal busiest
        busiest = max(busiest, executor.busy)
        return [Trained(RESULT, found=False)]

    executor = Scripted(experiment, watched, size=3)
    sweep(runs, experiment, executor, screen[0], Stop())
    assert busiest == 3
    assert len(executor.given) == 5


# --- failures ------------------------------------------------------------------------------------


def failing(bad: schema.RunConfig, error: Exception, *, hopeless: bool = False) -> Behaviour:
    """All runs succeed but one."""

    def behave(job: Job) -> list[Answer]:
        if isinstance(job, Train) and job.config == bad:
            return [Failed(error, hopeless)]  # type: ignore[arg-type]
        return [Trained(RESULT, found=False)]

    return behave


def test_a_failure_is_said_at_once_and_does_not_stop_the_others(
    experiment: ExperimentFolder, screen: tuple[Screen, io.StringIO]
) -> None:
    runs = seeds(3)
    error = RunError("the run failed: a bug", do="look at it")
    outcome, executor = run_sweep(runs, experiment, failing(runs[0], error), screen[0])
    assert len(executor.given) == 3
    assert outcome.failures == [(identity.run_id(runs[0]), "the run failed: a bug\n  look at it")]
    assert outcome.trained == 2
    assert screen[1].getvalue().splitlines()[0] == (
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


# --- before the first run, and stopping --------------------------------------------------------


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


@pytest.mark.parametrize(
    ("fits", "busiest"),
    [
        (Fitting(2), 2),
        (None, 4),
        (Fitting(9), 4),  # no more than cores …
        (Fitting(5, gpus=5), 5),  # … but one on each GPU
        (Fitting(2, gpus=2), 2),
    ],
)
def test_no_more_at_a_time_than_gpus_hold_of_the_largest(
    experiment: ExperimentFolder,
    screen: tuple[Screen, io.StringIO],
    fits: Fitting | None,
    busiest: int,
) -> None:
    data = small_config().data
    runs = [
        small_config(seed=seed, data=data.model_copy(update={"batch_size": size}))
        for size in (8, 16, 4)
        for seed in (0, 1)
    ]
    asked: list[schema.RunConfig] = []
    seen = 0

    def behave(job: Job) -> list[Answer]:
        nonlocal seen
        if isinstance(job, Fit):
            asked.append(job.config)
            return [Found(fits)]
        seen = max(seen, executor.busy)
        return trained(job)

    executor = Scripted(experiment, behave, size=4)
    sweep(runs, experiment, executor, screen[0], Stop(), device="cuda")
    assert asked == [runs[2]]
    assert seen == busiest


def test_the_time_of_a_cell_that_nobody_knows_is_told_from_its_steps(
    experiment: ExperimentFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """400 steps have taken 6 s; of the cell with one finished run, its 2 s count."""
    known, other, unknown = (
        replaced(small_config(), setup=name, steps=steps)
        for name, steps in (("known", 100), ("other", 300), ("unknown", 200))
    )
    finish(experiment, known, wall_seconds=2.0)
    finish(experiment, other, wall_seconds=4.0)
    told: list[float | None] = []
    screen = Screen(PlainConsole(file=io.StringIO()), runs=4)
    monkeypatch.setattr(screen, "advance", lambda **kinds: told.append(kinds["seconds_left"]))
    monkeypatch.setattr("bnbench.sweeps.schedule.time.monotonic", lambda: 100.0)
    again = known.model_copy(update={"seed": 1})
    run_sweep([known, other, unknown, again], experiment, trained, screen)
    assert told == [pytest.approx(2.0 + 200 * 6.0 / 400), pytest.approx(2.0)]


def test_time_left_is_told_from_finished_runs_and_from_those_that_train(
    experiment: ExperimentFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four runs of ten seconds, two workers; half of the first has been trained in five."""
    runs = seeds(4)
    now = 100.0
    monkeypatch.setattr("bnbench.sweeps.schedule.time.monotonic", lambda: now)
    told: list[tuple[int, float | None]] = []
    screen = Screen(PlainConsole(file=io.StringIO()), runs=4)
    monkeypatch.setattr(
        screen, "advance", lambda **kinds: told.append((kinds["done"], kinds["seconds_left"]))
    )
    half = Moment(step=8, examples=64, train_seconds=4.0, facts=())

    class Slow(Scripted):
        def answers(self, _: float) -> list[tuple[Job, Answer]]:
            nonlocal now
            if isinstance(self._now[0], Check):
                return super().answers(0.0)
            now += 5.0
            if now == 105.0:
                return [(job, Stated([half])) for job in self._now]
            job = self._now.pop(0)
            return [(job, Trained(replace(RESULT, wall_seconds=10.0), found=False))]

    sweep(runs, experiment, Slow(experiment, trained, size=2), screen, Stop())
    assert told[0] == (0, None), "nothing is known yet"
    # Two runs are half done after five seconds; the waiting ones take ten, as steps cost so far.
    assert told[1] == (0, 15.0), "before the first run has ended"
    # Ten seconds in: one is done; one is half done since ten seconds; one begins; one waits.
    assert told[2] == (1, 20.0)
