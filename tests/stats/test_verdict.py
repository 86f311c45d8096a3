"""Each rule of a verdict, with the case on the other side of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import inf
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnbench.stats.differences import Interval, median, sign_flip
from bnbench.stats.effect import Direction, effect
from bnbench.stats.verdict import Conclusion, Verdict, judge
from tests.stats.samples import students

DIRECTIONS: list[Direction] = ["up", "down", "two-sided"]
ONE_SIDED = DIRECTIONS[:2]


def verdict(
    differences: Sequence[float],
    *,
    smallest: float = 1.0,
    direction: Direction = "up",
    objections: Sequence[str] = (),
    others: int = 0,
    ties: int = 0,
) -> Verdict:
    """Of one claim, in a family with others that say nothing."""
    nothing = effect([1, -1, 2, -2, 0.5, -0.5], smallest_effect=1, direction="up")
    claim = effect(differences, smallest_effect=smallest, direction=direction, ties=ties)
    return judge([(claim, objections), *[(nothing, ())] * others])[0]


def around(centre: float, half_width: float, n: int = 8) -> list[float]:
    """n differences, evenly spaced, whose 95 % interval is centre ± half_width."""
    values = np.linspace(-1, 1, n)
    low, high = students(values.tolist())
    return list(centre + values * half_width / ((high - low) / 2))


CASES: list[tuple[float, float, Conclusion, Conclusion]] = [
    # centre, half-width, one-sided, two-sided; the smallest effect is 1
    (2.0, 0.9, "supported", "supported"),
    (2.0, 1.1, "inconclusive", "inconclusive"),
    (-2.0, 0.9, "refuted", "supported"),
    (-2.0, 1.1, "inconclusive", "inconclusive"),
    (0.0, 0.9, "negligible", "negligible"),
    (0.0, 1.1, "inconclusive", "inconclusive"),
    (0.5, 0.4, "negligible", "negligible"),  # above 0, and still too small to matter
    (0.5, 0.6, "inconclusive", "inconclusive"),
    (-0.5, 0.6, "inconclusive", "inconclusive"),
    (-0.5, 0.4, "negligible", "negligible"),
]


@pytest.mark.parametrize(("centre", "half_width", "one_sided", "two_sided"), CASES)
def test_where_the_interval_lies(
    centre: float, half_width: float, one_sided: Conclusion, two_sided: Conclusion
) -> None:
    differences = around(centre, half_width)
    for direction in DIRECTIONS:
        found = verdict(differences, direction=direction)
        assert found.outcome == (two_sided if direction == "two-sided" else one_sided)
        assert bool(found.reasons) == (found.outcome == "inconclusive")
        assert (found.leaning is None) == (found.outcome != "inconclusive")


def test_an_interval_above_the_smallest_effect_is_not_enough() -> None:
    """p is 2⁻⁶ with six seeds that agree: enough for three claims, too much for four."""
    differences = around(2.0, 0.2, n=6)
    alone, three, four = (verdict(differences, others=others) for others in (0, 2, 3))
    assert alone.outcome == three.outcome == "supported"
    assert [each.p_adjusted for each in (alone, three, four)] == [1 / 64, 3 / 64, 4 / 64]
    assert four.outcome == "inconclusive"
    assert four.reasons == (
        "the interval 1.8 … 2.2 is above the smallest effect 1, but p = 0.0625 after Holm's "
        "correction for 4 claims (0.0156 before) is not below 0.05; 7 seeds that all agree would "
        "reach it",
    )
    assert verdict(around(2.0, 0.2, n=7), others=3).outcome == "supported"


def test_a_two_sided_test_needs_twice_as_small_a_share() -> None:
    assert verdict(around(2, 0.2, n=6), direction="two-sided").p_adjusted == 2 / 64
    found = verdict(around(-2, 0.2, n=6), direction="two-sided", others=1)
    assert found.outcome == "inconclusive"
    assert found.reasons[0].startswith(
        "the interval −2.2 … −1.8 is below the negative of the smallest effect, −1, but p"
    )
    assert "7 seeds that all agree" in found.reasons[0]


@pytest.mark.parametrize("centre", [2.0, 0.0, -2.0])
def test_an_objection_makes_any_verdict_inconclusive(centre: float) -> None:
    assert verdict(around(centre, 0.2)).outcome != "inconclusive"
    objections = ["the best learning rate is at the edge of its grid", "3 of 16 runs are missing"]
    found = verdict(around(centre, 0.2), objections=objections)
    assert found.outcome == "inconclusive"
    assert found.reasons == tuple(objections)


def test_what_else_is_wrong_is_said_after_the_objections() -> None:
    found = verdict([1.0, 2.0], objections=["a failed check"])
    assert found.reasons == ("a failed check", "2 seeds; 6 are needed for a verdict")
    found = verdict(around(1.0, 0.2), objections=["a failed check"])
    assert found.reasons[0] == "a failed check"
    assert found.reasons[1].startswith("the interval 0.8 … 1.2 contains")


def test_claims_without_runs_are_of_the_family() -> None:
    claim = effect(around(2, 0.2, n=6), smallest_effect=1, direction="up")
    found = judge([(None, ["no runs"]), (claim, ()), (None, ())])
    assert found[0] == Verdict("inconclusive", None, None, None, ("no runs",), None)
    assert found[1].outcome == "supported"
    assert found[1].p_adjusted == 3 / 64  # it does not depend on what was trained
    assert found[2].reasons == ("there is no pair of runs to compare",)
    assert judge([]) == []


def test_what_is_objected_to_counts_in_the_correction_all_the_same() -> None:
    claim = effect(around(2, 0.2, n=6), smallest_effect=1, direction="up")
    found = judge([(claim, ["a failed check"])] * 3 + [(claim, [])])
    assert found[3].p_adjusted == 4 / 64
    assert found[3].outcome == "inconclusive"


REASONS = [
    (around(0.85, 1.25, 6), "the interval −0.4 … 2.1 contains the smallest effect 1; if the "),
    (around(-0.85, 1.25), "the interval −2.1 … 0.4 contains the negative of the "),
    (around(0.0, 5.0), "the interval −5 … 5 contains the smallest effect and its negative, 1 and"),
    (around(1.0, 0.0004), "the interval 0.9996 … 1.0004 contains the smallest effect 1"),
    ([1.0] * 6, "the interval 1 … 1 ends at the smallest effect 1"),
    ([-1.0] * 6, "the interval −1 … −1 ends at the negative of the smallest effect, −1"),
    ([inf, 2, 3, 4, 5, -inf], "the median's interval −∞ … ∞ contains the smallest effect and "),
    ([inf, 2, 3, 4, 5, 0.5], "the median's interval 0.5 … ∞ contains the smallest effect 1; "),
    ([inf, 2, 3, 4, 5, -0.0], "the median's interval 0 … ∞ contains the smallest effect 1; "),
    ([inf, 2, 3, 4, 5, 0.5], "1 of 6 differences is infinite"),
    ([inf, inf, 3, 4, 5, 0.5], "2 of 6 differences are infinite"),
]


@pytest.mark.parametrize(("differences", "said"), REASONS)
def test_why_it_is_inconclusive_is_said_in_numbers(differences: list[float], said: str) -> None:
    found = verdict(differences)
    assert found.outcome == "inconclusive"
    assert said in found.reasons[0]
    assert not re.search(r"nan|inf\b|-\d", found.reasons[0])


def test_a_smallest_effect_of_zero() -> None:
    assert verdict(around(0.3, 0.2), smallest=0).outcome == "supported"
    assert verdict(around(-0.3, 0.2), smallest=0).outcome == "refuted"
    found = verdict(around(0.1, 0.2), smallest=0)
    assert found.reasons == (
        "the interval −0.1 … 0.3 contains 0; if the true effect is the mean seen, 0.1, it takes "
        "about 47 seeds",
    )


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_nothing_but_zeros_is_negligible(direction: Direction) -> None:
    """GroupNorm's gap is exactly 0 for every seed. With a smallest effect of 0 that does not do:
    where one seed in ten differs, eight do not with a chance of 43 %."""
    found = verdict([0.0, -0.0] * 4, smallest=0.5, direction=direction)
    assert found.outcome == "negligible"
    assert found.p_adjusted == 2**-8
    assert found.effect is not None
    assert found.effect.interval == Interval(0, 0)
    found = verdict([0.0] * 8, smallest=0, direction=direction)
    assert found.outcome == "inconclusive"
    assert found.reasons == ("the interval 0 … 0 ends at 0",)


def test_equal_differences() -> None:
    """Decades of usable learning rates are on a grid: no spread is no error."""
    assert verdict([1.5] * 6).outcome == "supported"
    assert verdict([-1.5] * 6).outcome == "refuted"
    assert verdict([0.5] * 6).outcome == "negligible"


def test_rounding_does_not_lift_an_effect_above_the_smallest() -> None:
    step = 0.76 - 0.75
    assert step > 0.01  # by 9·10⁻¹⁸
    found = verdict([step] * 8, smallest=0.01)
    assert found.outcome == "inconclusive"
    assert "ends at the smallest effect" in found.reasons[0]
    assert verdict([step + 1e-6] * 8, smallest=0.01).outcome == "supported"
    assert verdict([step - 1e-6] * 8, smallest=0.01).outcome == "negligible"


def test_one_diverged_seed_is_not_left_out() -> None:
    """Seven seeds alone would support the claim; the eighth, where our setup diverged, stays in."""
    seven = around(3.0, 0.5, 7)
    assert verdict(seven).outcome == "supported"
    found = verdict([*seven, -inf])
    assert found.outcome == "inconclusive"
    assert found.effect is not None
    assert found.effect.mean is None
    assert found.effect.infinite == 1
    assert found.effect.n == 8
    assert found.effect.interval.low == -inf


@pytest.mark.parametrize("n", [6, 8])
def test_an_opponent_that_never_arrives(n: int) -> None:
    found = verdict([inf] * n)
    assert found.outcome == "supported"
    assert found.effect is not None
    assert found.effect.interval == Interval(inf, inf)
    assert found.effect.method == "order statistics"
    assert found.effect.coverage == 1 - 2 / 2**n
    assert verdict([-inf] * n).outcome == "refuted"
    assert verdict([-inf] * n, direction="two-sided").outcome == "supported"


@pytest.mark.parametrize(("centre", "outcome"), [(-2, "refuted"), (0, "negligible")])
def test_every_outcome_takes_a_test_after_correction(centre: float, outcome: str) -> None:
    """As for supported: 2⁻⁶ is enough in a file of three claims, too much in one of four."""
    differences = around(centre, 0.2, n=6)
    three, four = (verdict(differences, others=others) for others in (2, 3))
    assert (three.outcome, three.p, three.p_adjusted) == (outcome, 1 / 64, 3 / 64)
    assert (four.outcome, four.p_adjusted) == ("inconclusive", 4 / 64)
    where = {"refuted": "below the negative of the smallest effect, −1", "negligible":
             "between −1 and 1"}  # fmt: skip
    assert f"is {where[outcome]}, but p = 0.0625 after Holm's correction" in four.reasons[0]


def test_a_tie_tosses_no_sign_and_is_part_of_no_mean() -> None:
    """Where both sides are infinite no difference was seen: neither 0, nor left out."""
    found = verdict([3.0, 3.1, 3.2, 3.3, 3.4], ties=3)
    assert found.outcome == "inconclusive"
    assert found.effect is not None
    assert (found.effect.mean, found.effect.n, found.effect.ties) == (None, 8, 3)
    assert found.effect.method == "order statistics"
    assert found.effect.interval == Interval(0, 3.4)
    assert found.effect.p["supported"] == 2**-5
    assert found.reasons[0].endswith("; both sides are infinite at 3 of 8 seeds")
    # Not negligible either: five seeds that agree say less than eight.
    assert verdict([0.1, 0.2, 0.0, -0.1, -0.2], ties=3, others=1).outcome == "inconclusive"
    nothing = effect([], smallest_effect=1, direction="up", ties=6)
    assert set(nothing.p.values()) == {1.0}


ANY = st.lists(
    st.floats(allow_nan=False) | st.integers(-3, 3).map(float) | st.sampled_from([inf, -inf]),
    min_size=1,
    max_size=10,
)


@given(ANY, st.floats(0, 1e300) | st.sampled_from([0.0, 1.0]), st.sampled_from(DIRECTIONS))
def test_whatever_the_numbers(values: list[float], smallest: float, direction: Direction) -> None:
    """No crash, no warning, no NaN; infinite ones are never averaged; reasons where due."""
    found = verdict(values, smallest=smallest, direction=direction)
    assert found.effect is not None
    low, high = found.effect.interval
    assert low <= high
    assert (found.effect.mean is None) == any(map(np.isinf, values))
    assert found.effect.mean is None or np.isfinite(found.effect.mean)
    assert found.effect.infinite == sum(map(np.isinf, values))
    assert found.effect.median == median(values)
    assert bool(found.reasons) == (found.outcome == "inconclusive")
    assert (found.leaning is None) == (found.outcome != "inconclusive")
    if found.outcome == "supported":
        assert found.p_adjusted is not None
        assert found.p_adjusted < 0.05
        assert max(low, -high) > smallest
    if found.outcome == "refuted":
        assert high < -smallest


@given(
    st.lists(st.integers(-4, 9) | st.sampled_from([inf, -inf]), min_size=1, max_size=9),
    st.sampled_from(DIRECTIONS),
    st.randoms(),
)
def test_invariances(values: list[float], direction: Direction, random: Random) -> None:
    """The order of the seeds decides nothing, nor does the unit; swapped arms say the opposite."""
    found = verdict(values, direction=direction)
    shuffled = random.sample(values, len(values))
    assert verdict(shuffled, direction=direction).outcome == found.outcome
    other_unit = verdict([value / 100 for value in values], smallest=0.01, direction=direction)
    assert other_unit.outcome == found.outcome
    swapped = verdict([-value for value in values], direction=direction)
    if direction == "two-sided":
        assert swapped.outcome == found.outcome
        assert swapped.leaning == found.leaning
    elif found.outcome == "supported":
        assert swapped.outcome == "refuted"
    elif found.outcome == "negligible":
        assert swapped.outcome == "negligible"
    assert found.effect is not None
    assert swapped.effect is not None
    low, high = found.effect.interval
    assert swapped.effect.interval == pytest.approx((-high, -low))


@pytest.mark.parametrize("seed", range(5))
def test_an_interval_and_a_p_value_can_be_recomputed(seed: int) -> None:
    """The verdicts of a family of seven from the definitions alone."""
    random = np.random.default_rng(seed)
    samples = [random.normal(shift, 1, 8) for shift in (-2, -1, 0, 0.5, 1, 2, 3)]
    claims = [effect(each.tolist(), smallest_effect=0.5, direction="up") for each in samples]
    found = judge([(claim, ()) for claim in claims])
    p_values = {
        "supported": [sign_flip((each - 0.5).tolist()) for each in samples],
        "refuted": [sign_flip((-each - 0.5).tolist()) for each in samples],
        "negligible": [
            max(sign_flip((0.5 - each).tolist()), sign_flip((0.5 + each).tolist()))
            for each in samples
        ],
    }
    for position, sample in enumerate(samples):
        low, high = students(sample.tolist())
        where = "supported" if low > 0.5 else "refuted" if high < -0.5 else ""
        if not where and low > -0.5 and high < 0.5:
            where = "negligible"
        p = p_values[where or "supported"]
        smaller = sorted(range(7), key=lambda each: p[each])
        rank = smaller.index(position)
        adjusted = max((7 - i) * p[smaller[i]] for i in range(rank + 1))
        expected = where if where and adjusted < 0.05 else "inconclusive"
        assert found[position].outcome == expected
        assert found[position].p_adjusted == pytest.approx(min(1, adjusted))
