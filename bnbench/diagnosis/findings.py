"""From what was measured to what is wrong: each finding from the evidence that only it explains.

`findings.md` says of each what it looks like, what gives it away and what to do. Here is what the
layers, their statistics and the images show; `causes` and `history` have the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import sqrt

from bnbench.catalogue import FINDINGS
from bnbench.diagnosis import causes, criteria, history
from bnbench.diagnosis.case import Case, worst_of
from bnbench.diagnosis.criteria import harms, off
from bnbench.diagnosis.result import (
    RECALIBRATE,
    Finding,
    LayerReading,
    by_a_factor,
    finding,
    percent,
    said_once,
)

NO_REASON = {
    *("distribution-shift", "dead-channels", "eps-dominates"),
    *("padding-counted", "small-last-batch", "no-running-statistics"),
}
"""Findings that do not say why running statistics are worse than the population's."""


SAY_WHY = {"never-updated", "no-running-statistics"}
"""Findings that say why the modes differ, whether or not it does harm."""


def findings(case: Case) -> tuple[Finding, ...]:
    """What is wrong: what costs something first, then causes before what they lead to."""
    missing = history.missing(case)
    lost = missing.layers if missing else ()
    new = [each for each in case.new if each.name not in lost]
    moved = [each for each in case.tracking if each not in case.new and each.name not in lost]
    found = [
        *causes.in_other_modes(case),
        *([missing] if missing else []),
        *_without_statistics(case, new),
        *_with_other_statistics(case, moved),
        *causes.by_call(case),
        *_in_batches(case),
        *_in_small_batches(case),
        *_over_images(case),
        *_in_channels(case),
    ]
    reasons = {each.name for each in found} - NO_REASON
    if any(
        (each.mean_error or 0.0) > criteria.BY_CHANCE / sqrt(each.window * case.batch_size)
        for each in case.tracking
    ):
        reasons.discard("batch-too-small")
    if case.gap and not reasons:
        mismatch = causes.of_a_mismatch(case)
        if mismatch.name == "mismatched":
            mismatch = history.told_by_counts(case) or mismatch
        found.append(mismatch)
    if not any(each.harmful or each.name in SAY_WHY for each in found):
        found += causes.unexplained(case)
    if case.tracking:
        found += causes.at_chance(case.evidence)
    if not case.gap:
        instead = "recalibrating does not help here"
        if case.worse:
            instead = "do not recalibrate, which makes it worse here"
        found = [replace(each, do=each.do.replace(RECALIBRATE, instead)) for each in found]
    order = list(FINDINGS)
    found.sort(key=lambda each: (not each.harmful, order.index(each.name)))
    return tuple(said_once(found, case.costs))


def _without_statistics(case: Case, new: list[LayerReading]) -> Iterator[Finding]:
    without = [each for each in case.layers if not each.tracks]
    if without:
        yield finding(
            "no-running-statistics",
            f"{case.some(without)} no running statistics (track_running_stats=False): eval() "
            "changes nothing there, and a prediction depends on the other images in the "
            f"batch: {case.changed()} with them in batches of {case.batch_size}",
            without,
            harmful=case.flips() >= criteria.FLIPS,
        )
    if new:
        counted = sum((each.updates or 0) > 0 for each in new)
        why = "they have tracked no batch: never in train(), or their buffers were not loaded"
        if any(each.momentum == 0 for each in new):
            why = "their momentum is 0: nothing of a new batch is taken in"
        elif counted:
            why = f"{counted} of them count batches all the same: they were reset, or not loaded"
        yield finding(
            "never-updated",
            f"{case.some(new)} the mean 0 and the variance 1 of a new layer as running "
            f"statistics; {why}; {case.costs}",
            new,
            harmful=case.gap,
            do="do not recalibrate: the network was trained with them (layers in eval() all "
            "the time?). To normalize at all, let them see train()"
            if case.train in case.worse
            else "",
        )


