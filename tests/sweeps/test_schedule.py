"""What a sweep does with its runs, whoever trains them: which, in which order, how many."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from bnbench.cli.root import PlainConsole
from bnbench.config import files, identity, schema
from bnbench.events import Moment
from bnbench.runner.settings import Fitting, Stop
from bnbench.sinks.terminal import Screen
from bnbench.store import ExperimentFolder
from bnbench.sweeps.jobs import (
    Answer,
    Check,
    Fit,
    Found,
    Job,
    Stated,
    SweepOutcome,
    Train,
    Trained,
)
from tests.executors import Scripted, sweep
from tests.runs import end, small_config
from tests.sweeps.scheduling import RESULT, finish, run_sweep, seeds, trained


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
        "2 runs to train",
        "2 of 4, 1 diverged, 4 s left",
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
    """Four runs of ten seconds, two workers; half of the first has been trained in five, after a
    minute in which processes started."""
    runs = seeds(4)
    now = 100.0
    monkeypatch.setattr("bnbench.sweeps.schedule.time.monotonic", lambda: now)
    told: list[tuple[object, ...]] = []
    screen = Screen(PlainConsole(file=io.StringIO()), runs=4)
    shown = ("done", "seconds_left", "busy")
    monkeypatch.setattr(
        screen, "advance", lambda **kinds: told.append(tuple(kinds[each] for each in shown))
    )
    none, half = (
        Moment(step=step, examples=8 * step, train_seconds=step / 2, facts=()) for step in (2, 10)
    )

    class Slow(Scripted):
        def answers(self, _: float) -> list[tuple[Job, Answer]]:
            nonlocal now
            if isinstance(self._now[0], Check):
                return super().answers(0.0)
            now += 60.0 if now == 100.0 else 5.0
            if now <= 165.0:
                said = half if now == 165.0 else none
                return [(job, Stated([said], pace=2.0)) for job in self._now]
            job = self._now.pop(0)
            return [(job, Trained(replace(RESULT, wall_seconds=10.0), found=False))]

    sweep(runs, experiment, Slow(experiment, trained, size=2), screen, Stop())
    assert told[0] == (0, None, False), "nothing is known yet"
    assert told[1] == (0, None, True), "no pace is known after the first statement"
    # Two runs with half a core each have done half in five seconds since they first said what is
    # done; six of sixteen steps are left. The waiting ones take ten, as steps cost so far.
    assert told[2] == (0, 13.75, True), "before the first run has ended"
    # Ten seconds in: one is done; one has done half in ten seconds; one begins; one waits.
    assert told[3] == (1, 17.5, True)
