"""The answer in a sentence or two, and what a reader must know before believing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from bnbench.report.selection import best, readings, tuned_cells
from bnbench.report.study import Cell, Study, cell_words, reading
from bnbench.report.tuning import Tuned
from bnbench.report.verdicts import Judged
from bnbench.report.words import difference, interval, percent, plural
from bnbench.stats import SEEDS_FOR_A_VERDICT, Outcome, paired_t_interval

SAID: dict[Outcome, str] = {
    "supported": "Supported",
    "refuted": "Refuted",
    "negligible": "Too small to matter",
    "inconclusive": "Not decided",
}


@dataclass(frozen=True, slots=True)
class Notice:
    """What stands above everything else. `kind`: unfinished, failed, indicative or other."""

    kind: Literal["unfinished", "failed", "indicative", "other"]
    text: str


def answer(study: Study, choices: Sequence[Tuned], claims: Sequence[Judged]) -> list[str]:
    """The answer: of the claims where there are any, else of the table."""
    return list(_of_claims(claims) if claims else _of_table(study, choices))


def _of_claims(claims: Sequence[Judged]) -> Iterator[str]:
    for outcome, said in SAID.items():
        found = [each for each in claims if each.verdict.outcome == outcome]
        if not found:
            continue
        if len(found) > 4:
            yield f"{said}: {len(found)} of {plural(len(claims), 'claim')}."
            continue
        for each in found:
            yield f"{said}: {_in_a_sentence(each)}"


def _in_a_sentence(each: Judged) -> str:
    effect = each.verdict.effect
    says = each.claim.says.strip().rstrip(".")
    if effect is None:
        return f"{says}. {_why(each)}"
    middle = effect.median if effect.mean is None else effect.mean
    of_what = "median" if effect.mean is None else "mean"
    sure = f"95 % interval {interval(effect.interval, each.unit)}"
    if effect.mean is None:
        sure = f"{percent(effect.coverage)} % interval {interval(effect.interval, each.unit)}"
    if effect.n == 1:
        sure = "one seed, no interval"
    size = f"{of_what} {difference(middle, each.unit)}, {sure}, {plural(effect.n, 'seed')}"
    if each.verdict.outcome != "inconclusive":
        return f"{says} ({size})."
    leaning = {"for": "it leans towards yes", "against": "it leans towards no"}
    hint = leaning.get(each.verdict.leaning or "")
    return f"{says} ({size}{f'; indicative: {hint}' if hint else ''}). {_why(each)}"


def _why(each: Judged) -> str:
    reasons = each.verdict.reasons
    if not reasons:
        return ""
    more = f" (and {plural(len(reasons) - 1, 'other reason')})" if len(reasons) > 1 else ""
    return f"Why not decided: {reasons[0].rstrip('.')}{more}."


def _of_table(study: Study, choices: Sequence[Tuned]) -> Iterator[str]:
    cells = tuned_cells(study, choices)
    chosen = [best([cell for cell in cells if cell.setup == setup]) for setup in study.setups]
    there = [cell for cell in chosen if cell is not None and cell.completed]
    if not there:
        lost = study.count("diverged")
        why = f": {plural(lost, 'run')} diverged" if lost else ""
        yield f"No run has completed, so there is nothing to compare{why}."
        return
    ranked = sorted(there, key=_test, reverse=True)
    first = ranked[0]
    where = _where(study, first)
    score = f"{percent(_test(first))} % test accuracy over {plural(len(first.completed), 'seed')}"
    if len(ranked) == 1:
        alone = len(study.setups) == 1
        rest = "" if alone else "; no other setup has a completed run"
        yield f"{first.setup}{where} reached {score}{rest}."
        if alone:
            yield "There is no other setup to compare it with."
        return
    yield (
        f"{first.setup}{where} did best: {score}, each setup at its best values on validation."
        if any(len(values) > 1 for values in study.axes.values())
        else f"{first.setup} did best: {score}."
    )
    yield _lead(study, first, ranked[1])


def _lead(study: Study, first: Cell, second: Cell) -> str:
    """By how much over the runner-up, seed by seed, and how sure that is."""
    name = f"{second.setup}{_where(study, second)}"
    pairs = _pairs(first, second)
    if not pairs:
        gap = difference(100 * (_test(first) - _test(second)), "points")
        return f"The runner-up is {name}, {gap} behind; they share no completed seed."
    lead = sum(pairs) / len(pairs)
    if len(pairs) == 1:
        return (
            f"{name} follows, {difference(-lead, 'points')} at the one seed that both have: one "
            "seed says nothing about chance."
        )
    low, high = paired_t_interval(pairs)
    told = (
        f"Over {name} that is {difference(lead, 'points')} (95 % interval "
        f"{interval((low, high), 'points')}, {plural(len(pairs), 'pair')} of runs)"
    )
    if low <= 0 <= high:
        return f"{told}: within noise, the two cannot be told apart."
    if len(pairs) < SEEDS_FOR_A_VERDICT:
        return f"{told}: indicative only, {SEEDS_FOR_A_VERDICT} seeds are needed for more."
    return f"{told}. The two were picked after looking, which flatters the lead; a claim would not."


def _pairs(one: Cell, other: Cell) -> list[float]:
    """Differences in test accuracy at the same seed, in points."""
    path = ("test", "running", "accuracy")
    others = {run.seed: reading(run, *path) for run in other.completed}
    found = [(reading(run, *path), others.get(run.seed)) for run in one.completed]
    return [100 * (mine - its) for mine, its in found if mine is not None and its is not None]


def _test(cell: Cell) -> float:
    found = readings(cell.runs, "test", "running", "accuracy")
    return sum(found) / len(found) if found else float("-inf")


def _where(study: Study, cell: Cell) -> str:
    words = cell_words(cell.point, [key for key, values in study.axes.items() if len(values) > 1])
    return f" ({words})" if words else ""


def notices(study: Study) -> list[Notice]:
    """Unfinished, failed, few seeds, runs that are not of the file."""
    return list(_notices(study))


def _notices(study: Study) -> Iterator[Notice]:
    states = Counter(run.state for run in study.runs)
    done = states["completed"] + states["diverged"]
    if done < len(study.runs):
        rest = ", ".join(
            f"{count:,} {'not started' if state == 'new' else state}"
            for state, count in sorted(states.items())
            if state not in ("completed", "diverged")
        )
        yield Notice(
            "unfinished",
            f"Unfinished: {done:,} of {plural(len(study.runs), 'run')} have a result ({rest}). "
            "Everything below is of these alone.",
        )
    failed = [run for run in study.runs if run.state in ("failed", "damaged")]
    if failed:
        shown = "; ".join(
            f"{run.folder.name}: {_first_line(run.problem) or run.state}" for run in failed[:5]
        )
        more = f"; and {len(failed) - 5:,} more" if len(failed) > 5 else ""
        yield Notice(
            "failed", f"{plural(len(failed), 'run')} failed or cannot be read: {shown}{more}"
        )
    if study.experiment.profile == "quick" or len(study.seeds) < SEEDS_FOR_A_VERDICT:
        quick = "the profile quick is in force, " * (study.experiment.profile == "quick")
        yield Notice(
            "indicative",
            f"Indicative only: {quick}{plural(len(study.seeds), 'seed')}; "
            f"{SEEDS_FOR_A_VERDICT} are needed for a verdict.",
        )
    lost = states["diverged"]
    if lost:
        yield Notice(
            "other",
            f"{plural(lost, 'run')} diverged: counted in the tables, part of no mean.",
        )
    if study.others:
        yield Notice(
            "other",
            f"{plural(study.others, 'run')} in the folder that the experiment's file does not "
            "describe: left out.",
        )


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]
