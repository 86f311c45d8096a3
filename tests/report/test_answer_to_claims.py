"""The answer where there are claims, with invented numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnbench.config import schema
from tests.report.invented import Told
from tests.report.test_answer import SIZES, answered, needed

CLAIM = """\
claims:
  - {id: gap, says: Eval mode is better at batches of 2, metric: val/gap/accuracy, better: bn@2}
  - {id: more, says: GroupNorm is better, metric: test/running/accuracy, better: gn@16,
     worse: bn@16, smallest_effect: 2}
"""


def test_claims_say_which_mode_is_better_and_where_they_lean(tmp_path: Path) -> None:
    gap, more = answered(tmp_path, f"{SIZES}seeds: 4\n{CLAIM}")["answer"]
    assert gap.startswith(
        "Not decided: Eval mode is better at batches of 2 (mean +13.5 points, 95 % interval +13.5 "
        "… +13.5, 4 seeds; eval mode is 13.5 points better than training mode; leans towards yes)."
    )
    assert "leans towards no" in more
    assert more.endswith("Why not decided: 4 seeds; 6 are needed for a verdict.")


def test_two_seeds_of_a_claim_are_told_with_their_differences(tmp_path: Path) -> None:
    record = answered(tmp_path, f"{SIZES}seeds: 2\n{CLAIM}")
    assert "(−10.1 points and −12.1 points, 2 seeds, no interval;" in record["answer"][1]
    assert record["claims"][1]["effect"]["interval"] == ["-inf", "inf"]


@pytest.mark.parametrize(
    ("lead", "seeds"),
    [(0.01, ", more than 100 if the true effect is the mean seen, 1.75."), (0.3, ".")],
)
def test_a_wide_spread_says_how_many_seeds_it_takes(
    tmp_path: Path, lead: float, seeds: str
) -> None:
    """Unless the effect is so large that the fewest will do."""

    def wide(config: schema.RunConfig) -> Told:
        off = lead + (0.1, -0.1, 0.08, -0.05)[config.seed]
        return Told(test=0.5 + off * (config.setup == "gn"))

    _, more = answered(tmp_path, f"{SIZES}seeds: 4\n{CLAIM}", wide)["answer"]
    assert needed([11, -9, 9, -4], 1.75 - 1) > 100
    assert more.endswith(f"4 seeds; 6 are needed for a verdict{seeds}")


def far_apart(config: schema.RunConfig) -> Told:
    """Differences of 95, −80 and 90 points: Student's interval is from −212 to 282."""
    high, low = (0.98, 0.03), (0.1, 0.9)
    better = (high, low, (0.95, 0.05))[config.seed]
    return Told(test=better[config.setup == "gn"])


def test_no_interval_of_a_difference_leaves_what_is_possible(tmp_path: Path) -> None:
    claim = CLAIM.replace("better: gn@16", "better: gn").replace("worse: bn@16", "worse: bn")
    claim = claim[: claim.index("  - {id: gap")] + claim[claim.index("  - {id: more") :]
    for name, text in (("table", ""), ("claim", claim)):
        (tmp_path / name).mkdir()
        record = answered(tmp_path / name, f"seeds: 3\n{text}", far_apart)
        assert "95 % interval −100.0 … +100.0, 3 seeds" in record["answer"][0]
    assert record["claims"][0]["effect"]["interval"] == [-100, 100]


def test_what_is_refuted_is_said_the_other_way_round(tmp_path: Path) -> None:
    claim = "{id: a, says: BatchNorm is better at 2, metric: test/running/accuracy, better: bn@2, "
    text = f"{SIZES}seeds: 8\nclaims:\n  - {claim}worse: gn@2, smallest_effect: 1}}\n"
    (said,) = answered(tmp_path, text)["answer"]
    assert said.startswith("Refuted: BatchNorm is better at 2 (")
    assert said.endswith("the other way round: gn at batch size 2 does better).")
