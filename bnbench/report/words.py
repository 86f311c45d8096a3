"""Numbers as people read them, the same in the terminal and on the page."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from math import isfinite, isinf, isnan, nan
from statistics import fmean
from typing import Any

from bnbench.config import identity
from bnbench.config.metrics import LR
from bnbench.stats.differences import SEEDS_FOR_AN_INTERVAL
from bnbench.wording import KEY_WORDS, counted, in_words, listing

MINUS, INFINITY, NO_BREAK = "−", "∞", "\u00a0"
GAP = "eval mode better by"
"""A column's heading."""
GAP_IS = (
    "Eval mode better by: points of validation accuracy over training mode (batch statistics); "
    "below 0, training mode is better"
)
GAP_MEANS = f"{GAP_IS}; –: without batch statistics."
"""In a table."""
ARROW = " → "
ARROW_MEANS = (
    "→: the same with population statistics (precise BN), where that differs by a point or more."
)
AT_CHANCE = "At chance: did not learn; they are in the mean."
GIVEN_UP = (
    "Given up: worse on validation than the chosen one, so that no further seeds were trained."
)
LEANINGS = {
    "for": "leans towards yes",
    "against": "leans towards no",
    "neither": "leans neither way",
}
SYMBOLS = {"supported": "✓", "refuted": "✗", "negligible": "≈", "inconclusive": "?"}


def number(value: float | str | None, *, digits: int = 3, sign: bool = False) -> str:
    """A few significant digits; – where there is none, and "inf" is one."""
    exact = nan if value is None else float(value)
    if isnan(exact):
        return "–"
    if isinf(exact):
        return (MINUS if exact < 0 else "+" * sign) + INFINITY
    rounded = float(f"{exact:.{digits}g}") + 0.0  # + 0.0: no −0
    if rounded and not 1e-3 <= abs(rounded) < 1e6:
        words = f"{rounded:{'+' if sign else ''}.{digits - 1}e}"
    else:
        magnitude = int(f"{rounded:e}".partition("e")[2]) if rounded else 0
        places = max(0, digits - 1 - magnitude)
        words = f"{rounded:{'+' if sign and rounded else ''},.{places}f}"
        words = words.rstrip("0").rstrip(".") if "." in words else words
    return words.replace("-", MINUS)


def percent(value: float | None, *, sign: bool = False) -> str:
    """A fraction in percent, with one decimal."""
    if value is None or isnan(value):
        return "–"
    words = f"{100 * value + 0.0:{'+' if sign else ''}.1f}"
    return words.replace("-0.0", "0.0").replace("+0.0", "0.0").replace("-", MINUS)


def tied(text: str) -> str:
    """The text with spaces that do not break a line within `95 %`, `n = 6`, `[60.1, 68.9]` or
    `+0.8 … +2.3`."""
    return re.sub(
        r" (?=%)|(?<=[=<>×]) | (?=[=<>] )| (?=[^][]{0,40}])|(?<=[\d∞]) (?=… [-+−\d])|(?<=[\d∞] …) ",
        NO_BREAK, text,
    )  # fmt: skip


def over_seeds(
    metric: Mapping[str, Any] | None, shown: Callable[..., str] = percent, *, sign: bool = False
) -> str:
    """A mean with its interval, `64.3 [60.1, 68.9]`; of one or two seeds the values, `64.3, 66.0`.

    `metric`: of a cell of the record. `shown`: `percent` or `number`. `sign`: with a + above 0, but
    for the ends of the interval.
    """
    if metric is None:
        return "–"
    if metric["interval"] is None:
        return ", ".join(shown(value, sign=sign) for value in metric["values"])
    low, high = map(shown, metric["interval"])
    return f"{shown(metric['mean'], sign=sign)} [{low}, {high}]"


