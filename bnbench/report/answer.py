"""The answer in a sentence or two, and what a reader must know before believing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from bnbench.config import metrics, registration
from bnbench.report import words
from bnbench.report.comparing import of_cells
from bnbench.report.remarks import (
    LARGE,
    ends_of_grids,
    eval_mode,
    further,
    short_warmups,
    with_batch_size,
)
from bnbench.report.study import OtherRun, StudiedRun, Study, chance_level
from bnbench.stats.differences import SEEDS_FOR_AN_INTERVAL
from bnbench.stats.verdict import SEEDS_FOR_A_VERDICT, Conclusion, seeds_to_support
from bnbench.store import Record
from bnbench.wording import counted, cut, listing

SAID: dict[Conclusion, str] = {
    "supported": "Supported",
    "refuted": "Refuted",
    "negligible": "Too small to matter",
    "inconclusive": "Not decided",
}
NAMED_CLAIMS = 4
"""More claims of one outcome are only counted."""
NAMED_OTHERS = 2


class Notice(NamedTuple):
    """What stands above everything else."""

    kind: Literal["unfinished", "failed", "indicative", "other"]
    text: str


def answer(study: Study, claims: Sequence[Record]) -> list[str]:
    """The answer: of the record's claims if there are any, else of the cells."""
    return [*of_claims(claims), *further(study, claims)] if claims else [*of_cells(study)]


def of_claims(claims: Sequence[Record]) -> Iterator[str]:
    """A sentence for each claim, or how many have an outcome."""
    for outcome, said in SAID.items():
        found = [each for each in claims if each["outcome"] == outcome]
        if len(found) > NAMED_CLAIMS:
            yield f"{said}: {len(found)} of {counted(len(claims), 'claim')}."
            continue
        for each in found:
            yield f"{said}{words.limited(each)}: {_in_a_sentence(each)}"


def _without_images(claims: Sequence[Record]) -> Iterator[Notice]:
    """Claims about test images whose interval is over seeds alone."""
    lacking = [
        each
        for each in claims
        if metrics.of_test_images(metrics.parse_metric(each["metric"]))
        and each["effect"] is not None
        and each["effect"]["mean"] is not None
        and each["effect"]["over_images"] is None
        and each["effect"]["n"] >= SEEDS_FOR_AN_INTERVAL
        and each["unit"] == "points"
    ]
    if lacking:
        has, whose = ("has", "its") if len(lacking) == 1 else ("have", "their")
        yield Notice(
            "other",
            f"{counted(len(lacking), 'claim')} {has} no interval over seeds and images: not all of "
            f"{whose} runs were tested on the same images and say which were right, as those of "
            "earlier versions do not.",
        )


def _in_a_sentence(claim: Record) -> str:
    effect, reasons = claim["effect"], claim["reasons"]
    said, why = [], ""
    if effect is not None:
        said.append(words.effect(effect, claim["unit"]) + words.also(claim))
    if images := words.over_images(claim):
        said.append(images)
    if claim["outcome"] == "refuted" and len(claim["better"]) == len(claim["worse"]) == 1:
        said.append(f"the other way round: {claim['worse'][0]['words']} does better")
    if claim["leaning"]:
        said.append(words.LEANINGS[claim["leaning"]])
    if reasons:
        more = f" (and {counted(len(reasons) - 1, 'other reason')})" if len(reasons) > 1 else ""
        why = f" Why not decided: {reasons[0].rstrip('.')}{more}."
    size = f" ({'; '.join(said)})" if said else ""
    limits = "".join(f" {remark}." for remark in claim["remarks"])
    return f"{claim['says'].strip().rstrip('.')}{size}.{limits}{why}"


def registered(study: Study) -> Record | None:
    """When the file was registered, what has changed since, and how many runs are older; None of a
    file that was not."""
    then = study.experiment.registered
    if then is None:
        return None
    lines = registration.decided(study.experiment, (run.config for run in study.runs))
    manifests = [run.manifest for run in study.runs if run.manifest is not None]
    return {
        "date": then.date,
        "sha256": then.sha256,
        "changed": registration.changes(then, lines),
        "runs_before": sum(each["started_utc"] < then.date for each in manifests),
    }


