"""The answer in a sentence or two, and what a reader must know before believing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from bnbench.report import words
from bnbench.report.study import Cell, OtherRun, Study
from bnbench.report.verdicts import Judged
from bnbench.stats.differences import paired_t_interval
from bnbench.stats.verdict import SEEDS_FOR_A_VERDICT, Conclusion, seeds_to_support
from bnbench.wording import counted

SAID: dict[Conclusion, str] = {
    "supported": "Supported",
    "refuted": "Refuted",
    "negligible": "Too small to matter",
    "inconclusive": "Not decided",
}
LEANINGS: dict[str | None, str] = {"for": "it leans towards yes", "against": "it leans towards no"}
NAMED_CLAIMS = 4
"""More claims of one outcome are only counted."""
NAMED_FAILURES = 5
NAMED_OTHERS = 8


class Notice(NamedTuple):
    """What stands above everything else."""

    kind: Literal["unfinished", "failed", "indicative", "other"]
    text: str


def answer(study: Study, claims: Sequence[Judged]) -> list[str]:
    """The answer: of the claims if there are any, else of the table."""
    return list(_of_claims(claims) if claims else _of_table(study))


def _of_claims(claims: Sequence[Judged]) -> Iterator[str]:
    for outcome, said in SAID.items():
        found = [each for each in claims if each.verdict.outcome == outcome]
        if len(found) > NAMED_CLAIMS:
            yield f"{said}: {len(found)} of {counted(len(claims), 'claim')}."
            continue
        for each in found:
            yield f"{said}: {_in_a_sentence(each)}"


def _in_a_sentence(each: Judged) -> str:
    effect, reasons = each.verdict.effect, each.verdict.reasons
    says = each.claim.says.strip().rstrip(".")
    why = ""
    if reasons:
        more = f" (and {counted(len(reasons) - 1, 'other reason')})" if len(reasons) > 1 else ""
        why = f"Why not decided: {reasons[0].rstrip('.')}{more}."
    if effect is None:
        return f"{says}. {why}"
    ends = words.interval(effect.interval, each.unit)
    middle, of_what, sure = effect.mean, "mean", f"95 % interval {ends}"
    if middle is None:
        middle, of_what = effect.median, "median"
        sure = f"{words.percent(effect.coverage)} % interval {ends}"
    if effect.n == 1:
        sure = "one seed, no interval"
    size = f"{of_what} {words.difference(middle, each.unit)}, {sure}, {counted(effect.n, 'seed')}"
    if each.verdict.outcome != "inconclusive":
        return f"{says} ({size})."
    if each.verdict.leaning in LEANINGS:
        size += f"; indicative: {LEANINGS[each.verdict.leaning]}"
    return f"{says} ({size}). {why}"


def _of_table(study: Study) -> Iterator[str]:
    there = [cell for cell in study.best.values() if cell.completed]
    if not there:
        lost = study.count("diverged")
        why = f": {counted(lost, 'run')} diverged" if lost else ""
        yield f"No run has completed, so there is nothing to compare{why}."
        return
    first, *others = sorted(there, key=_test, reverse=True)
    score = f"{words.percent(_test(first))} % test accuracy"
    score += f" over {counted(len(first.completed), 'seed')}"
    if others:
        tuned = ", each setup at its best values on validation" if study.varying else ""
        yield f"{_named(study, first)} did best: {score}{tuned}."
        yield _lead(study, first, others[0])
    elif len(study.setups) > 1:
        yield f"{_named(study, first)} reached {score}; no other setup has a completed run."
    else:
        yield f"{_named(study, first)} reached {score}."
        yield "There is no other setup to compare it with."


def _lead(study: Study, first: Cell, second: Cell) -> str:
    """By how much over the runner-up, seed by seed, and how sure that is."""
    name = _named(study, second)
    mine, its = (
        {run.seed: value for run in cell.runs if (value := run.metric("test_accuracy")) is not None}
        for cell in (first, second)
    )
    pairs = [100 * (mine[seed] - its[seed]) for seed in mine if seed in its]
    if not pairs:
        gap = words.difference(100 * (_test(first) - _test(second)), "points")
        return f"The runner-up is {name}, {gap} behind; they share no completed seed."
    lead = sum(pairs) / len(pairs)
    if len(pairs) == 1:
        return (
            f"{name} follows, {words.difference(-lead, 'points')} at the one seed that both have: "
            "one seed says nothing about chance."
        )
    low, high = paired_t_interval(pairs)
    told = (
        f"Over {name} that is {words.difference(lead, 'points')} (95 % interval "
        f"{words.interval((low, high), 'points')}, {counted(len(pairs), 'pair')} of runs)"
    )
    if low <= 0 <= high:
        return f"{told}: within noise, the two cannot be told apart."
    if len(pairs) < SEEDS_FOR_A_VERDICT:
        return f"{told}: indicative only, {SEEDS_FOR_A_VERDICT} seeds are needed for more."
    return f"{told}. The two were picked after looking, which flatters the lead; a claim would not."


def _test(cell: Cell) -> float:
    found = cell.values("test_accuracy")
    return sum(found) / len(found) if found else float("-inf")


def _named(study: Study, cell: Cell) -> str:
    point = study.cell_words(cell.point)
    return f"{cell.setup} ({point})" if point else cell.setup


def notices(study: Study) -> Iterator[Notice]:
    """Unfinished, failed, few seeds, runs that are not of the file."""
    states = Counter(str(run.state) for run in study.runs)
    if states["completed"] + states["diverged"] < len(study.runs):
        done = states["completed"] + states["diverged"]
        rest = ", ".join(
            f"{count:,} {'not started' if state == 'new' else state}"
            for state, count in sorted(states.items())
            if state not in ("completed", "diverged")
        )
        yield Notice(
            "unfinished",
            f"Unfinished: {done:,} of {counted(len(study.runs), 'run')} have a result ({rest}). "
            "Everything below is of these alone.",
        )
    failed = [run for run in study.runs if run.state in ("failed", "damaged")]
    if failed:
        shown = "; ".join(
            f"{run.name}: {(run.problem or '').strip().partition(chr(10))[0] or run.state}"
            for run in failed[:NAMED_FAILURES]
        )
        left = len(failed) - NAMED_FAILURES
        more = f"; and {left:,} more" if left > 0 else ""
        told = f"{counted(len(failed), 'run')} failed or cannot be read: {shown}{more}"
        yield Notice("failed", told)
    seeds = max(len(cell.runs) for cell in study.cells)
    needed = seeds_to_support([claim.direction for claim in study.experiment.claims])
    if seeds < needed:
        purpose = "for a verdict"
        if needed > SEEDS_FOR_A_VERDICT:
            purpose = f"to support {counted(len(study.experiment.claims), 'claim')}"
        told = f"Indicative only: {counted(seeds, 'seed')}; {needed} are needed {purpose}."
        yield Notice("indicative", told)
    if states["diverged"]:
        runs = counted(states["diverged"], "run")
        yield Notice("other", f"{runs} diverged: counted in the tables, part of no mean.")
    yield from (Notice("other", note) for note in study.notes)
    for reason in dict.fromkeys(run.reason for run in study.others):
        same = [run for run in study.others if run.reason == reason]
        named = "; ".join(map(_other, same[:NAMED_OTHERS]))
        more = f"; and {len(same) - NAMED_OTHERS:,} more, all of them in report.json"
        told = f"Not in this report, since {reason}: {named}"
        yield Notice("other", told + more * (len(same) > NAMED_OTHERS))


def _other(run: OtherRun) -> str:
    score = "" if run.test_accuracy is None else f", test {words.percent(run.test_accuracy)} %"
    return f"{run.called} ({run.state}{score})"
