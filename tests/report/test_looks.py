"""Studies whose seeds are added in looks: which runs they ask for, and what is said meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from pathlib import Path

import numpy as np
import pytest

from bnbench.config import schema
from bnbench.report import looks as module
from bnbench.report.figures.claims import differences_caption
from bnbench.report.reading import read_study
from bnbench.report.verdicts import at_once
from bnbench.report.writing import make
from bnbench.store import ExperimentFolder
from tests.report.invented import Told, invented, undrawn
from tests.stats.looks import in_looks

SETUPS = ["none", "batch", "group", "layer"]
LOOKS = [7, 9, 10, 12]
TEXT = """\
setups:
  none: {norm: {kind: none}}
  batch: {norm: {kind: batch}}
  group: {norm: {kind: group, groups: 4}}
  layer: {norm: {kind: layer}}
seeds: 12
%s
claims:
  - {id: batch, says: s, metric: test/running/accuracy, better: batch, worse: none,
     smallest_effect: 1}
  - {id: group, says: s, metric: test/running/accuracy, better: group, worse: none,
     smallest_effect: 1}
  - {id: layer, says: s, metric: test/running/accuracy, better: layer, worse: group,
     smallest_effect: 1}
"""
Tell = Callable[[schema.RunConfig], Told | None]


def accuracies(seed: int, effects: tuple[float, float, float]) -> np.ndarray:
    """(setups, seeds): over none batch and group have their effects, over group layer has its."""
    batch, group, layer = effects
    means = np.array([[60.0], [60 + batch], [60 + group], [60 + group + layer]])
    drawn: np.ndarray = (means + np.random.default_rng(seed).normal(0, 1, (4, LOOKS[-1]))) / 100
    return drawn


def telling(table: np.ndarray, has: Callable[[schema.RunConfig], bool] = lambda _: True) -> Tell:
    """Runs with these accuracies, those that the study has."""
    return lambda run: (
        Told(test=float(table[SETUPS.index(run.setup), run.seed])) if has(run) else None
    )


def study_in(path: Path, tell: Tell, looks: str = f"looks: {LOOKS}") -> ExperimentFolder:
    path.mkdir()
    return invented(path, TEXT % looks, tell)


@pytest.mark.parametrize("seed", range(4))
def test_what_a_folder_says_is_what_the_simulation_says(tmp_path: Path, seed: int) -> None:
    """Outcomes, the looks at which they were found, and the runs that were asked for: `in_looks`
    is another statement of the rule, of which the error rates are known."""
    table = accuracies(seed, ((9.0, 2.0, -0.5), (2.4, 1.5, 9.0), (0.1, -3.0, 2.2), (6, 7, 8))[seed])
    none, batch, group, layer = 100 * table
    rows = np.array([batch - none, group - none, layer - group])
    expected = in_looks(rows, 1.0, claims=3, numbers=LOOKS)
    folder = study_in(tmp_path / "x", telling(table))
    found = module.judged(read_study(folder))
    assert [each.verdict.outcome for each in found] == expected.outcome.tolist()
    for each, seeds in zip(found, expected.seeds.tolist(), strict=True):
        assert each.look is not None
        assert f" {seeds} " in each.look.replace(",", " ")
        assert each.verdict.effect is not None
        assert each.verdict.effect.n == seeds
    sure = {each.verdict.effect.coverage for each in found if each.verdict.effect}
    caption = differences_caption(found)
    assert 0.95 not in sure
    assert all(f"{100 * each:.3g} %" in caption for each in sure)
    asked = {(run.setup, run.seed) for run in read_study(folder).runs}
    arms = [("batch", "none"), ("group", "none"), ("layer", "group")]
    assert asked == {
        (setup, number)
        for pair, seeds in zip(arms, expected.seeds.tolist(), strict=True)
        for setup in pair
        for number in range(seeds)
    }


def test_runs_that_no_look_asked_for_change_no_verdict(tmp_path: Path) -> None:
    table = accuracies(5, (9.0, 9.0, 9.0))
    some = study_in(tmp_path / "some", telling(table, lambda run: run.seed < LOOKS[0]))
    every = study_in(tmp_path / "every", telling(table))
    first, second = (
        [each.verdict for each in module.judged(read_study(folder))] for folder in (some, every)
    )
    assert first == second
    assert {each.outcome for each in first} == {"supported"}
    assert not read_study(some).others
    others = read_study(every).others
    assert len(others) == 4 * (LOOKS[-1] - LOOKS[0])
    assert {each.reason for each in others} == {"no look has asked for it"}


def test_before_the_first_look_there_is_no_number(tmp_path: Path) -> None:
    table = accuracies(1, (9.0, 9.0, 9.0))
    folder = study_in(tmp_path / "x", telling(table, lambda run: run.seed < LOOKS[0] - 1))
    study = read_study(folder)
    assert len(study.runs) == 4 * LOOKS[0]
    for each in module.judged(study):
        assert each.verdict.effect is None
        assert each.verdict.reasons == ("the look at 7 seeds lacks 4 runs",)


def test_between_looks_the_last_complete_one_stands(tmp_path: Path) -> None:
    """Seeds that came after it are not in any p-value, though they would decide."""
    table = accuracies(2, (9.0, 0.3, 9.0))
    table[2, 7:] = table[0, 7:] + 0.08  # from the eighth seed on, group is far better
    table[3, 7:] = table[2, 7:] + 0.09
    begun = study_in(tmp_path / "x", telling(table, lambda run: run.seed < 8))
    complete = study_in(tmp_path / "y", telling(table, lambda run: run.seed < 7))
    found, before = (
        {each.claim.id: each for each in module.judged(read_study(folder))}
        for folder in (begun, complete)
    )
    assert found["batch"].verdict.outcome == "supported"
    assert found["batch"].look == "decided at 7 of at most 12 seeds"
    group = found["group"].verdict
    assert group.outcome == "inconclusive"
    assert group.reasons[0] == "the look at 9 seeds lacks 2 runs"
    assert group.effect == before["group"].verdict.effect
    assert group.effect is not None
    assert group.effect.n == 7
    assert found["group"].look == "undecided at 7 of at most 12 seeds"


def test_without_looks_the_same_runs_give_fixed_sample_numbers(tmp_path: Path) -> None:
    """Negative control: what is corrected is larger and wider."""
    table = accuracies(3, (2.0, 2.0, 2.0))
    few: Callable[[schema.RunConfig], bool] = lambda run: run.seed < LOOKS[0]  # noqa: E731
    looked = study_in(tmp_path / "x", telling(table, few))
    fixed = read_study(study_in(tmp_path / "y", telling(table, few), ""))
    for each, once in zip(module.judged(read_study(looked)), at_once(fixed), strict=True):
        ours, theirs = each.verdict.effect, once.verdict.effect
        assert ours is not None
        assert theirs is not None
        assert ours.p["supported"] == pytest.approx(2 * theirs.p["supported"])
        assert ours.interval.low < theirs.interval.low
        assert (ours.coverage, theirs.coverage) == (0.975, 0.95)


def test_what_no_seed_would_decide_asks_for_none(tmp_path: Path) -> None:
    """A failed run is an objection; a retried one is none, and the looks go on."""
    table = accuracies(4, (9.0, 0.5, 9.0))

    def tell(run: schema.RunConfig) -> Told:
        failed = run.setup == "group" and run.seed == 3
        return Told(
            state="failed" if failed else "completed",
            test=float(table[SETUPS.index(run.setup), run.seed]),
        )

    found = {
        each.claim.id: each for each in module.judged(read_study(study_in(tmp_path / "x", tell)))
    }
    assert found["batch"].verdict.outcome == "supported"
    assert found["group"].look == "no more than 7 seeds: others would not decide it"
    assert len(module.asked(read_study(study_in(tmp_path / "y", tell))).runs) == 4 * LOOKS[0]
    retried = read_study(study_in(tmp_path / "z", telling(table)))
    assert len(retried.runs) > 4 * LOOKS[0]


def test_the_report_says_its_looks(tmp_path: Path) -> None:
    folder = study_in(tmp_path / "x", telling(accuracies(0, (9.0, 2.0, -0.5))))
    with undrawn():
        record = make(read_study(folder)).record
    assert record["experiment"]["looks"] == LOOKS
    assert record["claims"][0]["look"] == "decided at 7 of at most 12 seeds"
    assert any("7, 9, 10 and 12 seeds" in each["text"] for each in record["notices"])
    assert "may spend 0.5, 0.12, 0.12 and 0.25 of the error" in record["methods"]
    assert not any(isnan(float(value)) for value in record["claims"][0]["effect"]["interval"])
