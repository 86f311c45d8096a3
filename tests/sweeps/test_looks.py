"""`sweep --until decided`: which seeds are trained, and what becomes of studies that were read."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bnbench.config import files, loading, registration, schema
from bnbench.errors import ConfigError, UsageError
from bnbench.report.looks import judged
from bnbench.report.reading import read_study
from bnbench.sinks.terminal import Screen
from bnbench.store import ExperimentFolder
from bnbench.sweeps import experiments, looks
from bnbench.sweeps.forecast import Forecast, ForecastRun, as_lines
from bnbench.sweeps.jobs import Job, SweepOptions, Train, Trained
from bnbench.sweeps.planned import PlannedExperiment
from tests.commands import bnbench
from tests.executors import Scripted
from tests.report.invented import Told, invented, write_run
from tests.runs import SMALL_YAML

STUDY = """\
setups: {none: {norm: {kind: none}}, batch: {}, group: {norm: {kind: group, groups: 4}}}
seeds: %s
claims:
  - {id: large, says: s, metric: test/running/accuracy, better: batch, worse: none}
  - {id: none, says: s, metric: test/running/accuracy, better: group, worse: none,
     smallest_effect: 1}
"""


def plan(path: Path, text: str, **options: Any) -> PlannedExperiment:
    """What `bnbench sweep` of a file plans below its folder."""
    path.mkdir(exist_ok=True)
    file = path / "x.yaml"
    file.write_text(SMALL_YAML + text)
    overrides = loading.Overrides(
        seeds=options.pop("seeds", None), claims=options.pop("claims", ())
    )
    (planned,) = experiments.plan_all(
        str(file), overrides, max_runs=1000, runs_dir=path / "runs", say=lambda _: None, **options
    )
    return planned


def told(config: schema.RunConfig) -> Told:
    """Batch is far better than none; group is as good, one seed in two better."""
    effects = {"none": 0.0, "batch": 0.2, "group": 0.03 * (-1) ** config.seed}
    return Told(test=0.5 + 0.0001 * config.seed + effects[config.setup])


def trained(
    planned: PlannedExperiment,
    tell: Callable[[schema.RunConfig], Told] = told,
    **options: Any,
) -> tuple[list[tuple[str, int]], list[str]]:
    """Sweep it with invented results: what was trained, in order, and what was said."""

    def behave(job: Job) -> list[Any]:
        assert isinstance(job, Train)
        write_run(job.config, planned.folder, tell(job.config))
        folder = next(
            each for each in planned.folder.runs() if each.name.endswith(name_of(job.config))
        )
        result = folder.result()
        assert result is not None
        return [Trained(result, found=False)]

    executor, said = Scripted(planned.folder, behave), list[str]()
    screens: Callable[..., Screen] = lambda runs: Screen(Console(file=io.StringIO()), runs=runs)  # noqa: E731
    experiments.train(planned, executor, SweepOptions(**options), screens, said.append)
    return [(config.setup, config.seed) for config in executor.given], said


def name_of(config: schema.RunConfig) -> str:
    from bnbench.config.identity import identity

    return identity(config)[:8]


def test_seeds_are_added_for_what_is_undecided_alone(tmp_path: Path) -> None:
    planned = plan(tmp_path, STUDY % 2, until="decided", max_seeds=12)
    assert planned.experiment.looks == (7, 9, 12)
    given, said = trained(planned)
    assert sorted(given) == sorted(
        [("batch", seed) for seed in range(7)]
        + [(setup, seed) for setup in ("group", "none") for seed in range(12)]
    )
    assert said == [
        "7 seeds: 1 of 2 claims settled; 4 runs more, to 9 seeds, for none",
        "9 seeds: 1 of 2 claims settled; 6 runs more, to 12 seeds, for none",
    ]
    again = plan(tmp_path, STUDY % 2, until="decided", max_seeds=12)
    assert trained(again) == ([], [])
    study = read_study(planned.folder)
    assert len(study.runs) == len(given)
    possible = looks.possible(again)
    assert {(run.setup, run.seed) for run in possible} == set(given)
    assert len(looks.possible(replace(again, folder=ExperimentFolder(tmp_path)))) == 36
    assert study.experiment.looks == (7, 9, 12)


def test_claims_without_runs_are_not_called_settled(tmp_path: Path) -> None:
    planned = plan(tmp_path, STUDY % 2, until="decided", max_seeds=9, claims=("none",))
    given, said = trained(planned)
    assert Counter(setup for setup, _ in given) == {"none": 9, "group": 9}
    assert said == ["7 seeds: 0 of 1 claim settled; 4 runs more, to 9 seeds, for none"]
    large, small = judged(read_study(planned.folder))
    assert (large.look, small.look) == (None, "undecided at the most, 9 seeds")


TUNED = (STUDY % 2).replace(
    "claims:",
    """axes: {optim.lr: [0.01, 0.1, 1.0]}
