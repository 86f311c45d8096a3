"""A study whose seeds are added as they are needed: which runs it asks for, and verdicts.

All of it follows from the experiment's file and the runs, look by look, so that whoever reads the
folder comes to the same verdicts. The first look is of all runs with the first seeds, later ones
of those that an open claim is about. A claim that a look decides keeps that verdict. One to which
something is objected gets no further seeds, which would not help. What follows a look that lacks
runs is not read: between looks there is no verdict.

With `tune: {race: true}` values of the tuned axis are compared at each look, and before the first
one, without a verdict (`stats.racing`). One that is given up gets no further seeds and is not
chosen; one that a claim asks for by its value is not given up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from bnbench.config import claims, experiments, schema
from bnbench.report.study import Study
from bnbench.report.verdicts import Judged, at_once, concluded
from bnbench.stats.looks import shares
from bnbench.stats.racing import is_worse, rounds
from bnbench.wording import counted

ENDED = ("completed", "diverged", "failed", "damaged")


class Look(NamedTuple):
    """What is known at a number of seeds.

    `study`: with the runs that were asked for until then. `lacking`: how many of them have not
    ended; if any, `claims` are those of the look before. Before the first verdict there are none.
    """

    seeds: int
    study: Study
    lacking: int
    claims: list[Judged]


def looks(study: Study, left_out: Collection[str] = ()) -> Iterator[Look]:
    """Every look that its runs have come to, at least one. The study may hold further runs.
    `left_out`: cells whose runs it does not wait for."""
    numbers, found, names = study.experiment.stages, list[Judged](), set[str]()
    spent = dict(zip(numbers, shares(len(numbers)), strict=True))
    study = replace(study, given_up=frozenset())  # it may be what looks have left
    for seeds in stops(study.experiment):
        some, study = set(study.experiment.seeds[:seeds]), _compared(study, names, found)
        cells = needed(study, found)
        names |= {run.name for run in study.runs if run.seed in some and run.cell in cells}
        here = replace(study, runs=tuple(run for run in study.runs if run.name in names))
        lacking = sum(run.state not in ENDED and run.cell not in left_out for run in here.runs)
        if not lacking and seeds in spent:
            standing = [each for each in found if not each.open]
            found = at_once(here, share=spent[seeds], standing=standing)
            for each in found if study.experiment.looks else ():
                if each.effect is not None:  # of claims that are left out there is none
                    each.look = each.look or _told(each, seeds, numbers[-1])
        yield Look(seeds, here, lacking, found)
        if lacking or (seeds in spent and not any(each.open for each in found)):
            return


def stops(experiment: experiments.ExperimentConfig) -> tuple[int, ...]:
    """Numbers of seeds at which it is decided what is trained next: looks, and those of the race
    before them."""
    return rounds(experiment.stages) if experiment.raced else experiment.stages


def needed(study: Study, found: Sequence[Judged]) -> set[str]:
    """The cells whose further seeds verdicts may need. `found`: those of the last look."""
    wanted = tuple(each.claim for each in found if each.open)
    return {
        cell for cell, config in _cells(study)
        if cell not in study.given_up and (not found or claims.concern(wanted, config))
    }  # fmt: skip


def _compared(study: Study, names: Collection[str], found: Sequence[Judged]) -> Study:
    """The study with those cells given up that the runs of these names show to be worse than the
    best one of as many seeds, and that no claim asks for by their value."""
    if not study.experiment.raced:
        return study
    wanted = tuple(each.claim for each in found if each.open) or study.experiment.claims
    named = {
        cell for cell, config in _cells(study)
        if claims.concern(wanted, config, study.experiment.tune)
    }  # fmt: skip
    may_go = needed(study, found) - named
    here = replace(study, runs=tuple(run for run in study.runs if run.name in names))
    worse = set[str]()
    for cells in here.trials:
        best, quantity = here.taken(cells), study.tuned_by
        worse |= {
            cell.key for cell in cells
            if best is not None and cell.key in may_go and len(cell.runs) == len(best.runs)
            and is_worse(cell.validation(quantity), best.validation(quantity),
                         higher=quantity == "accuracy")
        }  # fmt: skip
    return replace(study, given_up=study.given_up | worse)


def _cells(study: Study) -> Iterable[tuple[str, schema.RunConfig]]:
    """Each with the configuration of one of its seeds."""
    return {run.cell: run.config for run in study.runs}.items()


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
    if not study.experiment.stages:
        return study
    *_, last = looks(study)
    return last.study


def _left_out(study: Study) -> frozenset[str]:
    """Cells of which no run has been begun, if they are not of every claim: `sweep --claim` leaves
    those of other claims out, and they must not hold up its verdicts."""
    begun = {run.cell for run in study.runs if run.state != "new"}
    waiting = {cell: config for cell, config in _cells(study) if cell not in begun}
    ready = [
        each for each in study.experiment.claims
        if not any(claims.concern((each,), config) for config in waiting.values())
    ]  # fmt: skip
    return frozenset(waiting if ready else ())


def judged(study: Study) -> list[Judged]:
    """Every claim of the experiment, in the file's order; one family for Holm's correction."""
    if not study.experiment.stages:
        return at_once(study)
    *_, last = looks(study, _left_out(study))
    lacks = f"the look at {last.seeds} seeds lacks {counted(last.lacking, 'run')}"
    if not last.claims:  # before the first look no number is a verdict's
        every = study.experiment.claims
        return concluded([Judged(claim, objections=[lacks]) for claim in every])
    for each in last.claims if last.lacking else ():
        if each.open:
            each.verdict = replace(each.verdict, reasons=(lacks, *each.verdict.reasons))
    return last.claims