def seeds(cell: Mapping[str, Any]) -> str:
    """Of how many seeds the means are, and what became of others: `6 (2 at chance) + 1 missing`.

    `cell`: of the record.
    """
    lost = cell["at_chance"]
    said = [f"{cell['completed']}" + f" ({lost} at chance)" * bool(lost)] * bool(cell["completed"])
    said += [f"{cell[state]} {state}" for state in ("diverged", "failed", "missing") if cell[state]]
    return " + ".join(said) + (" (given up)" if cell["given_up"] else "")


def test_accuracy(metrics: Mapping[str, Any]) -> str:
    """That of a cell, and after an arrow with population statistics where that differs.

    `metrics`: of a cell of the record.
    """
    said = over_seeds(metrics["test_accuracy"])
    return f"{said}{ARROW}{over_seeds(metrics['population_accuracy'])}" * has_arrow(metrics) or said


def has_arrow(metrics: Mapping[str, Any]) -> bool:
    """Whether a cell's test accuracy under population statistics is another, by a point or more."""
    running, population = metrics["test_accuracy"], metrics["population_accuracy"]
    if running is None or population is None:
        return False
    return bool(abs(population["mean"] - running["mean"]) >= 0.01)


def middle(found: Mapping[str, Any], unit: str) -> str:
    """Mean or median of the effect of a claim, or what an infinite one is beyond; of one or two
    seeds the differences.

    `found`: of the record.
    """
    if not found["differences"]:
        return "no difference"
    if found["n"] < SEEDS_FOR_AN_INTERVAL:
        return listing((difference(value, unit) for value in found["differences"]), "and")
    if found["mean"] is not None:
        return f"mean {difference(found['mean'], unit)}"
    median = float(found["median"])
    bound = float((found["interval"] or [median] * 2)[median < 0])
    if isinf(median) and isfinite(bound):
        return f"at {'most' if median < 0 else 'least'} {difference(bound, unit)}"
    return f"median {difference(median, unit)}"


def effect(found: Mapping[str, Any], unit: str) -> str:
    """The same with its interval, and what an infinite one means."""
    sure = f"{100 * found['coverage']:.3g} % interval {interval(found['interval'], unit)}"
    said = [middle(found, unit), sure, counted(found["n"], "seed")]
    if found["n"] < SEEDS_FOR_AN_INTERVAL:
        said = [said[0], said[2], "no interval"]
    if found["infinite"]:
        share = f"{found['infinite']} of {found['n']} infinite"
        said.append(f"{share}: a run diverged or never reached its target")
    if found["ties"]:
        said.append(f"{found['ties']} of {found['n']} tied: neither side has a finite value")
    return ", ".join(said)


def beside(each: Mapping[str, Any]) -> str:
    """Published numbers beside ours. `each`: of `published` of the record."""

    def shown(values: Sequence[Any]) -> str:
        return listing(map(number, values), "and")

    unit = " %" if each["unit"] == "points" else f" {each['unit']}".rstrip()
    told, ours = f"{each['says']}: {shown(each['values'])}{unit}", each["ours"]
    if not ours["n"]:
        return f"{told}; no run of ours yet"
    told += f"; ours {number(ours['median'])} (median), {number(ours['low'])} to "
    told += f"{number(ours['high'])} in {counted(ours['n'], 'run')}"
    if ours["one_more"] is not None:
        told += f", one more would be in {number(ours['one_more'][0])} to "
        told += f"{number(ours['one_more'][1])} (95 %)"
    return f"{told}; {shown(ours['below'])} of ours below"


def over_images(claim: Mapping[str, Any], *, always: bool = False) -> str | None:
    """What is said of the interval over seeds and images, where the verdict depends on it or it is
    wanted `always` and is another one; None where there is none.

    `claim`: of the record.
    """
    found = (claim["effect"] or {}).get("over_images")
    if found is None:
        return None
    ends = f"{interval(found['interval'], claim['unit'])} with the images as a sample, too"
    if found["outcome"] == claim["outcome"]:
        return ends if always and intervals(claim)[1] else None
    return (
        f"{claim['outcome']} for these {found['images']:,} test images alone: {ends}, which leaves "
        "it undecided for others like them"
    )