def _with_other_statistics(case: Case, moved: list[LayerReading]) -> Iterator[Finding]:
    """Running statistics that are not those of these weights: of too few batches, of other ones."""
    if case.gap and (averaged := history.averaged(case, moved)):
        yield averaged
        return
    far = [each for each in moved if off(each)]
    # Updated much less often than another layer, or no more.
    tracks_no_more = [
        each for each in far if getattr(case.norms[each.name], "track_running_stats", 1) is False
    ]
    most = max((each.updates or 0 for each in case.tracking), default=0)
    left_out = [each for each in far if 0 < (each.updates or 0) < criteria.FEWER * most]
    if tracks_no_more and case.gap:
        yield finding(
            "frozen",
            f"{case.some(tracks_no_more)} running statistics that eval() uses and train() no "
            "longer updates (track_running_stats was set to False); layer "
            f"{worst_of(tracks_no_more).name}: {worst_of(tracks_no_more).errors}; {case.costs}",
            tracks_no_more,
            do="recalibrate (--fix), and set track_running_stats to True for further training",
        )
    elif left_out and case.gap:
        worst = worst_of(left_out)
        yield finding(
            "frozen",
            f"layer {worst.name} has tracked {worst.updates:,} batches, other layers "
            f"{most:,} ({case.some(left_out)} stopped); {worst.errors}; {case.costs}",
            left_out,
        )
    fast = [each for each in moved if (each.momentum or 0.0) >= criteria.FAST]
    if fast:
        worst = max(fast, key=lambda each: (each.momentum or 0.0, each.blame or 0.0))
        momentum = worst.momentum or 0.0
        advice = FINDINGS["momentum-too-high"].do
        if 0.9 <= momentum < 1:
            here = f"{1 - momentum:.2g}"
            advice = f"train with {here}: torch's momentum weighs the new batch, TensorFlow's the "
            advice += f"old ones; {momentum:g} there is {here} here"
        yield finding(
            "momentum-too-high",
            f"momentum {momentum:g} is the weight of the new batch: running statistics "
            f"average over {worst.window:.1f} batches; layer {worst.name}: {worst.errors}; "
            f"{case.costs}",
            fast,
            harmful=case.gap,
            do=f"{RECALIBRATE}; {advice}" if case.gap or case.worse else advice,
        )
    far = [each for each in far if each not in left_out]
    new = [each for each in far if criteria.begun(each, case.pools[each.name])]
    slow = [each for each in far if each not in new and (each.momentum or 0.0) <= criteria.SLOW]
    if case.gap and (new or slow):
        usual = all((each.momentum or 0.0) >= criteria.USUAL for each in [*new, *slow])
        yield finding(
            "stale",
            f"{causes.age(worst_of(new or slow), case)}; {worst_of(new or slow).errors}"
            f"{history.or_averaged(case.evidence)}; {case.costs}",
            [*new, *slow],
            do=f"{RECALIBRATE}; train for more steps" if usual else "",
        )


def _in_batches(case: Case) -> Iterator[Finding]:
    images, batch = case.train.images, case.evidence.batch
    own, running = case.train.own.shuffled, case.train.running
    if all(harms(each, batch, loss=criteria.NON_IID_LOSS) for each in (own, running)):
        name = "non-iid-batches"
        what = "the examples in a batch are not as mixed as in shuffled ones"
        mixed = case.mixed()
        if mixed is not None:
            what = "the labels in a batch are as mixed as in shuffled ones, its images are not"
        if mixed is not None and mixed.sorted:
            what = (
                f"a batch of {case.batch_size} holds {mixed.classes:.1f} classes where a "
                f"shuffled one holds {mixed.classes_expected:.1f}"
            )
        elif kinds := criteria.two_kinds(images):
            name = "mixed-domains"
            what = (
                f"{what}: the inputs of {kinds[0]:.0%} of the batches are of another kind "
                f"than the rest, {kinds[1]:.0f} standard deviations of such a kind apart"
            )
        yield finding(
            name,
            f"{what}; {batch.figures} under the statistics of the loader's batches as they "
            f"come, {own.figures} of the same images shuffled, {running.figures} under running "
            "statistics",
        )
    if images.single:
        alone = any(each.alone for each in case.tracking)
        yield finding(
            "small-last-batch",
            f"the {images.loader} loader has a batch of one among batches of {case.batch_size}"
            + ": a layer has one value per channel there, and train() raises" * alone,
            harmful=alone,
        )


