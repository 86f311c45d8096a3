"""From what was measured to what is wrong: each finding from the evidence that only it explains.

`FINDINGS` in `result` says of each what gives it away and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, sqrt
from typing import cast, get_args

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from bnbench.diagnosis import criteria
from bnbench.diagnosis.criteria import harms, off
from bnbench.diagnosis.evidence import Evidence
from bnbench.diagnosis.result import FINDINGS, Finding, FindingName, LayerReading

EXPLAINS_A_GAP: set[FindingName] = {
    "no-running-statistics",
    "never-updated",
    "frozen",
    "momentum-too-high",
    "stale",
    "non-iid-batches",
}
"""Findings that say why running statistics are worse than the population's."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Reads the evidence; each method gives one finding, or None."""

    evidence: Evidence
    norms: dict[str, _BatchNorm]
    layers: tuple[LayerReading, ...]
    seed: int

    def findings(self) -> tuple[Finding, ...]:
        """What is wrong: what costs something first, then causes before what they lead to."""
        checks = (
            self._no_running_statistics,
            self._never_updated,
            self._frozen,
            self._momentum_too_high,
            self._stale,
            self._non_iid_batches,
            self._batch_too_small,
            self._distribution_shift,
            self._dead_channels,
            self._eps_dominates,
        )
        found = [finding for check in checks if (finding := check()) is not None]
        explain = set(EXPLAINS_A_GAP)
        if not self._beyond_chance():
            explain.add("batch-too-small")
        if self._gap and not any(each.name in explain for each in found):
            found.append(self._mismatched())
        order = get_args(FindingName)
        return tuple(sorted(found, key=lambda each: (not each.harmful, order.index(each.name))))

    @property
    def _gap(self) -> bool:
        """Whether running statistics do harm, and recalculated ones do not."""
        return harms(self.evidence.running, self.evidence.recalibrated)

    @property
    def _tracking(self) -> list[LayerReading]:
        """Layers with running statistics that the forward pass reaches."""
        return [each for each in self.layers if each.tracks and each.used]

    def _never_moved(self, layer: LayerReading) -> bool:
        """Whether its running statistics are what a new layer has: mean 0, variance 1."""
        norm = self.norms[layer.name]
        mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        # batch-renorm begins with 1 − ε.
        return bool((mean == 0).all() and ((variance - 1).abs() <= layer.eps).all())

    @property
    def _moved(self) -> list[LayerReading]:
        return [each for each in self._tracking if not self._never_moved(each)]

    @property
    def _left_out(self) -> list[LayerReading]:
        """Layers that are off, and were updated much less often than another one."""
        enough = criteria.FEWER * max((each.updates or 0 for each in self._tracking), default=0)
        return [each for each in self._moved if 0 < (each.updates or 0) < enough and off(each)]

    def _averaged(self, layer: LayerReading) -> float:
        """Over how many images, in effect, a layer's running statistics average."""
        batches = (
            layer.updates or 1 if not layer.momentum else (2 - layer.momentum) / layer.momentum
        )
        return batches * self.evidence.train.batch_size

    def _beyond_chance(self) -> bool:
        """Whether running means are off by more than averages over so few images are."""
        return any(
            (each.mean_error or 0.0) > criteria.BY_CHANCE / sqrt(self._averaged(each))
            for each in self._tracking
        )

    def _costs(self) -> str:
        """What running statistics cost against population statistics."""
        running, population = self.evidence.running, self.evidence.recalibrated
        return (
            f"loss {running.loss:.3f} and {_percent(running.accuracy)} right under running "
            f"statistics, {population.loss:.3f} and {_percent(population.accuracy)} under "
            "population statistics"
        )

    def _some(self, layers: Sequence[LayerReading]) -> str:
        """How many of all layers, with a verb: "2 of 3 layers have"."""
        return f"{len(layers)} of {len(self.layers)} layers {'has' if len(layers) == 1 else 'have'}"

    # --- findings -----------------------------------------------------------------------------

    def _no_running_statistics(self) -> Finding | None:
        without = [each for each in self.layers if not each.tracks]
        if not without:
            return None
        flips = self.evidence.own.predictions.differs(self.evidence.again)
        return _finding(
            "no-running-statistics",
            f"{self._some(without)} no running statistics (track_running_stats=False): eval() "
            "changes nothing there, and a prediction depends on the other images in the batch: "
            f"{_percent(flips)} change with them in batches of {self.evidence.train.batch_size}",
            without,
            harmful=flips >= criteria.FLIPS,
        )

    def _never_updated(self) -> Finding | None:
        new = [each for each in self._tracking if self._never_moved(each)]
        if not new:
            return None
        counted = sum((each.updates or 0) > 0 for each in new)
        if any(each.momentum == 0 for each in new):
            why = "their momentum is 0: nothing of a new batch is taken in"
        elif counted:
            why = f"{counted} of them count batches all the same: they were reset, or not loaded"
        else:
            why = "they have tracked no batch: never in train(), or their buffers were not loaded"
        return _finding(
            "never-updated",
            f"{self._some(new)} the mean 0 and the variance 1 of a new layer as running "
            f"statistics; {why}; {self._costs()}",
            new,
            harmful=self._gap,
            do="do not recalibrate: the network was trained with them (layers in eval() all the "
            "time?). To normalize at all, let them see train()"
            if harms(self.evidence.recalibrated, self.evidence.running)
            else None,
        )

    def _frozen(self) -> Finding | None:
        kept = self._left_out
        if not kept or not self._gap:
            return None
        most = max(each.updates or 0 for each in self._tracking)
        worst = _worst(kept)
        return _finding(
            "frozen",
            f"layer {worst.name} has tracked {worst.updates:,} batches, other layers {most:,} "
            f"({self._some(kept)} stopped); {worst.errors}; {self._costs()}",
            kept,
        )

    def _momentum_too_high(self) -> Finding | None:
        fast = [each for each in self._moved if (each.momentum or 0.0) >= criteria.FAST]
        if not fast:
            return None
        worst = max(fast, key=lambda each: each.momentum or 0.0)
        assert worst.momentum is not None
        return _finding(
            "momentum-too-high",
            f"momentum {worst.momentum:g} is the weight of the new batch: running statistics "
            f"average over {(2 - worst.momentum) / worst.momentum:.1f} batches; layer "
            f"{worst.name}: {worst.errors}; {self._costs()}",
            fast,
            harmful=self._gap,
            do=f"recalibrate (--fix), and train with {1 - worst.momentum:.2g}: TensorFlow and "
            "Keras mean the weight of the old statistics"
            if worst.momentum > 0.8
            else None,
        )

    def _stale(self) -> Finding | None:
        if not self._gap:
            return None
        far = [each for each in self._moved if off(each) and each not in self._left_out]
        new = [each for each in far if (each.initial_weight or 0.0) >= criteria.INITIAL]
        slow = [
            each
            for each in far
            if each not in new and (each.momentum is None or each.momentum <= criteria.SLOW)
        ]
        if not new and not slow:
            return None
        worst = _worst(new or slow)
        if new:
            why = (
                f"after {worst.updates:,} updates at momentum {worst.momentum:g} the initial "
                f"values still weigh {_percent(worst.initial_weight or 0.0)} in the running "
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
        return _finding("stale", f"{why}; {worst.errors}; {self._costs()}", [*new, *slow])

    def _non_iid_batches(self) -> Finding | None:
        as_they_come, shuffled = self.evidence.batch, self.evidence.own.predictions
        running, train = self.evidence.running, self.evidence.train
        if not all(
            harms(each, as_they_come, loss=criteria.NON_IID_LOSS) for each in (shuffled, running)
        ):
            return None
        found = criteria.homogeneity(train.y, train.sizes, self.seed)
        what = (
            f"a batch of {train.batch_size} holds {found.classes:.1f} classes where a shuffled "
            f"one holds {found.classes_expected:.1f}"
            if found.sorted
            else "the labels in a batch are as mixed as in shuffled ones, but its images are not"
        )
        return _finding(
            "non-iid-batches",
            f"{what}; {_percent(as_they_come.accuracy)} right under the statistics of the "
            f"loader's batches as they come, {_percent(shuffled.accuracy)} of the same images "
            f"shuffled, {_percent(running.accuracy)} under running statistics",
        )

    def _batch_too_small(self) -> Finding | None:
        evidence, size = self.evidence, self.evidence.train.batch_size
        own, largest = evidence.own.predictions, evidence.largest.predictions
        flips = own.differs(evidence.again)
        enough = max(criteria.FLIPS, criteria.FLIPS_OF_ERRORS * (1 - largest.accuracy))
        if size > criteria.SMALL_BATCH or flips < enough or not self._tracking:
            return None
        images = min(self._averaged(each) for each in self._tracking)
        return _finding(
            "batch-too-small",
            f"in batches of {size}, {_percent(flips)} of the predictions change with the other "
            f"images in the batch; loss {own.loss:.3f} and {_percent(own.accuracy)} right under "
            f"the statistics of {size} images, {largest.loss:.3f} and "
            f"{_percent(largest.accuracy)} under those of {max(evidence.shuffled)}; running "
            f"statistics average over {images:.0f} images; {self._costs()}",
            harmful=self._gap or harms(own, largest) or harms(largest, own),
        )

    def _distribution_shift(self) -> Finding | None:
        evidence = self.evidence
        if evidence.eval is None or evidence.eval_shuffled is None:
            return None
        assert evidence.eval_population is not None
        shifts = criteria.shifts(self._tracking, evidence.own, evidence.eval_shuffled)
        theirs = evidence.eval_shuffled.predictions
        if not shifts or not harms(evidence.eval_population, theirs):
            return None
        worst = shifts[0]
        other = criteria.label_distance(evidence.train.y, evidence.eval.y)
        labels = (
            f"; their labels differ, too (by {_percent(other)})" if other > criteria.SHIFT else ""
        )
        return _finding(
            "distribution-shift",
            f"at layer {worst.layer.name}, the evaluation images' means are {worst.mean:.2f} "
            "standard deviations from the training images', their variances a factor of "
            f"{exp(worst.variance):.2g}{labels}; under training statistics "
            f"{_percent(evidence.eval_population.accuracy)} right, under their own "
            f"{_percent(theirs.accuracy)}",
            [each.layer for each in shifts],
        )

    def _dead_channels(self) -> Finding | None:
        dead = [each for each in self._tracking if each.dead >= criteria.DEAD_SHARE * each.channels]
        if not dead:
            return None
        worst = max(dead, key=lambda each: each.dead / each.channels)
        return _finding(
            "dead-channels",
            f"{worst.dead} of {worst.channels} channels of layer {worst.name} have next to no "
            f"variance over {len(self.evidence.train):,} images; {self._some(dead)} many such "
            "channels",
            dead,
            harmful=False,
        )

    def _eps_dominates(self) -> Finding | None:
        under = [
            each for each in self._tracking if each.under_eps >= criteria.EPS_SHARE * each.channels
        ]
        if not under:
            return None
        worst = max(under, key=lambda each: each.under_eps / each.channels)
        variance = self.evidence.own.pools[worst.name].variance.median().item()
        return _finding(
            "eps-dominates",
            f"in {worst.under_eps} of {worst.channels} channels of layer {worst.name} the "
            f"variance is at most ε = {worst.eps:g} (median {variance:.2g}): the layer shrinks "
            "them instead of normalizing them",
            under,
            harmful=False,
        )

    def _mismatched(self) -> Finding:
        """Running statistics that are not of these weights, and nothing says why."""
        far = [each for each in self._tracking if off(each)]
        far.sort(key=lambda each: -(each.blame or 0.0))
        where = f"layer {far[0].name}: {far[0].errors}; " if far else ""
        return _finding(
            "mismatched",
            "running statistics do not belong to these weights on these images, though they were "
            f"updated often enough; {where}{self._costs()}",
            far,
        )


def _finding(
    name: FindingName,
    evidence: str,
    layers: Sequence[LayerReading] = (),
    *,
    harmful: bool = True,
    do: str | None = None,
) -> Finding:
    return Finding(
        name=name,
        harmful=harmful,
        evidence=evidence,
        do=do or FINDINGS[name][1],
        layers=tuple(each.name for each in layers),
    )


def _worst(layers: Sequence[LayerReading]) -> LayerReading:
    """The one whose running statistics cost most."""
    return max(layers, key=lambda each: each.blame or 0.0)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
