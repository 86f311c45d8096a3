"""From what was measured to what is wrong: each fault by the evidence that is its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, sqrt
from typing import cast, get_args

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from bnbench.diagnosis.criteria import (
    BY_CHANCE,
    DEAD_SHARE,
    EPS_SHARE,
    FAST,
    FEWER,
    FLIPS,
    FLIPS_OF_ERRORS,
    INITIAL,
    NON_IID_LOSS,
    SHIFT,
    SHIFT_VARIANCE,
    SLOW,
    SMALL_BATCH,
    STANDARD_ERRORS,
    harms,
    homogeneity,
    label_distance,
    off,
)
from bnbench.diagnosis.evidence import Evidence
from bnbench.diagnosis.phrases import errors, names, number, percent, some
from bnbench.diagnosis.result import Fault, Finding, LayerReading


@dataclass(frozen=True, slots=True)
class Judge:
    """Reads the evidence; each method names one fault, or None."""

    evidence: Evidence
    norms: dict[str, _BatchNorm]
    layers: tuple[LayerReading, ...]
    seed: int

    def findings(self) -> tuple[Finding, ...]:
        """What is wrong: what costs something first, then causes before what they lead to."""
        found: list[Finding] = []
        checks: tuple[Callable[[], Finding | None], ...] = (
            self.no_running_statistics,
            self.never_updated,
            self.frozen,
            self.momentum_too_high,
            self.stale,
            self.non_iid_batches,
            self.batch_too_small,
            self.distribution_shift,
            self.dead_channels,
            self.eps_dominates,
        )
        found = [finding for check in checks if (finding := check()) is not None]
        explained = {
            "no-running-statistics",
            "never-updated",
            "frozen",
            "momentum-too-high",
            "stale",
            "non-iid-batches",
        }
        if any(each.name == "batch-too-small" for each in found) and not self.beyond_chance():
            explained.add("batch-too-small")
        if self.gap and not any(each.name in explained for each in found):
            found.append(self.mismatched())
        order = get_args(Fault)
        return tuple(sorted(found, key=lambda each: (not each.harmful, order.index(each.name))))

    # --- what is known of layers ------------------------------------------------------------

    @property
    def gap(self) -> bool:
        """Whether running statistics harm, and recalculated ones do not."""
        return harms(self.evidence.running, self.evidence.recalibrated)

    @property
    def tracking(self) -> list[LayerReading]:
        """Layers with running statistics that the pass reaches."""
        return [each for each in self.layers if each.tracks and each.used]

    def never(self, layer: LayerReading) -> bool:
        """Whether its running statistics are what a new layer has: mean 0, variance 1."""
        norm = self.norms[layer.name]
        mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        # batch-renorm begins with 1 − ε.
        return bool((mean == 0).all() and ((variance - 1).abs() <= layer.eps).all())

    @property
    def moved(self) -> list[LayerReading]:
        """Layers that have left their initial statistics."""
        return [each for each in self.tracking if not self.never(each)]

    @property
    def kept(self) -> list[LayerReading]:
        """Layers that were updated much less often than another one."""
        most = max((each.updates or 0 for each in self.tracking), default=0)
        return [
            each
            for each in self.moved
            if each.updates is not None and 0 < each.updates < FEWER * most and off(each)
        ]

    def averaged(self, layer: LayerReading) -> float:
        """Images behind a layer's running statistics, or what amounts to as many."""
        batches = (
            layer.updates or 1 if not layer.momentum else (2 - layer.momentum) / layer.momentum
        )
        return batches * self.evidence.train.batch_size

    def beyond_chance(self) -> bool:
        """Whether running means are off by more than averages over so few images are."""
        return any(
            (each.mean_error or 0.0) > BY_CHANCE / sqrt(self.averaged(each))
            for each in self.tracking
        )

    def costs(self) -> str:
        """What running statistics cost against population statistics, in words."""
        running, population = self.evidence.running, self.evidence.recalibrated
        return (
            f"loss {number(running.loss)} and {percent(running.accuracy)} right under running "
            f"statistics, {number(population.loss)} and {percent(population.accuracy)} under "
            "population statistics"
        )

    # --- faults -------------------------------------------------------------------------------

    def no_running_statistics(self) -> Finding | None:
        """Layers that use the batch's statistics in eval mode, too."""
        without = [each for each in self.layers if not each.tracks]
        if not without:
            return None
        flips = self.evidence.own.outcome.differs(self.evidence.again)
        size = self.evidence.train.batch_size
        return Finding(
            name="no-running-statistics",
            harmful=flips >= FLIPS,
            layers=names(without),
            evidence=f"{some(without, self.layers)} no running statistics "
            "(track_running_stats=False): eval() changes nothing there, and a prediction depends "
            f"on the company of its image: {percent(flips)} change with it in batches of {size}",
            do="make the layers with track_running_stats=True and train again, or, if batches are "
            "to decide, use GroupNorm",
        )

    def never_updated(self) -> Finding | None:
        """Layers whose running statistics are those of a new layer."""
        new = [each for each in self.tracking if self.never(each)]
        if not new:
            return None
        still = [each for each in new if each.momentum == 0]
        counted = sum((each.updates or 0) > 0 for each in new)
        if still:
            why = "their momentum is 0: nothing of a new batch is taken in"
        elif counted:
            why = f"{counted} of them count batches all the same: they were reset, or not loaded"
        else:
            why = "they have tracked no batch: never in train(), or their buffers were not loaded"
        return Finding(
            name="never-updated",
            harmful=self.gap,
            layers=names(new),
            evidence=f"{some(new, self.layers)} the mean 0 and the variance 1 of a new layer as "
            f"running statistics; {why}; {self.costs()}",
            do="do not recalibrate: the network was trained with them (layers in eval() all the "
            "time?). To normalize at all, let them see train()"
            if harms(self.evidence.recalibrated, self.evidence.running)
            else "recalibrate (--fix); save and load the whole state_dict, buffers too, and not "
            "only the parameters",
        )

    def frozen(self) -> Finding | None:
        """Layers that stopped tracking while others went on."""
        kept = self.kept
        if not kept or not self.gap:
            return None
        most = max(each.updates or 0 for each in self.tracking)
        worst = max(kept, key=lambda each: each.blame or 0.0)
        return Finding(
            name="frozen",
            harmful=True,
            layers=names(kept),
            evidence=f"layer {worst.name} has tracked {worst.updates:,} batches, other layers "
            f"{most:,} ({some(kept, self.layers)} stopped); {errors(worst)}; {self.costs()}",
            do="recalibrate (--fix); if these layers are to stay in eval() in training, let their "
            "weights and what is before them stay, too",
        )

    def momentum_too_high(self) -> Finding | None:
        """Layers whose running statistics are those of the last few batches."""
        fast = [each for each in self.moved if each.momentum is not None and each.momentum >= FAST]
        if not fast:
            return None
        worst = max(fast, key=lambda each: each.momentum or 0.0)
        assert worst.momentum is not None
        batches = (2 - worst.momentum) / worst.momentum
        return Finding(
            name="momentum-too-high",
            harmful=self.gap,
            layers=names(fast),
            evidence=f"momentum {worst.momentum:g} is the weight of the new batch: running "
            f"statistics average over {batches:.1f} batches; layer {worst.name}: {errors(worst)}; "
            f"{self.costs()}",
            do=f"recalibrate (--fix), and train with {1 - worst.momentum:.2g}: TensorFlow and "
            "Keras mean the weight of the old statistics"
            if worst.momentum > 0.8
            else "recalibrate (--fix), and train with 0.1",
        )

    def stale(self) -> Finding | None:
        """Layers whose running statistics are behind: too few updates, or too slow ones."""
        if not self.gap:
            return None
        behind = [each for each in self.moved if off(each) and each not in self.kept]
        new = [each for each in behind if (each.initial_weight or 0.0) >= INITIAL]
        slow = [
            each
            for each in behind
            if each not in new and (each.momentum is None or each.momentum <= SLOW)
        ]
        if not new and not slow:
            return None
        worst = max(new or slow, key=lambda each: each.blame or 0.0)
        if new:
            why = (
                f"after {worst.updates:,} updates at momentum {worst.momentum:g} the initial "
                f"values still weigh {percent(worst.initial_weight or 0.0)} in the running "
                f"statistics of layer {worst.name}"
            )
        elif worst.momentum is None:
            why = (
                f"layer {worst.name} averages over all batches since training began "
                "(momentum None), and the weights moved"
            )
        else:
            why = (
                f"at momentum {worst.momentum:g}, layer {worst.name} averages over the last "
                f"{(2 - worst.momentum) / worst.momentum:,.0f} batches, and the weights moved"
            )
        return Finding(
            name="stale",
            harmful=True,
            layers=names([*new, *slow]),
            evidence=f"{why}; {errors(worst)}; {self.costs()}",
            do="recalibrate (--fix); train for more steps, or with a larger momentum (0.1)",
        )

    def non_iid_batches(self) -> Finding | None:
        """Batches whose company the network has learned to rely on."""
        evidence = self.evidence
        at_random = evidence.own.outcome
        if not harms(at_random, evidence.batch, loss=NON_IID_LOSS):
            return None
        if not harms(evidence.running, evidence.batch, loss=NON_IID_LOSS):
            return None
        kinship = homogeneity(evidence.train.y, evidence.train.sizes, self.seed)
        what = (
            f"a batch of {evidence.train.batch_size} holds {kinship.classes:.1f} classes where a "
            f"shuffled one holds {kinship.classes_expected:.1f}"
            if kinship.sorted
            else "the labels in a batch are as mixed as in shuffled ones, but its images are not"
        )
        return Finding(
            name="non-iid-batches",
            harmful=True,
            evidence=f"{what}; {percent(evidence.batch.accuracy)} right under the statistics of "
            f"the loader's batches as they come, {percent(at_random.accuracy)} of the same "
            f"images shuffled, {percent(evidence.running.accuracy)} under running statistics",
            do="shuffle the training loader (shuffle=True) and train again: the network reads the "
            "class off its company; recalibrating does not mend that",
        )

    def batch_too_small(self) -> Finding | None:
        """Batches so small that their statistics are mostly noise."""
        evidence, size = self.evidence, self.evidence.train.batch_size
        own, largest = evidence.own.outcome, evidence.largest.outcome
        flips = own.differs(evidence.again)
        enough = max(FLIPS, FLIPS_OF_ERRORS * (1 - largest.accuracy))
        if size > SMALL_BATCH or flips < enough or not self.tracking:
            return None
        large = max(evidence.shuffled)
        images = min(self.averaged(each) for each in self.tracking)
        return Finding(
            name="batch-too-small",
            harmful=self.gap or harms(own, largest) or harms(largest, own),
            evidence=f"in batches of {size}, {percent(flips)} of the predictions change with the "
            f"company; loss {number(own.loss)} and {percent(own.accuracy)} right under the "
            f"statistics of {size} images, {number(largest.loss)} and "
            f"{percent(largest.accuracy)} under those of {large}; running statistics average "
            f"over {images:.0f} images; {self.costs()}",
            do="train with 32 or more images a device (SyncBatchNorm joins devices; accumulating "
            "gradients does not help), or with GroupNorm",
        )

    def distribution_shift(self) -> Finding | None:
        """Evaluation images that do not look like training images."""
        evidence = self.evidence
        if evidence.eval is None or evidence.eval_shuffled is None:
            return None
        assert evidence.eval_population is not None
        theirs, ours = evidence.eval_shuffled.pools, evidence.own.pools
        far: list[tuple[float, str, float, float]] = []
        for layer in self.tracking:
            width = (ours[layer.name].variance + layer.eps).sqrt()
            mean = ((theirs[layer.name].mean - ours[layer.name].mean).abs() / width).mean().item()
            ratio = (theirs[layer.name].variance + layer.eps) / width.square()
            variance = ratio.log().abs().mean().item()
            chance = self._scatter(layer)
            if mean > max(SHIFT, STANDARD_ERRORS * chance) or (
                variance > SHIFT_VARIANCE and chance < SHIFT
            ):
                far.append((mean / SHIFT + variance / SHIFT_VARIANCE, layer.name, mean, variance))
        if not far:
            return None
        harm = harms(evidence.eval_population, evidence.eval_shuffled.outcome)
        if not harm:
            return None
        _, name, mean, variance = max(far)
        other = label_distance(evidence.train.y, evidence.eval.y)
        labels = f"; their labels differ, too (by {percent(other)})" if other > SHIFT else ""
        return Finding(
            name="distribution-shift",
            harmful=True,
            layers=tuple(name for _, name, _, _ in sorted(far, reverse=True)),
            evidence=f"at layer {name}, the evaluation images' means are {mean:.2f} standard "
            "deviations from the training images', their variances a factor of "
            f"{exp(variance):.2g}{labels}; under training statistics "
            f"{percent(evidence.eval_population.accuracy)} right, under their own "
            f"{percent(evidence.eval_shuffled.outcome.accuracy)}",
            do="compare the two loaders' preprocessing (scaling, mean and std, channel order, "
            "augmentation); if the data really differ, recalibrate on data like the "
            "evaluation's",
        )

    def _scatter(self, layer: LayerReading) -> float:
        """The standard error of a difference between two samples' means, in standard deviations."""
        errors = []
        for there in (self.evidence.own, self.evidence.eval_shuffled):
            assert there is not None
            if len(there.groups) < 2:
                return float("inf")
            means = torch.stack([group[layer.name].mean for group in there.groups])
            errors.append(means.std(0, correction=1) / sqrt(len(there.groups)))
        width = (self.evidence.own.pools[layer.name].variance + layer.eps).sqrt()
        return (torch.hypot(*errors) / width).mean().item()

    def dead_channels(self) -> Finding | None:
        """Channels that are the same for every image."""
        dead = [each for each in self.tracking if each.dead >= DEAD_SHARE * each.channels]
        if not dead:
            return None
        worst = max(dead, key=lambda each: each.dead / each.channels)
        return Finding(
            name="dead-channels",
            harmful=False,
            layers=names(dead),
            evidence=f"{worst.dead} of {worst.channels} channels of layer {worst.name} have next "
            f"to no variance over {len(self.evidence.train):,} images; "
            f"{some(dead, self.layers)} many such channels",
            do="they carry nothing, and 1/√ε magnifies what little changes: look at the weights "
            "before them (all zero? ReLUs that are never on?), lower the learning rate, or prune",
        )

    def eps_dominates(self) -> Finding | None:
        """Channels whose variance is no larger than what is added to it."""
        under = [each for each in self.tracking if each.under_eps >= EPS_SHARE * each.channels]
        if not under:
            return None
        worst = max(under, key=lambda each: each.under_eps / each.channels)
        variance = self.evidence.own.pools[worst.name].variance.median().item()
        return Finding(
            name="eps-dominates",
            harmful=False,
            layers=names(under),
            evidence=f"in {worst.under_eps} of {worst.channels} channels of layer {worst.name} the "
            f"variance is at most ε = {worst.eps:g} (median {variance:.2g}): the layer shrinks "
            "them instead of normalizing them",
            do="make ε smaller than the variances, or the inputs larger: standardize them, raise "
            "the initial weights, and look for weight decay on what comes before",
        )

    def mismatched(self) -> Finding:
        """Running statistics that are not of these weights, and nothing says why."""
        behind = sorted(
            (each for each in self.tracking if off(each)), key=lambda each: -(each.blame or 0.0)
        )
        where = f"layer {behind[0].name}: {errors(behind[0])}; " if behind else ""
        return Finding(
            name="mismatched",
            harmful=True,
            layers=names(behind),
            evidence=f"running statistics do not belong to these weights on these images, though "
            f"they were updated often enough; {where}{self.costs()}",
            do="recalibrate (--fix); usual causes, which the figures cannot tell apart: averaged "
            "weights (EMA, SWA) whose statistics were not, layers in eval() while weights went "
            "on, buffers of another checkpoint, other preprocessing in training than here",
        )
