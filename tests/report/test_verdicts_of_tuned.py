"""Verdicts where each side is at its best rate, and that rate may be an end of its grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bnbench.config import schema
from bnbench.report.looks import judged
from bnbench.report.reading import read_study
from tests.report.invented import Told, invented

TUNED = """\
setups:
  bn: {norm: {kind: batch}}
  gn: {norm: {kind: group}%s}
axes: {optim.lr: [0.01, 0.1, 1]}
tune: {axis: optim.lr}
seeds: 8
claims:
  - {id: a, says: s, metric: test/running/accuracy, better: bn, worse: gn, smallest_effect: 1}
"""


def at_rates(**values: dict[float, float]) -> Any:
    return lambda config: Told(
        (values[config.setup][config.optim.lr],), test=values[config.setup][config.optim.lr]
    )


def test_each_side_at_its_own_best_rate(tmp_path: Path) -> None:
    tell = at_rates(bn={0.01: 0.1, 0.1: 0.9, 1: 0.2}, gn={0.01: 0.1, 0.1: 0.7, 1: 0.2})
    (found,) = judged(read_study(invented(tmp_path, TUNED % "", tell)))
    assert found.verdict.outcome == "supported"
    assert list(found.pairs.values()) == pytest.approx([20.0] * 8)
    assert found.better[0].words == "bn, learning rate 0.1 (best of 3)"


MORE = "add 10 to optim.lr in the file, and sweep again"
INSIDE, AT_THE_END = {0.01: 0.1, 0.1: 0.7, 1: 0.2}, {0.01: 0.1, 0.1: 0.6, 1: 0.8}

LOW_AT_THE_END = {0.01: 0.1, 0.1: 0.4, 1: 0.5}


@pytest.mark.parametrize(
    ("bn", "gn", "metric", "outcome"),
    [
        (AT_THE_END, INSIDE, "test/running/accuracy", "supported"),  # it could only rise
        (INSIDE, LOW_AT_THE_END, "test/running/accuracy", "inconclusive"),
        (LOW_AT_THE_END, INSIDE, "test/running/accuracy", "inconclusive"),
        (INSIDE, AT_THE_END, "test/running/accuracy", "refuted"),
        (AT_THE_END, INSIDE, "test/running/error", "refuted"),  # here less is worse
        (LOW_AT_THE_END, INSIDE, "test/running/error", "inconclusive"),
        (AT_THE_END, INSIDE, "test/batch/accuracy", "inconclusive"),  # not what is tuned by
    ],
)
def test_a_choice_at_the_end_of_a_grid_counts_where_a_better_one_could_turn_the_verdict(
    bn: dict[float, float],
    gn: dict[float, float],
    metric: str,
    outcome: str,
    tmp_path: Path,
) -> None:
    text = (TUNED % "").replace("test/running/accuracy", metric)
    (found,) = judged(read_study(invented(tmp_path, text, at_rates(bn=bn, gn=gn))))
    assert found.verdict.outcome == outcome
    arm = "gn" if gn is LOW_AT_THE_END else "bn"
    reason = f"{arm}: the chosen optim.lr 1 is an end of its grid ({MORE})"
    assert found.verdict.reasons == ((reason,) if outcome == "inconclusive" else ())


@pytest.mark.parametrize(("bn", "more"), [(0.71, True), (0.69, False)])
def test_beyond_an_end_of_the_grid_an_open_claim_may_become_clear(
    bn: float, more: bool, tmp_path: Path
) -> None:
    """Of the side that leads; of the other it is an objection."""
    rates = {"bn": {0.01: 0.1, 0.1: 0.6, 1: bn}, "gn": INSIDE}

    def tell(config: schema.RunConfig) -> Told:
        value = rates[config.setup][config.optim.lr]
        off = 0.02 * (-1) ** config.seed * (config.setup == "bn")
        return Told((value,), test=value + off)

    (found,) = judged(read_study(invented(tmp_path, TUNED % "", tell)))
    end = f"bn: the chosen optim.lr 1 is an end of its grid ({MORE})"
    *_, last = found.verdict.reasons
    assert found.verdict.outcome == "inconclusive"
    assert found.open == more
    assert found.verdict.effect is not None
    assert (found.verdict.effect.median > 0) == more, "the test's own numbers"
    assert (f"{end}: beyond it the difference could only grow" == last) == more
    assert (end in found.verdict.reasons) != more


def test_unequal_trials_are_not_fair(tmp_path: Path) -> None:
    own = ", axes: {optim.lr: [0.01, 0.1, 0.2, 1]}"
    text = (TUNED % "").replace("gn: {norm: {kind: group}}", f"gn: {{norm: {{kind: group}}{own}}}")
    rates = {0.01: 0.1, 0.1: 0.9, 0.2: 0.3, 1: 0.2}
    (found,) = judged(read_study(invented(tmp_path, text, at_rates(bn=rates, gn=rates))))
    assert found.verdict.reasons == ("unequal trials to choose from (bn: 3, gn: 4)",)
