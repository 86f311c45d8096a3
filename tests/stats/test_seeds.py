"""How many seeds a verdict takes, and what fewer say."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import pytest

from bnbench.stats.differences import seeds_needed
from bnbench.stats.effect import Direction, effect
from bnbench.stats.verdict import judge, seeds_to_support
from tests.stats.test_verdict import DIRECTIONS, ONE_SIDED, around, verdict

FAMILIES: list[tuple[list[Direction], int]] = [
    ([], 6),
    (["up"], 6),
    (["up", "down", "up"], 6),
    (["up"] * 4, 7),
    (["two-sided"], 6),
    (["two-sided"] * 2, 7),
    (["up", "two-sided", "two-sided"], 7),
    ([*ONE_SIDED, *DIRECTIONS[2:] * 5], 8),
    (["down"] * 12, 8),
    (["down"] * 13, 9),
]


@pytest.mark.parametrize(("directions", "n"), FAMILIES)
def test_how_many_seeds_can_support_every_claim(directions: list[Direction], n: int) -> None:
    """As many that all agree do support every claim, and one fewer do not."""
    assert seeds_to_support(directions) == n

    def outcomes(seeds: int) -> set[str]:
        agreed = [
            effect(around(9.0, 0.2, seeds), smallest_effect=1, direction=direction)
            for direction in directions
        ]
        return {each.outcome for each in judge([(claim, ()) for claim in agreed])}

    assert outcomes(n) <= {"supported"}
    assert not directions or "inconclusive" in outcomes(n - 1)


def test_seeds_that_could_have_agreed_more() -> None:
    """Eight seeds can reach 7·2⁻⁸; one small loss among them makes it 7·2·2⁻⁸ = 0.0547."""
    differences = [-1.0, 8, 8, 9, 9, 8, 9, 8]
    assert verdict(differences, smallest=0, others=5).outcome == "supported"
    found = verdict(differences, smallest=0, others=6)
    assert found.p_adjusted == 14 / 256
    assert found.outcome == "inconclusive"
    assert found.reasons[0].endswith(
        "is above 0, but p = 0.0547 after Holm's correction for 7 claims (0.00781 before) is "
        "not below 0.05; the 8 seeds would have to agree more"
    )
    assert verdict(list(map(abs, differences)), smallest=0, others=6).outcome == "supported"


@pytest.mark.parametrize("n", range(1, 6))
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_fewer_than_six_seeds_only_lean(n: int, direction: Direction) -> None:
    found = verdict([5 + 0.01 * seed for seed in range(n)], direction=direction)
    assert found.outcome == "inconclusive"
    assert found.reasons == (f"{n} seed{'s' * (n > 1)}; 6 are needed for a verdict",)
    assert found.leaning == "for"
    six = verdict([5 + 0.01 * seed for seed in range(6)], direction=direction)
    assert six.outcome == "supported"
    assert six.leaning is None


def test_where_few_seeds_lean() -> None:
    def leaning(differences: Sequence[float], direction: Direction = "up") -> str | None:
        return verdict(differences, direction=direction).leaning

    assert leaning([-3, -4]) == "against"
    assert leaning([-3, -4], "two-sided") == "for"
    assert leaning([0.5, 0.2]) == "neither"
    assert leaning([1.0, 1.0]) == "neither"  # not beyond the smallest effect
    assert leaning([-2, -2, -2, -2, 30]) == "neither"  # mean and median disagree
    assert leaning([inf, inf, -3]) == "for"
    assert leaning([-inf, inf]) == "neither"
    assert leaning([-inf]) == "against"


@pytest.mark.parametrize(
    ("mean", "others", "seeds"), [(2.0, 0, 14), (-2.0, 0, 14), (0.0, 0, 17), (2.0, 7, 19)]
)
def test_about_how_many_seeds(mean: float, others: int, seeds: int) -> None:
    """The effect seen is 1 away from what it is not clear of: s = 1.25·√6/2.571 = 1.191;
    ((2.179 + 0.873)·1.191)² = 13.2 at n = 13, ((2.160 + 0.870)·1.191)² = 13.0 at n = 14. In 20,000
    normal samples each of so many seeds decide 83, 83, 80 and 80 %, with eight claims, too."""
    found = verdict(around(mean, 1.25, 6), others=others)
    seen = f"{mean:g}".replace("-", "−")
    assert found.reasons[0].endswith(
        f"; if the true effect is the mean seen, {seen}, it takes about {seeds} seeds"
    )
    assert found.seeds_needed == seeds


def test_a_number_of_seeds_is_told_where_it_is_of_use() -> None:
    """Undecided, for want of seeds alone, at least as many as can decide, and no thousands."""
    assert verdict(around(2, 1.25, 6), objections=["a failed check"]).seeds_needed is None
    assert verdict(around(2, 0.2, 6)).seeds_needed is None
    assert verdict([2.0, 2.1, 2.2]).seeds_needed == 6
    assert seeds_needed([1.0, 1.1, 1.2], 1) == 2
    near = verdict(around(0.85, 1.25, 6))
    assert near.seeds_needed is None
    assert near.reasons[0].endswith("the mean seen, 0.85, it takes more than 100 seeds")
