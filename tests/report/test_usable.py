"""Claims about the learning rates that train, and about arms of which some runs do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bnbench.report.looks import judged
from bnbench.report.reading import read_study
from bnbench.report.terminal import terminal
from bnbench.report.writing import make, page
from tests.report.invented import Told, invented
from tests.report.test_verdicts import BASE, noise

RATES = """\
setups: {bn: {norm: {kind: batch}}, none: {norm: {kind: none}}}
axes: {optim.lr: [0.01, 0.1, 1, 10]}
tune: {axis: optim.lr}
seeds: 8
claims:
  - {id: a, says: s, metric: usable_lr_max, target: 0.5, better: %s, worse: %s,
     smallest_effect: 0.5}
"""


def trains_up_to(**limits: float) -> Any:
    def tell(config: Any) -> Told:
        trains = config.optim.lr <= limits[config.setup]
        return Told((0.9,)) if trains else Told((0.1,), state="diverged")

    return tell


def test_usable_rates_are_compared_in_decades(tmp_path: Path) -> None:
    folder = invented(tmp_path, RATES % ("bn", "none"), trains_up_to(bn=1, none=0.01))
    (found,) = judged(read_study(folder))
    assert found.unit == "decades"
    assert list(found.pairs.values()) == pytest.approx([2.0] * 8)
    assert found.verdict.outcome == "supported"


@pytest.mark.parametrize(("bn", "none"), [(0.32, 0.1), (0.1, 0.032)])
def test_a_step_of_the_grid_is_not_above_a_smallest_effect_of_one(
    tmp_path: Path, bn: float, none: float
) -> None:
    """Rates of a grid are rounded: 0.316228 is 0.50000032 decades above 0.1."""
    text = (RATES % ("bn", "none")).replace("[0.01, 0.1, 1, 10]", "{log: [0.01, 1, 5]}")
    (found,) = judged(read_study(invented(tmp_path, text, trains_up_to(bn=bn, none=none))))
    assert set(found.pairs.values()) == {0.5}
    assert found.verdict.outcome == "inconclusive"
    (reason,) = found.verdict.reasons
    assert "0.5 … 0.5 ends at the smallest effect 0.5" in reason


def test_where_the_favoured_side_is_behind_it_may_catch_up_beyond_the_largest_rate(
    tmp_path: Path,
) -> None:
    text = (RATES % ("bn", "none")).replace("usable_lr_max", "usable_lr_decades")

    def tell(config: Any) -> Told:
        trains = config.setup == "none" or config.optim.lr == 10
        return Told((0.9,)) if trains else Told((0.1,), state="diverged")

    (found,) = judged(read_study(invented(tmp_path, text, tell)))
    assert found.verdict.outcome == "inconclusive"
    assert found.verdict.reasons == ("bn: the largest optim.lr tried, 10, is still usable",)


def test_of_the_favoured_side_that_only_makes_the_effect_larger(tmp_path: Path) -> None:
    folder = invented(tmp_path, RATES % ("bn", "none"), trains_up_to(bn=10, none=0.01))
    (found,) = judged(read_study(folder))
    assert found.verdict.outcome == "supported"


def test_an_arm_whose_seeds_fall_into_two_groups_is_said(tmp_path: Path) -> None:
    """The mean of eight runs of which three fail is near neither group."""
    text = BASE % ("", 8, "test/running/accuracy", "bn", "gn", 1, "direction: up")
    tell = lambda config: Told(  # noqa: E731
        test=(0.1 if config.seed < 3 and config.setup == "gn" else 0.6) + noise(config)
    )
    found = make(read_study(invented(tmp_path, text, tell)))
    (claim,) = found.record["claims"]
    assert claim["better"][0]["groups"] is None
    assert list(map(len, claim["worse"][0]["groups"])) == [3, 5]
    for said in ("two groups of seeds, 3 from ", "; the mean, 41."):
        assert said in " ".join(" ".join(map(str, terminal(found.record))).split())
        assert said in page(found)