def _registered(found: Record) -> Iterator[Notice]:
    """Whether what is judged was decided before."""
    changed, before, date = found["changed"], found["runs_before"], found["date"][:10]
    told = f"As registered on {date}."
    if changed:
        told = f"Changed since it was registered on {date}: {cut(changed, '; ')}."
    if before:
        told += f" {counted(before, 'run')} began before it was registered."
    yield Notice("other", told)


def notices(study: Study, claims: Sequence[Record], found: Record | None) -> Iterator[Notice]:
    """Unfinished, failed, few seeds, runs that are not of the file.

    `claims` and `found`: claims and registration of the record.
    """
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
        shown = [
            f"{run.name}: {(run.problem or '').strip().partition(chr(10))[0] or run.state}"
            for run in failed
        ]
        told = f"{counted(len(failed), 'run')} failed or cannot be read: {cut(shown, '; ', 'runs')}"
        yield Notice("failed", told)
    seeds = max(len(cell.runs) for cell in study.cells)
    needed = seeds_to_support([claim.direction for claim in study.experiment.claims])
    if seeds < needed:
        purpose = "for a verdict"
        if needed > SEEDS_FOR_A_VERDICT:
            purpose = f"to decide {counted(len(study.experiment.claims), 'claim')}"
        told = f"Indicative only: {counted(seeds, 'seed')}; {needed} are needed {purpose}."
        yield Notice("indicative", told)
    chosen = [run for cell in study.chosen for run in cell.runs]
    if diverged := sum(run.state == "diverged" for run in chosen):
        runs = counted(diverged, "run")
        where = _where(study, lambda run: run.state == "diverged")
        hints = "".join(f" {hint}" for hint in short_warmups(study))
        yield Notice("other", f"{runs} diverged, part of no mean: {where}.{hints}")
    lost = sum(run.at_chance for run in chosen)
    if lost and study.classes:
        told = f"{counted(lost, 'run')} did not learn: {_where(study, lambda run: run.at_chance)}"
        level, chance = (words.percent(x) for x in (chance_level(study.classes), 1 / study.classes))
        yield Notice("other", f"{told}. Test accuracy is below {level} %; chance is {chance} %.")
    if claims:  # else they are in the answer
        for remark in (*with_batch_size(study), *ends_of_grids(study), *eval_mode(study, LARGE)):
            yield Notice("other", remark)
    yield from () if found is None else _registered(found)
    yield from _looks(study.experiment.looks)
    yield from _given_up(study)
    yield from _without_images(claims)
    yield from (Notice("other", note) for note in study.notes)
    for reason in dict.fromkeys(run.reason for run in study.others):
        same = [run for run in study.others if run.reason == reason]
        named = "; ".join(map(_other, same))
        if len(same) > NAMED_OTHERS:
            named = f"{counted(len(same), 'run')}; the page lists them"
        yield Notice("other", f"Not in this report, since {reason}: {named}")


def _looks(numbers: Sequence[int]) -> Iterator[Notice]:
    """At how many seeds claims were judged, where that was not once."""
    if numbers:
        yield Notice(
            "other",
            f"Looks at {listing(map(str, numbers), 'and')} seeds, which were added for undecided "
            "claims alone. What is said of claims is corrected for all looks; intervals of single "
            "setups are not.",
        )


def _given_up(study: Study) -> Iterator[Notice]:
    """What racing left out, which is neither diverged nor missing."""
    cells = [cell for cell in study.cells if cell.key in study.given_up]
    if cells:
        after = sorted({len(cell.runs) for cell in cells})
        seeds = f"{after[0]} to {after[-1]} seeds" if len(after) > 1 else counted(after[0], "seed")
        of = counted(sum(map(len, study.trials)), "cell")
        yield Notice(
            "other",
            f"Tuned by racing: {len(cells)} of {of} were given up after {seeds}, worse on "
            "validation than the chosen one; their other seeds were never trained.",
        )


def _where(study: Study, lost: Callable[[StudiedRun], bool]) -> str:
    """In which of the chosen cells, and how many of how many seeds."""
    counts = [(sum(map(lost, cell.runs)), cell) for cell in study.chosen]
    said = [
        f"{count} of {counted(len(cell.runs), 'seed')} of {study.named(cell)}"
        for count, cell in counts
        if count
    ]
    return cut(said, "; ", "cells")


def _other(run: OtherRun) -> str:
    score = "" if run.test_accuracy is None else f", test {words.percent(run.test_accuracy)} %"
    return f"{run.called} ({run.state}{score})"
