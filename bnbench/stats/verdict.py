"""What paired differences mean for a claim: supported, refuted, negligible or inconclusive.

A difference is one seed's, better − worse, oriented so that + favours the claim. The interval is
Student's 95 % interval of the mean; where a difference is infinite, that of the median between
order statistics instead. With s the smallest effect that matters:

supported      the interval is above s, and the exact sign-flip test gives p < 0.05 after Holm's
               correction over all claims of the file
refuted        the interval is below −s
negligible     the interval is between −s and s
inconclusive   everything else; always with fewer than six seeds, and where something was objected

A claim that is two-sided is supported by an interval above s or below −s and a two-sided test; it
is never refuted. An interval that ends at ±s, but for rounding, is not clear of it: metrics on a
grid do that. With s = 0 only differences that are all exactly 0 are negligible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from math import inf, isclose, isinf
from typing import Literal, assert_never

from bnbench.stats.differences import (
    ROUNDING,
    SEEDS_FOR_AN_INTERVAL,
    Alternative,
    Interval,
    holm,
    mean,
    median,
    median_interval,
    paired_t_interval,
    seeds_needed,
    sign_flip,
)

Direction = Literal["up", "down", "two-sided"]
Conclusion = Literal["supported", "refuted", "negligible", "inconclusive"]
Leaning = Literal["for", "against", "neither"]
Method = Literal["paired t", "order statistics"]

CONFIDENCE = 0.95
LEVEL = 0.05
SEEDS_FOR_A_VERDICT = 6
"""Two-sided exact tests cannot reach 0.05 with fewer: 2·2⁻⁵ = 0.0625."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What the differences of one claim amount to, in the metric's unit.

    `differences` may be ±∞; `infinite` counts these. `mean` is None where there are any. `coverage`
    is how often an interval of this `method` covers what it estimates: 0.95, or what n order
    statistics can give. One or two finite
    differences have the interval −∞ … ∞. `p` is the sign-flip test's,
    before Holm's correction. `seeds_needed`: to support an effect of twice the smallest with a
    chance of 80 % at this spread, at least six; None where that has no answer.
    """

    differences: tuple[float, ...]
    smallest_effect: float
    direction: Direction
    mean: float | None
    median: float
    interval: Interval
    method: Method
    coverage: float
    n: int
    infinite: int
    p: float
    seeds_needed: int | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome, what it rests on, and why it is inconclusive if it is.

    `effect` and `p_adjusted` (after Holm's correction) are None where there was nothing to compare.
    `reasons` is empty unless the outcome is inconclusive. `leaning` is where the differences point
    then, None otherwise: a direction, and nothing stronger.
    """

    outcome: Conclusion
    effect: Effect | None
    p_adjusted: float | None
    reasons: tuple[str, ...]
    leaning: Leaning | None


def seeds_to_support(directions: Sequence[Direction]) -> int:
    """The fewest seeds at which every claim of a file can be supported: if all seeds agree.

    `directions`: of the claims that are judged together. Their smallest possible p is then 2⁻ⁿ,
    two-sided 2·2⁻ⁿ, and Holm's correction must leave it below 0.05.
    """
    for n in count(SEEDS_FOR_A_VERDICT):
        p_values = [_tails(direction) * 2.0**-n for direction in directions]
        if all(p < LEVEL for p in holm(p_values)):
            return n
    raise AssertionError("2⁻ⁿ becomes as small as one likes")


