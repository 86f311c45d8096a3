"""What differences amount to: intervals, and a test of each outcome beyond its own edge."""

from __future__ import annotations

from math import inf, nan

import pytest

from bnbench.stats.differences import Interval, sign_flip
from bnbench.stats.effect import effect
from tests.stats.samples import students


@pytest.mark.parametrize("values", [[3.0], [3.0, 4.0]])
def test_one_or_two_differences_have_no_interval(values: list[float]) -> None:
    assert effect(values, smallest_effect=1, direction="up").interval == (-inf, inf)


def test_an_interval_ends_where_differences_end() -> None:
    """80, 95, 20: mean 65, s = 39.686, 4.302653·39.686/√3 = 98.586."""
    found = effect([80, 95, 20], smallest_effect=1, direction="up", most=100)
    assert found.interval == pytest.approx((65 - 98.586, 100), abs=1e-2)
    assert found.mean == 65


def test_what_an_effect_says() -> None:
    differences = [1.0, 2.0, 4.0, 3.0, 2.5, 0.0]
    found = effect(differences, smallest_effect=0.5, direction="two-sided")
    assert found.differences == tuple(differences)
    assert found.mean == pytest.approx(12.5 / 6)
    assert found.median == 2.25
    assert found.interval == students(differences)
    assert (found.method, found.coverage) == ("paired t", 0.95)
    assert (found.n, found.infinite) == (6, 0)
    above, below = (sign_flip([sign * value - 0.5 for value in differences]) for sign in (1, -1))
    assert found.p["supported"] == 2 * min(above, below)
    assert found.p["refuted"] == 1
    inside = [sign_flip([sign * value + 0.5 for value in differences]) for sign in (1, -1)]
    assert found.p["negligible"] == max(inside)
    one_sided = effect(differences, smallest_effect=0.5, direction="up").p
    assert (one_sided["supported"], one_sided["refuted"]) == (above, below)


def test_the_test_is_of_an_effect_above_the_smallest() -> None:
    """Six of eight differences are above 1: all are above 0, which p = 2⁻⁸ would say."""
    differences = [0.7, 0.9, 3, 3.2, 3.4, 3.6, 3.8, 4]
    found = effect(differences, smallest_effect=1, direction="up")
    # Subsets of −0.3, −0.1, 2, 2.2, … that sum to 0 or less: of the first two alone.
    assert found.p["supported"] == 4 / 2**8
    assert effect(differences, smallest_effect=0, direction="up").p["supported"] == 2**-8


def test_one_pair_has_no_bounds() -> None:
    assert effect([2.0], smallest_effect=1, direction="up").interval == Interval(-inf, inf)
    found = effect([inf], smallest_effect=1, direction="up")
    assert found.interval == Interval(inf, inf)
    assert found.coverage == 0


def test_what_is_no_effect() -> None:
    with pytest.raises(ValueError, match="no values"):
        effect([], smallest_effect=1, direction="up")
    with pytest.raises(ValueError, match="not a number"):
        effect([1.0, nan, inf], smallest_effect=1, direction="up")
    for smallest in (-1.0, inf, nan):
        with pytest.raises(ValueError, match="not a finite number from 0 up"):
            effect([1.0], smallest_effect=smallest, direction="up")