def _in_small_batches(case: Case) -> Iterator[Finding]:
    train, own, flips = case.train, case.train.own.shuffled, case.flips()
    size = max(train.sizes)
    largest = train.sizes[size].shuffled
    enough = flips >= max(criteria.FLIPS, criteria.FLIPS_OF_ERRORS * largest.wrong)
    differs = harms(own, largest) or harms(largest, own)
    if case.batch_size == 1 and harms(train.own.population, own):
        yield finding(
            "batch-too-small",
            "in batches of one, train() normalizes each example by itself, eval() all of them "
            f"by the same statistics: {own.figures} as in train(); {case.costs}",
            do="use GroupNorm (or InstanceNorm, which does the same in both modes), or train "
            "in batches of 32 or more; recalibrating does not change that",
        )
    elif case.batch_size <= criteria.SMALL_BATCH and case.tracking and (enough or differs):
        window = min(each.window for each in case.tracking)
        averaged = f"{window:,.0f}" if window >= 10 else f"{window:.1f}"
        number = history.batches_per_step(case)
        steps = f"{number} batches were tracked for each optimizer step, and accumulated "
        steps += "gradients do not make them larger; "
        yield finding(
            "batch-too-small",
            f"in batches of {case.batch_size}, {case.changed()} with the other images in "
            f"the batch; {own.figures} under the statistics of {case.batch_size} images, "
            f"{largest.figures} under those of {size}; running statistics average over "
            f"{averaged} batches; {steps * (number > 1)}{case.costs}",
            harmful=case.gap or differs,
            do=f"{RECALIBRATE}; {FINDINGS['batch-too-small'].do}" if case.gap else "",
        )


def _over_images(case: Case) -> Iterator[Finding]:
    train, there = case.train, case.evidence.eval
    # Where the training images are as badly off under their own, it is no shift.
    if there is None or harms(train.own.population, train.own.shuffled):
        return
    shifts = criteria.shifts(case.tracking, train.own, there.own)
    if shifts and harms(there.own.population, there.own.shuffled):
        worst, mean, variance = shifts[0]
        theirs = criteria.class_labels(case.evidence.task, there.images)
        labels = criteria.label_distance(case.labels, theirs)
        too = f"; their labels differ, too (by {percent(labels)})"
        same = "where training is to see classes as often as evaluation, draw examples so "
        same += f"(WeightedRandomSampler); else {FINDINGS['distribution-shift'].do}"
        yield finding(
            "distribution-shift",
            f"at layer {worst.name}, the evaluation images' means are {mean:.2f} standard "
            f"deviations from the training images'{by_a_factor('their', variance)}"
            f"{too if labels > criteria.SHIFT else ''}; "
            f"{there.own.population.figures} under training statistics, "
            f"{there.own.shuffled.figures} under their own",
            [layer for layer, *_ in shifts],
            do=same if labels > criteria.SHIFT else "",
        )


def _in_channels(case: Case) -> Iterator[Finding]:
    dead = [each for each in case.tracking if each.dead >= criteria.DEAD_SHARE * each.channels]
    if dead:
        worst = max(dead, key=lambda each: each.dead / each.channels)
        yield finding(
            "dead-channels",
            f"{worst.dead} of {worst.channels} channels of layer {worst.name} have next to no "
            f"variance over {len(case.train.images):,} images; {case.some(dead)} many such "
            "channels",
            dead,
            harmful=False,
        )
    under = [each for each in case.tracking if each.under_eps >= criteria.EPS_SHARE * each.channels]
    if under:
        worst = max(under, key=lambda each: each.under_eps / each.channels)
        variance = case.pools[worst.name].variance.median().item()
        yield finding(
            "eps-dominates",
            f"in {worst.under_eps} of {worst.channels} channels of layer {worst.name} the "
            f"variance is at most ε = {worst.eps:g} (median {variance:.2g}): the layer "
            "shrinks them instead of normalizing them",
            under,
            harmful=False,
        )