def effect(
    differences: Sequence[float],
    *,
    smallest_effect: float,
    direction: Direction,
    most: float = inf,
) -> Effect:
    """Interval, test and what else there is to say of the differences of one claim.

    `most`: no difference can be larger, and no interval reaches beyond it: to cut away what is not
    possible leaves its coverage as it is. Raises ValueError for no differences, for NaN and for a
    smallest effect that is negative or not finite.
    """
    if not 0 <= smallest_effect < inf:
        raise ValueError(f"the smallest effect {smallest_effect} is not a finite number from 0 up")
    values = tuple(float(value) for value in differences)
    middle = median(values)
    infinite = sum(map(isinf, values))
    method: Method
    if infinite:
        method = "order statistics"
        low, high, coverage = median_interval(values, confidence=CONFIDENCE)
        interval = Interval(low, high)
    else:
        method = "paired t"
        coverage = CONFIDENCE
        interval = Interval(-inf, inf)
        if len(values) >= SEEDS_FOR_AN_INTERVAL:
            low, high = paired_t_interval(values, confidence=CONFIDENCE)
            interval = Interval(max(low, -most), min(high, most))
    needed = seeds_needed(values, smallest_effect, confidence=CONFIDENCE)
    return Effect(
        differences=values,
        smallest_effect=float(smallest_effect),
        direction=direction,
        mean=None if infinite else mean(values).value,
        median=middle,
        interval=interval,
        method=method,
        coverage=coverage,
        n=len(values),
        infinite=infinite,
        p=sign_flip(values, alternative=_alternative(direction)),
        seeds_needed=None if needed is None else max(needed, SEEDS_FOR_A_VERDICT),
    )


def judge(effects: Sequence[tuple[Effect | None, Sequence[str]]]) -> list[Verdict]:
    """A verdict for each claim of a file, in the given order: they are one family.

    With each effect comes what is objected to it, in words (a failed sanity check, a learning rate
    at the edge of its grid, missing runs); the effect is None where no seed can be compared. Every
    effect counts in Holm's correction, whatever is objected to it.
    """
    family = [found for found, _ in effects if found is not None]
    adjusted = iter(holm([found.p for found in family]))
    return [
        _without_effect(objections)
        if found is None
        else _verdict(found, objections, next(adjusted), family)
        for found, objections in effects
    ]


def _without_effect(objections: Sequence[str]) -> Verdict:
    reasons = tuple(objections) or ("there is no pair of runs to compare",)
    return Verdict("inconclusive", None, None, reasons, None)


def _verdict(
    effect: Effect, objections: Sequence[str], p: float, family: Sequence[Effect]
) -> Verdict:
    reasons = list(objections)
    outcome: Conclusion = "inconclusive"
    if effect.n < SEEDS_FOR_A_VERDICT:
        reasons.append(_too_few(effect, family))
    else:
        outcome, why = _by_the_rules(effect, p, len(family))
        reasons += why
    if not reasons:
        return Verdict(outcome, effect, p, (), None)
    return Verdict("inconclusive", effect, p, tuple(reasons), _leaning(effect))


def _too_few(effect: Effect, family: Sequence[Effect]) -> str:
    """How many seeds a verdict takes; at this spread, where there are enough to see it."""
    least = seeds_to_support([each.direction for each in family])
    said = f"{effect.n} seed{'s' * (effect.n > 1)}; {least} are needed for a verdict"
    needed = effect.seeds_needed or 0
    if effect.n >= SEEDS_FOR_AN_INTERVAL and needed > least:
        return f"{said}, about {needed:,} at this spread"
    return said


def _by_the_rules(effect: Effect, p: float, family: int) -> tuple[Conclusion, list[str]]:
    """The outcome of enough seeds without objections; if it is inconclusive, why."""
    low, high = effect.interval
    smallest = effect.smallest_effect
    above, below = _clear(low, smallest), _clear(-smallest, high)
    match effect.direction:
        case "up" | "down":
            claimed, opposite = above, below
        case "two-sided":
            claimed, opposite = above or below, False
        case _:
            assert_never(effect.direction)
    if claimed and p < LEVEL:
        return "supported", []
    if claimed:
        return "inconclusive", [_may_be_chance(effect, p, family)]
    if opposite:
        return "refuted", []
    if (_clear(low, -smallest) and _clear(smallest, high)) or low == high == 0:
        return "negligible", []
    return "inconclusive", [_not_clear(effect)]


