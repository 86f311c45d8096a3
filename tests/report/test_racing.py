"""Tuning by racing: which runs a study asks for, what it chooses, and how the report says so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnbench.config import schema
from bnbench.report.looks import judged
from bnbench.report.reading import read_study
from bnbench.report.study import Study
from bnbench.report.terminal import closing_tables
from bnbench.store import ExperimentFolder
from tests.report.invented import Told, invented, recorded
from tests.stats.racing import raced

RATES, LOOKS = [0.01, 0.1, 0.3, 1.0, 3.0], (7, 9, 12)
PROFILE = {"none": (-30.0, -4.0, 0.0, -1.0, -9.0), "batch": (-2.0, -2.0, -0.5, 0.0, -30.0)}
TEXT = """\
setups: {none: {norm: {kind: none}}, batch: {}}
axes: {optim.lr: [0.01, 0.1, 0.3, 1.0, 3.0]}
tune: {axis: optim.lr%s}
seeds: 12
%s
claims:
  - {id: own, says: s, metric: test/running/accuracy, better: batch, worse: none,
     smallest_effect: 1}
"""
AT = """\
  - {id: fixed, says: s, metric: test/running/accuracy, better: batch, worse: none,
     at: {optim.lr: 0.01}, smallest_effect: 1}
"""


def scores(seed: int) -> dict[str, Any]:
    """By setup, validation accuracies (1, rates, seeds), in points."""
    random = np.random.default_rng(seed)
    common = random.normal(0, 1, (1, 1, 12))
    return {
        setup: 60 + np.array(profile)[None, :, None] + common + random.normal(0, 1.3, (1, 5, 12))
        for setup, profile in PROFILE.items()
    }


def study_of(
    path: Path, table: dict[str, Any], more: str = "", race: bool = True, looks: Sequence[int] = ()
) -> ExperimentFolder:
    """All runs are there. On test batch is three points better, then one worse, in turn: a point on
    average, which is the smallest effect, and undecided to the end."""

    def tell(run: schema.RunConfig) -> Told:
        value = float(table[run.setup][0, RATES.index(run.optim.lr), run.seed]) / 100
        lost = value < -1
        test = 0.6 + (0.01 + 0.02 * (-1) ** run.seed) * (run.setup == "batch")
        return Told((0.5 if lost else value,), test, state="diverged" if lost else "completed")

    path.mkdir()
    at = f"looks: {list(looks)}" * bool(looks)
    return invented(path, TEXT % (", race: true" * race, at) + more, tell)


def asked(study: Study) -> dict[tuple[str, float], int]:
    return {(cell.setup, cell.point["optim.lr"]): len(cell.runs) for cell in study.cells}


@pytest.mark.parametrize("seed", range(3))
def test_what_is_trained_and_chosen_is_what_the_simulation_says(tmp_path: Path, seed: int) -> None:
    """`raced` is another statement of the rule, of which error rates are known."""
    table = scores(seed)
    table["none"][0, 0, 1:3] = -np.inf if seed == 2 else table["none"][0, 0, 1:3]
    study = read_study(study_of(tmp_path / "x", table, looks=LOOKS))
    n = max(asked(study).values())
    assert n == LOOKS[-1]
    expected = {setup: raced(each, looks=LOOKS) for setup, each in table.items()}
    for setup, each in expected.items():
        counts = [asked(study)[setup, rate] for rate in RATES]
        assert counts == np.minimum(each.seeds[0], n).tolist()
        assert min(counts) < 6
    assert {each.setup: each.value for each in study.choices} == {
        setup: RATES[int(each.chosen[n][0])] for setup, each in expected.items()
    }
    assert all(each.values == tuple(RATES) for each in study.choices)


def test_fixed_seeds_are_raced_too_and_judged_once(tmp_path: Path) -> None:
    table = scores(0)
    study = read_study(study_of(tmp_path / "x", table))
    every = read_study(study_of(tmp_path / "y", table, race=False))
    assert len(study.runs) < 0.7 * len(every.runs) == 0.7 * 120
    (found,), (full,) = judged(study), judged(every)
    assert found.verdict == full.verdict
    assert found.look is None
    assert [each.value for each in study.choices] == [each.value for each in every.choices]
    others = {each.reason for each in study.others}
    assert others == {"no look has asked for it"}


def test_a_value_that_a_claim_names_is_not_given_up(tmp_path: Path) -> None:
    table = scores(0)
    counts = asked(read_study(study_of(tmp_path / "x", table)))
    named = asked(read_study(study_of(tmp_path / "y", table, AT)))
    assert counts["none", 0.01] < 12
    assert named["none", 0.01] == named["batch", 0.01] == 12
    assert {key: n for key, n in named.items() if key[1] != 0.01} == {
        key: n for key, n in counts.items() if key[1] != 0.01
    }


def test_the_report_says_given_up_and_not_diverged(tmp_path: Path) -> None:
    study = read_study(study_of(tmp_path / "x", scores(0), looks=LOOKS))
    record = recorded(study)
    rows = {(row["setup"], row["point"]["optim.lr"]): row for row in record["cells"]}
    gone = {key for key, row in rows.items() if row["given_up"]}
    assert gone == {key for key, n in asked(study).items() if n < max(asked(study).values())}
    assert gone
    assert not any(row["diverged"] or row["missing"] for row in rows.values())
    assert record["counts"]["diverged"] == 0
    (said,) = [each["text"] for each in record["notices"] if "racing" in each["text"]]
    seeds = {n for key, n in asked(study).items() if key in gone}
    after = f"after {min(seeds)} to {max(seeds)} seeds"
    assert said.startswith(f"Tuned by racing: {len(gone)} of 10 cells were given up {after}")
    assert "a one-sided paired t-test at p < 0.02, from 3 seeds on" in record["methods"]
    kept = {n for key, n in asked(study).items() if key not in gone}
    with_seeds = f"with {' to '.join(map(str, sorted(kept)))} seeds, values given up in tuning with"
    assert f"{with_seeds} {min(seeds)} to {max(seeds)}; runs" in record["methods"]
    assert record["experiment"]["tune"]["race"] is True
    shown = " ".join(" ".join(map(str, closing_tables(study))).split())
    assert "Given up: worse on validation" in shown
