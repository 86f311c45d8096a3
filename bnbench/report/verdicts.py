"""The claims of an experiment, judged from its runs: paired differences, objections, verdicts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isinf, isnan, log2
from typing import NamedTuple, TypeAlias

import numpy as np

from bnbench.config import claims, experiments, metrics
from bnbench.report import objections
from bnbench.report.quantities import POINTS, of_images, quantity
from bnbench.report.study import StudiedRun, Study
from bnbench.stats.differences import Floats, probability_of_superiority, slope
from bnbench.stats.effect import Effect, effect
from bnbench.stats.verdict import Verdict, judge
from bnbench.wording import counted, in_words, key_words, listing, point_words

Seed: TypeAlias = int | str
"""What pairs runs; in the tables of others it may be a word."""


class Side(NamedTuple):
    """One arm of a claim: its metric by seed, in the metric's unit.

    ±inf where a run diverged or never reached the target. `words`: the setup with its values.
    `runs`: the names of those that count. `of_seeds`: these, by seed. `ends`: said
    where a grid ends at the best value tried, so that this side may be better than was seen.
    `steps`: how many runs took that completed.
    """

    arm: experiments.Arm
    words: str
    values: dict[Seed, float]
    diverged: int
    missing: int
    runs: frozenset[str]
    of_seeds: Mapping[Seed, Sequence[StudiedRun]]
    ends: tuple[str, ...] = ()
    steps: frozenset[int] = frozenset()


@dataclass(slots=True)
class Judged:
    """A claim with its verdict.

    `pairs`: the difference at each seed, oriented so that + favours the claim (two-sided: better
    minus worse); NaN where both sides are infinite: no difference was seen. `effect`: what they
    amount to. `objections`: to judging by them. `trials`: by arm, among how many values of the
    tuned axis its setup could choose. `tested_on`: the datasets of its runs, with their folders or
    functions. `remarks`: what the verdict holds for, where that is less than its sentence says.
    `conditions`: in a few words what else it is a verdict about: steps that differ, runs at chance.
    `look`: at how many seeds that was, where they are added in looks.
    """

    claim: experiments.Claim
    verdict: Verdict = field(init=False)  # of the whole family, when all are measured
    better: tuple[Side, ...] = ()
    worse: tuple[Side, ...] = ()
    pairs: dict[Seed, float] = field(default_factory=dict)
    effect: Effect | None = None
    objections: list[str] = field(default_factory=list)
    trials: dict[str, int] = field(default_factory=dict)
    tested_on: set[tuple[str, str]] = field(default_factory=set)
    remarks: list[str] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)
    look: str | None = None

    @property
    def open(self) -> bool:
        """Whether more seeds might decide it."""
        return self.verdict.outcome == "inconclusive" and not self.objections

    @property
    def values(self) -> list[float]:
        """Of all sides and seeds."""
        return [value for side in (*self.better, *self.worse) for value in side.values.values()]

    @property
    def signed(self) -> list[tuple[int, Side]]:
        """Each side with the sign that its values have in the differences."""
        turn = -1 if self.claim.direction == "down" else 1
        signs = *(turn, -turn)[: len(self.better)], *(-turn, turn)[: len(self.worse)]
        return list(zip(signs, (*self.better, *self.worse), strict=True))

    @property
    def unit(self) -> str:
        """Of the differences."""
        return self.claim.unit

    @property
    def superiority(self) -> float | None:
        """P(better > worse) over all pairs of seeds, oriented as the differences are."""
        if len(self.better) != 1 or len(self.worse) != 1:
            return None
        better, worse = (list(side[0].values.values()) for side in (self.better, self.worse))
        if not better or not worse:
            return None
        above = probability_of_superiority(better, worse)
        return 1 - above if self.claim.direction == "down" else above


def at_once(study: Study, *, share: float = 1.0, standing: Sequence[Judged] = ()) -> list[Judged]:
    """Every claim, in the file's order, judged by all runs; one family for Holm's correction, in
    which those that are `standing` keep their verdict. `share`: of the error that may be spent."""
    kept = {each.claim.id: each for each in standing}
    cells = {run.cell: run.config for run in study.runs}
    doubted = claims.doubts(study.experiment.claims, cells.values(), study.experiment.tune)
    refused = {claim.id: [reason] for claim, reason in doubted}
    found = [
        kept.get(claim.id) or Judged(claim, objections=refused.get(claim.id, []))
        for claim in study.experiment.claims
    ]
    for each in found:
        if each.claim.id not in kept | refused:
            _measure(each, study, share)
    return concluded(found, kept)


def concluded(family: list[Judged], kept: Collection[str] = ()) -> list[Judged]:
    """The same with the verdicts of claims that were measured: they are one family. `kept`: ids of
    those that have theirs."""
    verdicts = judge([(each.effect, each.objections) for each in family])
    for each, verdict in zip(family, verdicts, strict=True):
        if each.claim.id not in kept:
            each.verdict = verdict
            if each.open:  # the ends of its grids are no objections, but a way on
                ends = [end for side in (*each.better, *each.worse) for end in side.ends]
                more = (f"{end}: beyond it the difference could only grow" for end in ends)
                each.verdict = replace(verdict, reasons=(*verdict.reasons, *more))
    return family


def _measure(found: Judged, study: Study, share: float) -> None:
    """Fill in sides, differences and objections."""
    claim = found.claim
    found.better = tuple(_side(found, arm, study) for arm in claim.better_arms)
    found.worse = tuple(_side(found, arm, study) for arm in claim.worse_arms)
    if len(set(found.trials.values())) > 1:
        counts = ", ".join(f"{setup}: {count}" for setup, count in found.trials.items())
        found.objections.append(f"unequal trials to choose from ({counts})")
    seen = paired(found, study.seeds)
    found.objections += objections.failed_checks(claim, found.values, study)
    found.conditions[:0] = _other_steps(found)
    measure(found, seen, share)
    up = objections.moved(claim, study.experiment.tune)
    found.objections += [
        said
        for sign, side in found.signed
        for said in side.ends
        if objections.could_turn(sign * up, found.effect)
    ]


def _other_steps(found: Judged) -> Iterator[str]:
    """`93 steps of bn at batch size 16 against 1,500 of bn at batch size 2`, where each side took
    one number of steps, and the other another one."""
    if found.worse:
        better, worse = (
            (
                {number for side in sides for number in side.steps},
                listing((side.arm.words for side in sides), "and"),
            )
            for sides in (found.better, found.worse)
        )
        (few, ours), (many, theirs) = better, worse
        if few != many and len(few) == len(many) == 1:
            yield f"{few.pop():,} steps of {ours} against {many.pop():,} of {theirs}"


def paired(found: Judged, seeds: Iterable[Seed]) -> list[float]:
    """Fill in the differences of the seeds that both sides have; those that are a number."""
    for seed in seeds:
        sides = [[side.values.get(seed) for side in part] for part in (found.better, found.worse)]
        if any(value is None for part in sides for value in part):
            continue
        difference = _parts(sides[0]) - _parts(sides[1])
        found.pairs[seed] = -difference if found.claim.direction == "down" else difference
    seen = [value for value in found.pairs.values() if not isnan(value)]
    if found.pairs and not seen:
        found.objections.append("no run on either side reached the target, or all diverged")
    return seen


def measure(found: Judged, seen: Sequence[float], share: float = 1.0) -> None:
    """Fill in what the differences amount to, or an objection where there is none. `share`: of the
    error that may be spent on them."""
    claim = found.claim
    if found.pairs:
        found.effect = effect(
            seen,
            smallest_effect=claim.smallest_effect,
            direction=claim.direction,
            ties=len(found.pairs) - len(seen),
            table=_of_images(found),
            most=_most(claim),
            share=share,
        )
    elif not found.objections:
        found.objections.append("no seed has a value on both sides")


def _of_images(found: Judged) -> Floats | None:
    """(seeds, images): what each test image adds to each difference; None where a seed does not
    say, and where not all were tested on the same images."""
    if len(found.tested_on) != 1:
        return None
    rows = list[Floats]()
    for seed in found.pairs:
        parts = list[Floats]()
        for sign, side in found.signed:
            each = _image_values(found.claim, side.of_seeds.get(seed, ()))
            if each is None or any(len(other) != len(each) for other in (*parts, *rows[:1])):
                return None
            parts.append(sign * each)
        rows.append(np.sum(parts, axis=0))
    return np.stack(rows)


def _most(claim: experiments.Claim) -> float:
    """How large a difference can be: shares are between 0 and 100 %, their gaps within ± 100."""
    metric, arms = claim.measured, len(claim.better_arms) + len(claim.worse_arms)
    if claim.log or claim.slope_over is not None or metrics.unit(metric) != "points":
        return inf
    share = isinstance(metric, metrics.EndReading) or "disagreement" in claim.metric
    return POINTS * (max(1.0, arms / 2) if share else arms)  # others are differences themselves


def _parts(values: Sequence[float | None]) -> float:
    """The first, minus the second where there are two; 0 for an opponent that is not there."""
    numbers = [value for value in values if value is not None]
    return sum(numbers[:1]) - sum(numbers[1:])


def _side(found: Judged, arm: experiments.Arm, study: Study) -> Side:
    """The values of one arm; what speaks against judging by them goes to `found`."""
    claim = found.claim
    runs = [run for run in study.runs if claims.of_arm(arm, run.config, claim.at)]
    words, ends = [arm.words, *([point_words(claim.at)] * bool(claim.at))], list[str]()
    axis = study.tuned_axis or ""
    if claims.takes_best(claim, arm, study.experiment.tune):
        names = {run.name for run in runs}
        inside = [(cell, [run for run in cell.runs if run.name in names]) for cell in study.chosen]
        runs = [run for _, some in inside for run in some]
        choices = [study.choice.get(cell.key) for cell, some in inside if some]
        taken = [each for n, each in enumerate(choices) if each and each not in choices[:n]]
        ends += objections.end_of_grid(arm, axis, taken)
        if taken:
            count = found.trials[arm.words] = len(taken[0].values)
            chosen = in_words(taken[0].value)
            words.append(f"{key_words(axis)} {chosen} (best of {count})")
    of_seeds: dict[Seed, list[StudiedRun]] = {seed: [] for seed in study.seeds}
    for run in runs:
        of_seeds[run.seed].append(run)
    read = {seed: _value(claim, of_seed) for seed, of_seed in of_seeds.items()}
    values = {seed: value for seed, value in read.items() if value is not None}
    where = "root", "target", "options"
    found.tested_on |= {
        (run.config.data.dataset, str([getattr(run.config.data, key, None) for key in where]))
        for run in runs
    }
    missing = len(study.seeds) - len(values)
    undone = [run for run in runs if run.result is None]
    if missing and undone:
        states = ", ".join(sorted({run.state for run in undone}))
        found.objections.append(
            f"{arm.words}: {len(undone)} of {len(runs)} runs have no result ({states})"
        )
    elif missing:
        found.objections.append(f"{arm.words}: no such value of {counted(missing, 'seed')}")
    if isinstance(claim.measured, metrics.UsableLr):
        ends += objections.still_usable(claim, arm, runs)
    elif isinstance(claim.measured, metrics.ProbeReading) and claim.target is not None:
        found.objections += objections.not_learned(arm, runs, claim.target)
    remarks = list(objections.at_one_rate(claim, arm, runs, study))
    found.remarks += remarks
    found.conditions += [] if remarks else objections.at_chance(claim, arm, runs)
    diverged = sum(run.state == "diverged" for run in runs)
    counted_runs = frozenset(run.name for run in runs)
    steps = frozenset(run.result.steps for run in runs if run.result and run.state == "completed")
    told = ", ".join(words), values, diverged, missing
    return Side(arm, *told, counted_runs, of_seeds, tuple(ends), steps)


def _value(claim: experiments.Claim, runs: Sequence[StudiedRun]) -> float | None:
    """The claim's metric of one seed: of its run, or its slope over the runs along an axis."""
    of_all = isinstance(claim.measured, metrics.UsableLr)
    if claim.slope_over is None or of_all:
        return _quantity(claim, runs) if of_all or len(runs) == 1 else None
    along = [run for run in runs if run.point.get(claim.slope_over) is not None]
    readings = [_quantity(claim, [run]) for run in along]
    finite = [value for value in readings if value is not None and not isinf(value)]
    if len(finite) < len(readings) or len(finite) < 2:
        return None
    return slope([log2(run.point[claim.slope_over]) for run in along], finite)


def _image_values(claim: experiments.Claim, runs: Sequence[StudiedRun]) -> Floats | None:
    """The same for each test image: (images,), with the value as their mean; None if not known."""
    read = [of_images(claim.measured, run) for run in runs]
    known = [each for each in read if each is not None]
    if claim.log or len(known) < len(read) or len({len(each) for each in known}) != 1:
        return None
    if claim.slope_over is None:
        return known[0] if len(known) == 1 else None
    across = np.log2([run.point[claim.slope_over] for run in runs])
    across -= across.mean()
    return np.asarray(across @ np.stack(known) / (across @ across))


def _quantity(claim: experiments.Claim, runs: Sequence[StudiedRun]) -> float | None:
    value = quantity(claim.measured, runs, target=claim.target, when=claim.when)
    if value is None or not claim.log:
        return value
    return log2(value) if value > 0 else None