tune: {axis: optim.lr}
claims:""",
)


def told_by_rate(config: schema.RunConfig) -> Told:
    """The rate in the middle is the best of each."""
    lost = {0.01: 0.2, 0.1: 0.0, 1.0: 0.1}[config.optim.lr] + 0.01 * (config.seed % 3 == 0)
    found = told(config)
    return replace(found, test=found.test - lost, curve=(0.7 - lost,))


def test_rates_that_are_worse_get_no_further_seeds(tmp_path: Path) -> None:
    planned = plan(tmp_path, TUNED, until="decided", max_seeds=9)
    assert planned.experiment.raced
    given, said = trained(planned, tell=told_by_rate)
    counts = Counter(setup for setup, _ in given)
    assert counts == {"none": 3 * 2 + 9, "group": 3 * 2 + 9, "batch": 3 * 2 + 7}
    assert said == [
        "3 seeds: 6 of 9 cells given up in tuning so far; 6 runs more, to 5 seeds",
        "5 seeds: 6 of 9 cells given up in tuning so far; 6 runs more, to 7 seeds",
        "7 seeds: 1 of 2 claims settled; 4 runs more, to 9 seeds, for none",
    ]
    study = read_study(planned.folder)
    assert study.count("completed") == len(given)
    possible = looks.possible(planned)
    assert len(possible) == len(given)
    again = plan(tmp_path, TUNED, until="decided", max_seeds=9)
    assert trained(again, tell=told_by_rate) == ([], [])


def test_what_a_file_says_of_the_race_stays(tmp_path: Path) -> None:
    """And a study that was begun without one goes on without."""
    off = TUNED.replace("axis: optim.lr", "axis: optim.lr, race: false")
    begun = plan(tmp_path, off, until="decided", max_seeds=9)
    assert not begun.experiment.raced
    text = files.dump_experiment(begun.experiment)
    assert "race" not in text
    begun.folder.begin(text)
    write_run(begun.plan.runs[0], begun.folder, told(begun.plan.runs[0]))
    assert plan(tmp_path, off, until="decided", max_seeds=9).folder == begun.folder
    with pytest.raises(UsageError) as error:
        plan(tmp_path, TUNED, until="decided", max_seeds=9)
    assert "does not race what is tuned, and so it stays" in str(error.value)
    assert "go on with tune: {…, race: false}" in str(error.value)
    lines = [
        registration.decided(each.experiment, each.plan.runs)
        for each in (begun, plan(tmp_path / "y", TUNED, until="decided"))
    ]
    tuned = "tune: axis optim.lr; by val/accuracy"
    assert [tuned in each for each in lines] == [True, False]
    assert f"{tuned}; race" in lines[1]


def test_a_study_that_was_stopped_goes_on(tmp_path: Path) -> None:
    """And what is thrown away is trained in the same order as before."""
    planned = plan(tmp_path, STUDY % 2, until="decided", max_seeds=9)
    first, _ = trained(planned)
    restarted, said = trained(planned, restart=True)
    assert (restarted, said[0]) == (first, f"{len(first)} earlier runs thrown away")
    planned.folder.runs()[0].clear()
    some, _ = trained(planned)
    assert len(some) == 1


def test_seeds_go_on_from_the_largest(tmp_path: Path) -> None:
    planned = plan(tmp_path, STUDY % "[3, 100]", until="decided", max_seeds=9)
    assert planned.experiment.seeds == (3, 100, *range(101, 108))
    saved = loading.load_experiment(_kept(tmp_path / "kept.yaml", planned))
    assert (saved.seeds, saved.looks) == (planned.experiment.seeds, (7, 9))
    fewer = plan(tmp_path, STUDY % 30, until="decided", max_seeds=9)
    assert list(fewer.experiment.seeds) == list(range(9))


def _kept(path: Path, planned: PlannedExperiment) -> Path:
    path.write_text(files.dump_experiment(planned.experiment))
    return path


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("seeds: 3\n", {}, "x.yaml has no claims: there is nothing to decide"),
        (STUDY % 3, {"max_seeds": 6}, "--max-seeds: 6 seeds decide nothing; 7 are needed"),
        (STUDY % 3, {"seeds": 5}, "--seeds and --until are both given"),
        (
            STUDY % 9 + "looks: [7, 9]\n",
            {"max_seeds": 12},
            "x.yaml has looks up to 9 seeds, not 12",
        ),
    ],
)
def test_what_cannot_be_decided_so_is_refused(
    tmp_path: Path, text: str, options: dict[str, int], said: str
) -> None:
    two_sided = text.replace("none}\n", "none, direction: two-sided}\n")
    two_sided = two_sided.replace("effect: 1}", "effect: 1, direction: two-sided}")
    with pytest.raises(UsageError) as error:
        plan(tmp_path, two_sided, until="decided", **options)
    assert said in str(error.value)


def test_the_seeds_of_a_registered_study_are_fixed(tmp_path: Path) -> None:
    """Unless its looks are registered, too."""
    for text, refused in ((STUDY % 8, True), (STUDY % 9 + "looks: [7, 9]\n", False)):
        planned = plan(tmp_path, text)
        lines = registration.decided(planned.experiment, planned.plan.runs)
        assert ("looks: 7, 9" in lines) is not refused
        written = text + 'registered: {date: "2026-01-01", sha256: x, decided: []}\n'
        if refused:
            with pytest.raises(UsageError, match="is registered with 8 seeds, and so they stay"):
                plan(tmp_path, written, until="decided")
        else:
            assert plan(tmp_path, written, until="decided").experiment.looks == (7, 9)


def test_looks_are_set_before_and_stay(tmp_path: Path) -> None:
    """A study whose verdicts may have been read gets none; one that has some keeps them."""
    (tmp_path / "read").mkdir()
    invented(tmp_path / "read", SMALL_YAML + STUDY % 6, told)
    with pytest.raises(UsageError, match="has 6 seeds, and its verdicts may have been read"):
        plan(tmp_path / "read", STUDY % 6, until="decided")
    (tmp_path / "few").mkdir()
    invented(tmp_path / "few", SMALL_YAML + STUDY % 5, told)
    begun = plan(tmp_path / "few", STUDY % 5, until="decided")
    begun.folder.begin(files.dump_experiment(begun.experiment))
    for options in ({}, {"until": "decided", "max_seeds": 20}, {"seeds": 40}):
        with pytest.raises(UsageError, match="has looks at 7, 9, 11, 13, 16, 20 and 24 seeds"):
            plan(tmp_path / "few", STUDY % 5, **options)
    assert plan(tmp_path / "few", STUDY % 5, until="decided").folder == begun.folder


def test_looks_of_a_file_end_with_all_seeds(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    for numbers, said in (
        ("[6, 8]", "looks must rise to 9, the number of seeds, not 6 and 8"),
        ("[8, 8, 9]", "looks must rise to 9, the number of seeds, not 8, 8 and 9"),
        ("[3, 9]", "looks[0] must be a whole number from 6"),
    ):
        file.write_text(SMALL_YAML + STUDY % 9 + f"looks: {numbers}\n")
        with pytest.raises(ConfigError) as error:
            loading.load_experiment(file)
        assert said in str(error.value)


def test_a_dry_run_says_the_least_and_the_most() -> None:
    runs = [
        ForecastRun(
            run=f"r{seed}", setup="bn", point={}, seed=seed, state="new", trains=True, seconds=60.0
        )
        for seed in range(9)
    ]
    forecast = Forecast(
        experiment="x", path=".", workers=1, seconds=544.0, bytes=0, pace=1.0,
        finish="2026-01-01T00:00:00+00:00", runs=runs,
    )  # fmt: skip
    *_, total, _, last = as_lines(forecast, (7, 9), (7, 9))
    assert total.startswith("to train: 9, about 9 min")
    assert last.startswith(
        "that is the most: claims are judged at 7 and 9 seeds; the next look, at 7, takes 7 of "
        "these runs, about 7 min"
    )
    *_, raced = as_lines(forecast, (7, 9), (3, 5, 7, 9))
    assert raced.startswith(
        "that is the most: values are given up in tuning from 3 seeds on, claims are judged at 7 "
        "and 9 seeds; the next look, at 7, takes at most 7 of these runs, about 7 min"
    )
    *_, alone = as_lines(forecast, (), (3, 5, 7, 9))
    assert alone.startswith("that is the most: values are given up in tuning from 3 seeds on; the")


@pytest.mark.usefixtures("own_folder")
def test_until_decided_from_the_command_line() -> None:
    """Trained for real, a run or two a second."""
    text = STUDY.replace(
        "group: {norm: {kind: group, groups: 4}}",
        "group: {norm: {kind: none}, optim: {lr: 1.0e-6}}",
    )
    Path("x.yaml").write_text(SMALL_YAML + text % 2)
    said = bnbench("sweep", "x.yaml", "--until", "decided", "--max-seeds", "7", "--quiet")
    assert said.code == 0, said.err
    assert " of at most 7 seeds" in said.out or "at the most, 7 seeds" in said.out
    assert "looks: [7]" in Path("runs/x/experiment.yaml").read_text()
    refused = bnbench("sweep", "x.yaml", "--max-seeds", "9")
    assert refused.code == 2
    assert "--max-seeds is of --until decided" in refused.err
