"""A study whose seeds are added until its claims are decided: which runs it asks for, and verdicts.

All of it follows from the experiment's file and the runs, look by look, so that whoever reads the
folder comes to the same verdicts. The first look is of all runs with the first seeds, later ones
of those that an open claim is about. A claim that a look decides keeps that verdict. One to which
something is objected gets no further seeds, which would not help. What follows a look that lacks
runs is not read: between looks there is no verdict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from bnbench.config import claims
from bnbench.report.study import Study
from bnbench.report.verdicts import Judged, at_once
from bnbench.stats.looks import shares
from bnbench.stats.verdict import judge
from bnbench.wording import counted

ENDED = ("completed", "diverged", "failed", "damaged")


class Look(NamedTuple):
    """What is known at a number of seeds.

    `study`: with the runs that were asked for until then. `lacking`: how many of them have not
    ended; if any, `claims` are those of the look before.
    """

    seeds: int
    study: Study
    lacking: int
    claims: list[Judged]


def looks(study: Study) -> Iterator[Look]:
    """Every look that its runs have come to, at least one. The study may hold further runs."""
    numbers, found, names = study.experiment.looks, list[Judged](), set[str]()
    for seeds, share in zip(numbers, shares(len(numbers)), strict=True):
        some = set(study.experiment.seeds[:seeds])
        wanted = tuple(each.claim for each in found if each.open)
        names |= {
            run.name
            for run in study.runs
            if run.seed in some and (not found or claims.concern(wanted, run.config))
        }
        here = replace(study, runs=tuple(run for run in study.runs if run.name in names))
        lacking = sum(run.state not in ENDED for run in here.runs)
        if not lacking:
            found = at_once(here, share=share, standing=[each for each in found if not each.open])
            for each in found:
                each.look = each.look or _told(each, seeds, numbers[-1])
        yield Look(seeds, here, lacking, found)
        if lacking or not any(each.open for each in found):
            return


def _told(found: Judged, seeds: int, most: int) -> str:
    """What a look says of a claim."""
    if found.verdict.outcome != "inconclusive":
        return f"decided at {seeds} of at most {most} seeds"
    if not found.open:
        return f"no more than {seeds} seeds: others would not decide it"
    at = "the most," if seeds == most else f"{seeds} of at most"
    return f"undecided at {at} {most} seeds"


def asked(study: Study) -> Study:
    """The study with the runs alone that its looks have asked for; as it is, where it has none."""
    if not study.experiment.looks:
        return study
    *_, last = looks(study)
    return last.study


def judged(study: Study) -> list[Judged]:
    """Every claim of the experiment, in the file's order; one family for Holm's correction."""
    if not study.experiment.looks:
        return at_once(study)
    *_, last = looks(study)
    lacks = f"the look at {last.seeds} seeds lacks {counted(last.lacking, 'run')}"
    if not last.claims:  # before the first look no number is a verdict's
        found = [Judged(claim) for claim in study.experiment.claims]
        for each, verdict in zip(found, judge([(None, (lacks,))] * len(found)), strict=True):
            each.verdict = verdict
        return found
    for each in last.claims if last.lacking else ():
        if each.open:
            each.verdict = replace(each.verdict, reasons=(lacks, *each.verdict.reasons))
    return last.claims
