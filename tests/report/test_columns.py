"""What columns of a table tell."""

from __future__ import annotations

import pytest

from bnbench.report.columns import percentages_beside_fractions


@pytest.mark.parametrize(
    ("better", "worse", "told"),
    [
        ([0.85, 0.87], [79.0, 81.0], ["gn has at most 0.87, bn at least 79: "]),
        ([79.0, 81.0, float("inf")], [0.85, 0.87], ["bn has at most 0.87, gn at least 79: "]),
        ([0.85, 0.87], [0.79, 0.81], []),
        ([0.85, 0.87], [5.0, 6.0], []),  # losses
        ([0.72, 0.74], [0.01, 0.012], []),  # one of a hundred classes
        ([0.85, 0.87], [790.0, 810.0], []),
        ([float("-inf")], [79.0], []),
    ],
)
def test_percentages_beside_fractions_are_told(
    better: list[float], worse: list[float], told: list[str]
) -> None:
    found = [*percentages_beside_fractions([("gn", better), ("bn", worse)])]
    assert found == [f"{each}are these fractions and percentages?" for each in told]
