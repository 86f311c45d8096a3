"""What paired differences mean for a claim: supported, refuted, negligible or inconclusive.

A difference is one seed's, better − worse, oriented so that + favours the claim. The interval is
Student's 95 % interval of the mean; as soon as a run of either side diverged or never reached its
target, that of the median between order statistics instead: where neither side did, the seed is a
tie. With s the smallest effect that matters:

supported      the interval is above s
refuted        the interval is below −s
negligible     the interval is between −s and s
inconclusive   everything else; always with fewer than six seeds, and where something was objected

and none of the first three without an exact sign-flip test of the differences beyond that edge (for
negligible: of both) that gives p < 0.05 after Holm's correction over all claims of the file. So at
most one file in twenty supports any claim wrongly; the same holds for each of the other two. A
claim that is two-sided is supported by an interval above s or below −s and a two-sided test;
it is never refuted. An interval that ends at ±s, but for rounding, is not clear of it: metrics on a
grid do that. With s = 0 nothing is negligible: that no seed differs does not say that none will.

For accuracies of test images there is a second interval, over seeds and images (`crossed`): the
first holds for these images, the second for others like them. Where the second would leave
undecided what the first decides, that is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from math import isclose
from typing import Literal, get_args

from bnbench.stats.differences import (
    ROUNDING,
    SEEDS_FOR_AN_INTERVAL,
    Interval,
    holm,
    seeds_needed,
)
from bnbench.stats.effect import CONFIDENCE, Decided, Direction, Effect

Conclusion = Literal["supported", "refuted", "negligible", "inconclusive"]
Leaning = Literal["for", "against", "neither"]

LEVEL = 0.05
SEEDS_FOR_A_VERDICT = 6
"""Two-sided exact tests cannot reach 0.05 with fewer: 2·2⁻⁵ = 0.0625."""
SENSIBLE_SEEDS = 100
"""Beyond it a number of seeds is no advice: the spread is not one that seeds will average away."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome, what it rests on, and why it is inconclusive if it is.

    `p` is that of the test that decides, before and `p_adjusted` after Holm's correction: of the
    outcome that the interval points at, else of "supported". Like `effect` they are None where
    there was nothing to compare. `reasons` is empty unless the outcome is inconclusive: what was
    objected, then what the statistics lack, one sentence. `leaning` is where the differences point
    then, None otherwise: a direction, and nothing stronger. `seeds_needed`: how many others decide
    it with a chance of 80 % if the true effect is the mean seen, at this spread; None where it is
    decided or objected to, and where no sensible number would do. `over_images`: the outcome by the
    interval over seeds and images, where there is one.
    """

    outcome: Conclusion
    effect: Effect | None
    p: float | None
    p_adjusted: float | None
    reasons: tuple[str, ...]
    leaning: Leaning | None
    seeds_needed: int | None = None
    over_images: Conclusion | None = None


def seeds_to_support(directions: Sequence[Direction], *, share: float = 1.0) -> int:
    """The fewest seeds at which every claim of a file can be supported: if all seeds agree.

    `directions`: of the claims that are judged together. Their smallest possible p is then 2⁻ⁿ,
    two-sided 2·2⁻ⁿ, and Holm's correction must leave it below 0.05, of which a look may spend a
    `share`. As many can refute them, or find them negligible.
    """
    for n in count(SEEDS_FOR_A_VERDICT):
        p_values = [(2 if each == "two-sided" else 1) * 2.0**-n for each in directions]
        if all(p < LEVEL * share for p in holm(p_values)):
            return n
    raise AssertionError("2⁻ⁿ becomes as small as one likes")


def judge(effects: Sequence[tuple[Effect | None, Sequence[str]]]) -> list[Verdict]:
    """A verdict for each claim of a file, in the given order: they are one family.

    With each effect comes what is objected to it, in words (a failed sanity check, a learning rate
    at an end of its grid, missing runs); the effect is None where no seed can be compared. Every
    claim counts in Holm's correction, whatever is objected to it, and with p = 1 where its runs are
    missing: which are trained first must not decide how strict it is.
    """
    corrected = {
        decided: holm([1.0 if found is None else found.p[decided] for found, _ in effects])
        for decided in get_args(Decided)
    }
    directions: list[Direction] = ["up" if found is None else found.direction
                                   for found, _ in effects]  # fmt: skip
    verdicts = []
    for number, (found, objections) in enumerate(effects):
        if found is None:
            reasons = tuple(objections) or ("there is no pair of runs to compare",)
            verdicts.append(Verdict("inconclusive", None, None, None, reasons, None))
        else:
            p = {decided: values[number] for decided, values in corrected.items()}
            verdicts.append(_verdict(found, objections, p, directions))
    return verdicts


def points_at(effect: Effect, interval: Interval) -> Conclusion:
    """Which outcome an interval says, before any test."""
    low, high = interval
    smallest = effect.smallest_effect
    above, below = _clear(low, smallest), _clear(-smallest, high)
    if above or (below and effect.direction == "two-sided"):
        return "supported"
    if below:
        return "refuted"
    if _clear(low, -smallest) and _clear(smallest, high):
        return "negligible"
    return "inconclusive"


def _verdict(
    effect: Effect,
    objections: Sequence[str],
    corrected: Mapping[Decided, float],
    family: Sequence[Direction],
) -> Verdict:
    reasons, outcome = list(objections), points_at(effect, effect.interval)
    tested: Decided = "supported" if outcome == "inconclusive" else outcome
    p = corrected[tested]
    least = seeds_to_support(family, share=effect.share)
    needed = _seeds(effect, least, len(family))
    if effect.n < SEEDS_FOR_A_VERDICT:
        reasons.append(_too_few(effect, least, needed))
    elif outcome == "inconclusive":
        reasons.append(_not_clear(effect, needed))
    elif p >= LEVEL:
        reasons.append(_may_be_chance(effect, outcome, p, len(family)))
    over_images: Conclusion | None = None
    if effect.over_images is not None:
        holds = not reasons and points_at(effect, effect.over_images) == outcome
        over_images = outcome if holds else "inconclusive"
    if not reasons:
        return Verdict(outcome, effect, effect.p[tested], p, (), None, None, over_images)
    return Verdict(
        "inconclusive",
        effect,
        effect.p[tested],
        p,
        tuple(reasons),
        _leaning(effect),
        needed if needed and effect.n < needed <= SENSIBLE_SEEDS and not objections else None,
        over_images,
    )


def _seeds(effect: Effect, least: int, family: int) -> int | None:
    """How many would decide, at least as many as can; None where that has no answer.

    By the interval and by the test, of which Holm's correction leaves each claim an even part at
    least; within the smallest effect and its negative, clear of both.
    """
    if effect.n < SEEDS_FOR_AN_INTERVAL or effect.mean is None or effect.ties:
        return None
    away = abs(abs(effect.mean) - effect.smallest_effect)
    power = 0.9 if abs(effect.mean) < effect.smallest_effect else 0.8
    tested = LEVEL / family * (1 if effect.direction == "two-sided" else 2)
    confidence = 1 - min(1 - CONFIDENCE, tested) * effect.share
    needed = seeds_needed(effect.differences, away, confidence=confidence, power=power)
    return None if needed is None else max(needed, least)


def about(needed: int) -> str:
    """A number of seeds, as far as it is advice."""
    return f"about {needed}" if needed <= SENSIBLE_SEEDS else f"more than {SENSIBLE_SEEDS}"


def _too_few(effect: Effect, least: int, needed: int | None) -> str:
    """How many seeds a verdict takes, and this effect, where there are enough to see it."""
    said = f"{effect.n} seed{'s' * (effect.n > 1)}; {least} are needed for a verdict"
    return said if needed in (None, least) else f"{said}, {about(needed)} if {_seen(effect)}"


def _seen(effect: Effect) -> str:
    return f"the true effect is the mean seen, {_numbers(effect.mean or 0.0)[0]}"


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


def _not_clear(effect: Effect, needed: int | None) -> str:
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
        what = f"the smallest effect and its negative, {edges[1]} and {edges[0]}"
    else:
        what = _named(met[0], edges[0])
    said = f"{_whose(effect)} {start} … {end} {'contains' if reached else 'ends at'} {what}"
    if effect.method == "order statistics":
        verb = "is" if effect.infinite == 1 else "are"
        infinite = f"{effect.infinite} of {effect.n} differences {verb} infinite"
        tied = f"both sides are infinite at {effect.ties} of {effect.n} seeds"
        told = [infinite] * bool(effect.infinite) + [tied] * bool(effect.ties)
        return "; ".join([said, *told])
    if needed is None:
        return said
    return f"{said}; if {_seen(effect)}, it takes {about(needed)} seeds"


def _may_be_chance(effect: Effect, outcome: Decided, p: float, family: int) -> str:
    """Why an interval that is clear of the smallest effect is not enough."""
    low, high = effect.interval
    smallest, alone = effect.smallest_effect, effect.p[outcome]
    start, end, upper, lower = _numbers(low, high, smallest, -smallest)
    if outcome == "negligible":
        where = f"between {lower} and {upper}"
    elif low > 0:
        where = f"above {_named(smallest, upper)}"
    else:
        where = f"below {_named(-smallest, lower)}"
    chance, before, level = _numbers(p, alone, LEVEL)
    corrected = f"p = {chance}"
    if family > 1:
        corrected += f" after Holm's correction for {family} claims ({before} before)"
    if effect.share < 1:
        corrected += f" and that for looks (this one may spend {effect.share:.3g} of the level)"
    seeds = seeds_to_support([effect.direction] * family, share=effect.share)
    way = (
        f"{seeds} seeds that all agree would reach it"
        if seeds > effect.n
        else f"the {effect.n} seeds would have to agree more"
    )
    return (
        f"{_whose(effect)} {start} … {end} is {where}, but {corrected} is not below {level}; {way}"
    )


def _whose(effect: Effect) -> str:
    return "the median's interval" if effect.method == "order statistics" else "the interval"


def _named(edge: float, number: str) -> str:
    """What an end of the range of effects too small to matter is called."""
    if edge == 0:
        return "0"
    return f"the {'negative of the ' * (edge < 0)}smallest effect{',' * (edge < 0)} {number}"


def _numbers(*values: float) -> list[str]:
    """With three digits, or as many as it takes to tell different ones apart."""
    words: list[str] = []
    for digits in range(3, 18):
        words = [f"{value + 0.0:.{digits}g}" for value in values]  # + 0.0: no −0
        if len(set(words)) == len(set(values)):
            break
    return [word.replace("-", "−").replace("inf", "∞") for word in words]