def intervals(claim: Mapping[str, Any]) -> tuple[str, str]:
    """That of a claim's effect over seeds, and the one over seeds and images where its words are
    others, else "".

    `claim`: of the record.
    """
    effect = claim["effect"] or {"interval": None}
    both = (effect["interval"], (effect.get("over_images") or {}).get("interval"))
    alone, over = (interval(ends, claim["unit"]) for ends in both)
    return alone, over * (over not in ("–", alone))


def two_groups(side: Mapping[str, Any]) -> str | None:
    """What is said of an arm of a claim whose seeds fall into two groups, None of another.

    `side`: of the record.
    """
    if side["groups"] is None:
        return None
    parts = (f"{len(each)} from {number(each[0])} to {number(each[-1])}" for each in side["groups"])
    mean = number(fmean(chain(*side["groups"])))
    said = f"{side['words']}: two groups of seeds, {listing(parts, 'and')}"
    return f"{said}; the mean, {mean}, is in neither"


def limited(claim: Mapping[str, Any]) -> str:
    """What is added to an outcome where a side did not learn at the only learning rate it had.

    `claim`: of the record.
    """
    decided = claim["outcome"] != "inconclusive"
    return " at one learning rate" if claim["remarks"] and decided else ""


def also(claim: Mapping[str, Any]) -> str:
    """What follows the effect of a claim in its sentence: which mode is better, what else differs
    between its sides, at which look that was; "" of most.

    `claim`: of the record.
    """
    said = [claim["meaning"], *claim["conditions"], claim["look"]]
    return "".join(f"; {each}" for each in said if each)


def eval_mode(gap: float) -> str:
    """What a gap, a fraction under running minus one under batch statistics, means."""
    size = percent(abs(gap))
    if float(size) == 0:
        return "eval mode is as good as training mode"
    return f"eval mode is {size} points {'better' if gap > 0 else 'worse'} than training mode"


def eval_mode_loss(gap: float) -> str:
    """The same of losses, in nats."""
    if gap == 0:
        return "the loss of eval mode is that of training mode"
    size = f"{number(abs(gap))} nats {'higher' if gap > 0 else 'lower'}"
    return f"the loss of eval mode is {size} than that of training mode"


def difference(value: float | str, unit: str) -> str:
    """A signed difference with its unit; doublings also as a factor."""
    value = float(value)
    words = bare(value, unit)
    match unit:
        case "points":
            return f"{words} points"
        case "doublings" if isfinite(value) and abs(value) < 60:
            return f"{words} doublings (×{number(2.0**value)})"
        case "":
            return words
        case _:
            return f"{words} {unit}"


def bare(value: float, unit: str) -> str:
    """The same without its unit."""
    if unit != "points" or not isfinite(value):
        return number(value, sign=True)
    words = f"{value:+.1f}" if abs(value) >= 0.05 else f"{value:+.2f}"
    return "0.0" if float(words) == 0 else words.replace("-", MINUS)


def interval(ends: Sequence[Any] | None, unit: str) -> str:
    """Both ends of an interval of a difference, in its unit; "inf" is a number, too."""
    numbers = [] if ends is None else [float(end) for end in ends]
    if all(map(isinf, numbers)):
        return "–"
    return " … ".join(bare(end, unit) for end in numbers)


def p_value(value: float | None) -> str:
    """A probability; a tiny one as a bound."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def value_words(value: object) -> str:
    """A value of an axis, – where it has no meaning."""
    if value is None:
        return "–"
    return in_words(tuple(value) if isinstance(value, list) else value)


def short_names(axes: Sequence[str]) -> dict[str, str]:
    """The last part of each dotted key, or all of it where that says too little; if two have the
    same last part, what the runs' ids call it (`bs`, `nbs`), or all of it."""
    ends = [axis.rpartition(".")[2] for axis in axes]
    unclear = KEY_WORDS.keys() - {LR}
    names = {}
    for axis, end in zip(axes, ends, strict=True):
        names[axis] = axis if axis in unclear else end
        if ends.count(end) > 1:
            names[axis] = identity.SHORT_NAMES.get(axis, axis)
    return names
