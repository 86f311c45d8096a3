"""What findings are read from: the evidence, the layers that it speaks of, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log
from statistics import fmean
from typing import cast

from torch import Tensor, nn

from bnbench.diagnosis import criteria
from bnbench.diagnosis.evidence import Evidence
from bnbench.diagnosis.foreign import Network
from bnbench.diagnosis.result import LayerReading, percent
from bnbench.diagnosis.survey import Pools
from bnbench.probes.running_error import statistics_error


class Case:
    """The evidence, and what several findings rest on.

    `worse`: the loaders whose images running statistics suit better than the population's. `gap`:
    whether running statistics do harm that recalculated ones undo; `costs`: it in figures. Where
    all layers use them in train(), too, the modes do not differ, and less loss is no such harm.
    `tracking`: layers with running statistics that a pass reaches; `new`: those of them whose
    statistics are a new layer's. `pools`: the layers' statistics in the training loader's batches;
    `labels`: the class of each of its images, (n,), where each has one.
    """

    def __init__(
        self, evidence: Evidence, model: Network, layers: Sequence[LayerReading], seed: int
    ) -> None:
        self.evidence, self.layers, self.seed = evidence, layers, seed
        self.norms, self.train, self.modes = model.norms, evidence.train, evidence.modes
        self.batch_size, self.pools = self.train.images.batch_size, self.train.own.pools
        self.worse = criteria.worse_recalibrated(evidence.measured)
        self.gap = criteria.undoes_the_gap(self.train)
        self.labels = criteria.class_labels(evidence.task, self.train.images)
        self.costs = (
            f"{self.train.running.figures} under running statistics, "
            f"{self.train.own.population.figures} under population statistics"
        )
        self.tracking = [
            each for each in layers if each.tracks and each.used and each.name in self.pools
        ]
        fixed = evidence.survey.of("fixed")
        if self.tracking and all(each.name in fixed for each in self.tracking):
            # More must be right, where anything is.
            running, own = self.train.running, self.train.own
            self.gap &= running.right is None or criteria.harms(running, own.population, loss=inf)
        self.new = [each for each in self.tracking if _is_new(self.norms[each.name], each.eps)]

    def some(self, layers: Sequence[LayerReading]) -> str:
        """How many of all layers, with a verb: "2 of 3 layers have"."""
        return f"{len(layers)} of {len(self.layers)} layers {'has' if len(layers) == 1 else 'have'}"

    def flips(self) -> float:
        """The share of predictions that change with the other images in the batch."""
        again = self.evidence.again
        return again.differs(self.train.own.shuffled) if again else 0.0

    def changed(self) -> str:
        """That so many predictions change, or by how much values do."""
        if self.evidence.task.kind in ("values", "outputs"):
            return f"predictions change by {percent(self.flips())} of their variance"
        return f"{percent(self.flips())} of the predictions change"

    def mixed(self) -> criteria.Homogeneity | None:
        """How mixed the classes in the training loader's batches are; None without classes."""
        if self.labels is None:
            return None
        return criteria.homogeneity(self.labels, self.train.images.sizes, self.seed)

    def fit_better(
        self, layers: Sequence[LayerReading], these: Pools | None, said: str, own: Pools, of: str
    ) -> str:
        """That running variances fit `these` statistics much better than the layers' `own`, with
        the words for both; empty where they do not."""
        if these is None:
            return ""
        both = own, these
        known = [
            each.name
            for each in layers
            if all(each.name in pools and pools[each.name].count for pools in both)
        ]
        if not known:
            return ""
        # |ln σ²|, the mean over layers.
        away, left = (
            fmean(statistics_error(self.norms[name], pools[name])["variance"] for name in known)
            for pools in both
        )
        if left >= criteria.FITS * away or log(1 + away) < criteria.OFF:
            return ""
        return f"running variances are off by {away:.0%} from those {of}, by {left:.0%} from {said}"


def _is_new(norm: nn.Module, eps: float) -> bool:
    """Whether its running statistics are what a new layer has: mean 0, variance 1."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    # batch-renorm begins with 1 − ε.
    return bool((mean == 0).all() and ((variance - 1).abs() <= eps).all())


def worst_of(layers: Sequence[LayerReading]) -> LayerReading:
    """The one whose running statistics are farthest off: that is what is said of it. What a layer
    costs alone may be another's error that it passes on."""
    return max(layers, key=criteria.away)