def _alternative(direction: Direction) -> Alternative:
    match direction:
        case "up" | "down":
            return "greater"
        case "two-sided":
            return "two-sided"
        case _:
            assert_never(direction)


def _tails(direction: Direction) -> int:
    return 1 if _alternative(direction) == "greater" else 2


def _clear(upper: float, lower: float) -> bool:
    """Whether one number is above another by more than rounding."""
    return upper > lower and not isclose(upper, lower, rel_tol=ROUNDING)


def _leaning(effect: Effect) -> Leaning:
    """Where mean and median point, if both are beyond the smallest effect on the same side."""
    centres = [effect.median, effect.median if effect.mean is None else effect.mean]
    smallest = effect.smallest_effect
    above = all(_clear(centre, smallest) for centre in centres)
    below = all(_clear(-smallest, centre) for centre in centres)
    if above or (below and effect.direction == "two-sided"):
        return "for"
    return "against" if below else "neither"


def _not_clear(effect: Effect) -> str:
    """The interval, what it is not clear of, and what would help."""
    low, high = effect.interval
    smallest = effect.smallest_effect
    met = [
        edge
        for edge in dict.fromkeys((-smallest, smallest))
        if not _clear(low, edge) and not _clear(edge, high)
    ]
    reached = all(_clear(edge, low) and _clear(high, edge) for edge in met)
    start, end, *edges = _numbers(low, high, *met)
    if len(met) == 2:
        what = f"the smallest effect on both sides, {edges[0]} and {edges[1]}"
    else:
        what = _named(met[0], edges[0])
    said = f"{_whose(effect)} {start} … {end} {'reaches over' if reached else 'ends at'} {what}"
    if effect.infinite:
        verb = "is" if effect.infinite == 1 else "are"
        return f"{said}; {effect.infinite} of {effect.n} differences {verb} infinite"
    if smallest == 0:
        return f"{said}; how many seeds it takes can be told once a smallest effect is given"
    if effect.seeds_needed is None:
        return said
    if effect.seeds_needed > effect.n:
        return f"{said}; about {effect.seeds_needed:,} seeds would be needed"
    return f"{said}; the effect is too near to it for {effect.n} seeds to tell"


def _may_be_chance(effect: Effect, p: float, family: int) -> str:
    """Why an interval that is clear of the smallest effect is not enough."""
    low, high = effect.interval
    above = low > 0
    edge = effect.smallest_effect if above else -effect.smallest_effect
    start, end, limit = _numbers(low, high, edge)
    chance, alone, level = _numbers(p, effect.p, LEVEL)
    corrected = f"p = {chance}"
    if family > 1:
        corrected += f" after Holm's correction for {family} claims ({alone} before)"
    seeds = seeds_to_support([effect.direction] * family)
    way = (
        f"{seeds} seeds that all agree would reach it"
        if seeds > effect.n
        else f"the {effect.n} seeds would have to agree more"
    )
    return (
        f"{_whose(effect)} {start} … {end} is {'above' if above else 'below'} "
        f"{_named(edge, limit)}, but {corrected} is not below {level}; {way}"
    )


def _whose(effect: Effect) -> str:
    return "the median's interval" if effect.infinite else "the interval"


def _named(edge: float, number: str) -> str:
    """What an end of the range of effects too small to matter is called."""
    if edge == 0:
        return "0"
    return f"the smallest effect{' on the other side,' if edge < 0 else ''} {number}"


def _numbers(*values: float) -> list[str]:
    """With three digits, or as many as it takes to tell different ones apart."""
    words: list[str] = []
    for digits in range(3, 18):
        words = [f"{value + 0.0:.{digits}g}" for value in values]  # + 0.0: no −0
        if len(set(words)) == len(set(values)):
            break
    return [word.replace("-", "−").replace("inf", "∞") for word in words]
