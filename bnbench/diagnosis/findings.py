"""From what was measured to what is wrong: each finding from the evidence that only it explains.

`findings.md` says of each what it looks like, what gives it away and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import exp, sqrt
from typing import cast

from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from bnbench.catalogue import FINDINGS
from bnbench.diagnosis import causes, criteria, history
from bnbench.diagnosis.criteria import harms, off
from bnbench.diagnosis.evidence import Evidence
from bnbench.diagnosis.foreign import Network
from bnbench.diagnosis.result import RECALIBRATE, Finding, LayerReading, finding, percent, said_once

NO_REASON = {
    *("distribution-shift", "dead-channels", "eps-dominates"),
    *("padding-counted", "small-last-batch", "no-running-statistics"),
}
"""Findings that do not say why running statistics are worse than the population's."""


SAY_WHY = {"never-updated", "no-running-statistics"}
"""Findings that say why the modes differ, whether or not it does harm."""


class Judge:
    """Reads the evidence."""

    def __init__(
        self, evidence: Evidence, model: Network, layers: Sequence[LayerReading], seed: int
    ) -> None:
        self.evidence, self.layers, self.seed = evidence, layers, seed
        self.norms = model.norms
        self.labels = criteria.class_labels(evidence.task, evidence.train.images)
        train = evidence.train
        self.batch_size = train.images.batch_size
        # Whether running statistics do harm that recalculated ones undo.
        self.worse = criteria.worse_recalibrated(evidence.measured)
        self.gap = criteria.undoes_the_gap(train)
        self.costs = (
            f"{train.running.figures} under running statistics, "
            f"{train.own.population.figures} under population statistics"
        )
        norms, known = model.norms, train.own.pools
        self.tracking = [
            each for each in layers if each.tracks and each.used and each.name in known
        ]
        self.new = [
            each for each in self.tracking if _never_moved(model.norms[each.name], each.eps)
        ]
        self.missing = history.missing(
            evidence.history, self.tracking, self.new, norms, self.costs, self.gap
        )
        missing = self.missing.layers if self.missing else ()
        self.moved = [
            each for each in self.tracking if each not in self.new and each.name not in missing
        ]
        self.new = [each for each in self.new if each.name not in missing]
        self.averaged = None
        if self.gap:
            self.averaged = history.averaged(evidence, self.moved, norms, self.costs)
        self.by_image = [
            each for each in self.tracking if isinstance(norms[each.name], _InstanceNorm)
        ]
        # Layers that are off, and were updated much less often than another one, or are no more.
        self.stopped = [
            each
            for each in self.moved
            if getattr(norms[each.name], "track_running_stats", True) is False and off(each)
        ]
        self.most_updates = max((each.updates or 0 for each in self.tracking), default=0)
        self.left_out = [
            each
            for each in self.moved
            if 0 < (each.updates or 0) < criteria.FEWER * self.most_updates and off(each)
        ]

    def findings(self) -> tuple[Finding, ...]:
        """What is wrong: what costs something first, then causes before what they lead to."""
        evidence = self.evidence
        found = [
            *causes.in_other_modes(evidence),
            *self._without_statistics(),
            *self._with_other_statistics(),
            *causes.by_call(evidence, self.tracking, self.by_image, self._some),
            *self._in_batches(),
            *self._in_small_batches(),
            *self._over_images(),
        ]
        reasons = {each.name for each in found} - NO_REASON
        if any(
            (each.mean_error or 0.0) > criteria.BY_CHANCE / sqrt(each.window * self.batch_size)
            for each in self.tracking
        ):
            reasons.discard("batch-too-small")
        if self.gap and not reasons:
            mismatch = causes.of_a_mismatch(evidence, self.tracking, self.norms, self.costs)
            if mismatch.name == "mismatched":
                by_counts = history.told_by_counts(evidence, self.tracking, self.costs)
                mismatch = by_counts or mismatch
            found.append(mismatch)
        names = {each.name for each in found if each.harmful or each.name in SAY_WHY}
        if not names:
            found += causes.unexplained(evidence, self.tracking, self.norms)
        if self.tracking:
            found += causes.at_chance(evidence)
        order = list(FINDINGS)
        if not self.gap:
            instead = "recalibrating does not help here"
            if self.worse:
                instead = "do not recalibrate, which makes it worse here"
            found = [replace(each, do=each.do.replace(RECALIBRATE, instead)) for each in found]
        found.sort(key=lambda each: (not each.harmful, order.index(each.name)))
        return tuple(said_once(found, self.costs))

    def _some(self, layers: Sequence[LayerReading]) -> str:
        """How many of all layers, with a verb: "2 of 3 layers have"."""
        return f"{len(layers)} of {len(self.layers)} layers {'has' if len(layers) == 1 else 'have'}"

    def _flips(self) -> float:
        """The share of predictions that change with the other images in the batch."""
        again = self.evidence.again
        return again.differs(self.evidence.train.own.shuffled) if again else 0.0

    def _changed(self, share: float) -> str:
        """That so many predictions change, or by how much values do."""
        if self.evidence.task.kind in ("values", "outputs"):
            return f"predictions change by {percent(share)} of their variance"
        return f"{percent(share)} of the predictions change"

    def _without_statistics(self) -> Iterator[Finding]:
        train, new = self.evidence.train, self.new
        if self.missing:
            yield self.missing
        without = [each for each in self.layers if not each.tracks]
        if without:
            flips = self._flips()
            yield finding(
                "no-running-statistics",
                f"{self._some(without)} no running statistics (track_running_stats=False): eval() "
                "changes nothing there, and a prediction depends on the other images in the "
                f"batch: {self._changed(flips)} with them in batches of {self.batch_size}",
                without,
                harmful=flips >= criteria.FLIPS,
            )
        if new:
            counted = sum((each.updates or 0) > 0 for each in new)
            if any(each.momentum == 0 for each in new):
                why = "their momentum is 0: nothing of a new batch is taken in"
            elif counted:
                why = (
                    f"{counted} of them count batches all the same: they were reset, or not loaded"
                )
            else:
                why = (
                    "they have tracked no batch: never in train(), or their buffers were not loaded"
                )
            yield finding(
                "never-updated",
                f"{self._some(new)} the mean 0 and the variance 1 of a new layer as running "
                f"statistics; {why}; {self.costs}",
                new,
                harmful=self.gap,
                do="do not recalibrate: the network was trained with them (layers in eval() all "
                "the time?). To normalize at all, let them see train()"
                if train in self.worse
                else "",
            )

    def _with_other_statistics(self) -> Iterator[Finding]:
        if self.averaged:
            yield self.averaged
            return
        if self.stopped and self.gap:
            worst = causes.worst_of(self.stopped)
            yield finding(
                "frozen",
                f"{self._some(self.stopped)} running statistics that eval() uses and train() no "
                "longer updates (track_running_stats was set to False); layer "
                f"{worst.name}: {worst.errors}{causes.alike(self.stopped)}; {self.costs}",
                self.stopped,
                do="recalibrate (--fix), and set track_running_stats to True for further training",
            )
        elif self.left_out and self.gap:
            worst = causes.worst_of(self.left_out)
            yield finding(
                "frozen",
                f"layer {worst.name} has tracked {worst.updates:,} batches, other layers "
                f"{self.most_updates:,} ({self._some(self.left_out)} stopped); {worst.errors}"
                f"{causes.alike(self.left_out)}; {self.costs}",
                self.left_out,
            )
        fast = [each for each in self.moved if (each.momentum or 0.0) >= criteria.FAST]
        if fast:
            worst = max(fast, key=lambda each: (each.momentum or 0.0, each.blame or 0.0))
            momentum = worst.momentum or 0.0
            yield finding(
                "momentum-too-high",
                f"momentum {momentum:g} is the weight of the new batch: running statistics "
                f"average over {worst.window:.1f} batches; layer {worst.name}: {worst.errors}; "
                f"{self.costs}",
                fast,
                harmful=self.gap,
                do=f"{RECALIBRATE}; train with {1 - momentum:.2g}: TensorFlow and Keras "
                "mean the weight of the old statistics"
                if momentum > 0.8
                else "",
            )
        far = [each for each in self.moved if off(each) and each not in self.left_out]
        pools = self.evidence.train.own.pools
        new = [each for each in far if criteria.begun(each, pools[each.name])]
        slow = [each for each in far if each not in new and (each.momentum or 0.0) <= criteria.SLOW]
        if self.gap and (new or slow):
            worst = causes.worst_of(new or slow)
            usual = all((each.momentum or 0.0) >= criteria.USUAL for each in [*new, *slow])
            yield finding(
                "stale",
                f"{causes.age(worst, pools[worst.name])}; {worst.errors}{causes.alike(new or slow)}"
                f"{history.or_averaged(self.evidence)}; {self.costs}",
                [*new, *slow],
                do=f"{RECALIBRATE}; train for more steps" if usual else "",
            )

    def _in_batches(self) -> Iterator[Finding]:
        train, images = self.evidence.train, self.evidence.train.images
        batch, own, running = self.evidence.batch, train.own.shuffled, train.running
        if all(harms(each, batch, loss=criteria.NON_IID_LOSS) for each in (own, running)):
            name = "non-iid-batches"
            what = "the examples in a batch are not as mixed as in shuffled ones"
            found = None
            if self.labels is not None:
                found = criteria.homogeneity(self.labels, images.sizes, self.seed)
                what = "the labels in a batch are as mixed as in shuffled ones, its images are not"
            if found is not None and found.sorted:
                what = (
                    f"a batch of {self.batch_size} holds {found.classes:.1f} classes where a "
                    f"shuffled one holds {found.classes_expected:.1f}"
                )
            elif kinds := criteria.two_kinds(images):
                name = "mixed-domains"
                what = (
                    f"{what}: the inputs of {kinds.share:.0%} of the batches are of another kind "
                    f"than the rest, {kinds.apart:.0f} standard deviations of such a kind apart"
                )
            yield finding(
                name,
                f"{what}; {batch.figures} under the statistics of the loader's batches as they "
                f"come, {own.figures} of the same images shuffled, {running.figures} under running "
                "statistics",
            )
        if images.single:
            alone = any(each.alone for each in self.tracking if each.used)
            yield finding(
                "small-last-batch",
                f"the {images.loader} loader has a batch of one among batches of {self.batch_size}"
                + ": a layer has one value per channel there, and train() raises" * alone,
                harmful=alone,
            )

    def _in_small_batches(self) -> Iterator[Finding]:
        train, own, flips = self.evidence.train, self.evidence.train.own.shuffled, self._flips()
        size = max(train.sizes)
        largest = train.sizes[size].shuffled
        enough = flips >= max(criteria.FLIPS, criteria.FLIPS_OF_ERRORS * largest.wrong)
        differs = harms(own, largest) or harms(largest, own)
        if self.batch_size == 1 and harms(train.own.population, own):
            yield finding(
                "batch-too-small",
                "in batches of one, train() normalizes each example by itself, eval() all of them "
                f"by the same statistics: {own.figures} as in train(); {self.costs}",
                do="use GroupNorm (or InstanceNorm, which does the same in both modes), or train "
                "in batches of 32 or more; recalibrating does not change that",
            )
        elif self.batch_size <= criteria.SMALL_BATCH and self.tracking and (enough or differs):
            window = min(each.window for each in self.tracking)
            averaged = f"{window:,.0f}" if window >= 10 else f"{window:.1f}"
            number = history.batches_per_step(self.evidence, self.tracking)
            steps = f"{number} batches were tracked for each optimizer step, and accumulated "
            steps += "gradients do not make them larger; "
            yield finding(
                "batch-too-small",
                f"in batches of {self.batch_size}, {self._changed(flips)} with the other images in "
                f"the batch; {own.figures} under the statistics of {self.batch_size} images, "
                f"{largest.figures} under those of {size}; running statistics average over "
                f"{averaged} batches; {steps * (number > 1)}{self.costs}",
                harmful=self.gap or differs,
            )

    def _over_images(self) -> Iterator[Finding]:
        train, there, task = self.evidence.train, self.evidence.eval, self.evidence.task
        shifts = criteria.shifts(self.tracking, train.own, there.own) if there else []
        # Where the training images are as badly off under their own, it is no shift.
        shifted = not harms(train.own.population, train.own.shuffled)
        if there and shifts and shifted and harms(there.own.population, there.own.shuffled):
            worst, mean, variance = shifts[0]
            labels = criteria.label_distance(self.labels, criteria.class_labels(task, there.images))
            too = f"; their labels differ, too (by {percent(labels)})"
            yield finding(
                "distribution-shift",
                f"at layer {worst.name}, the evaluation images' means are {mean:.2f} standard "
                "deviations from the training images', their variances a factor of "
                f"{exp(variance):.2g}{too if labels > criteria.SHIFT else ''}; "
                f"{there.own.population.figures} under training statistics, "
                f"{there.own.shuffled.figures} under their own",
                [layer for layer, *_ in shifts],
            )
        dead = [each for each in self.tracking if each.dead >= criteria.DEAD_SHARE * each.channels]
        if dead:
            worst = max(dead, key=lambda each: each.dead / each.channels)
            yield finding(
                "dead-channels",
                f"{worst.dead} of {worst.channels} channels of layer {worst.name} have next to no "
                f"variance over {len(train.images):,} images; {self._some(dead)} many such "
                "channels",
                dead,
                harmful=False,
            )
        share = criteria.EPS_SHARE
        under = [each for each in self.tracking if each.under_eps >= share * each.channels]
        if under:
            worst = max(under, key=lambda each: each.under_eps / each.channels)
            variance = train.own.pools[worst.name].variance.median().item()
            yield finding(
                "eps-dominates",
                f"in {worst.under_eps} of {worst.channels} channels of layer {worst.name} the "
                f"variance is at most ε = {worst.eps:g} (median {variance:.2g}): the layer "
                "shrinks them instead of normalizing them",
                under,
                harmful=False,
            )


def _never_moved(norm: nn.Module, eps: float) -> bool:
    """Whether its running statistics are what a new layer has: mean 0, variance 1."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    # batch-renorm begins with 1 − ε.
    return bool((mean == 0).all() and ((variance - 1).abs() <= eps).all())
