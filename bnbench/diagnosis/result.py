"""What a diagnosis states: scores, a row for each layer, findings with their evidence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import exp
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from bnbench.probes.pooled import PooledStatistics

Kind: TypeAlias = Literal["running", "batch", "shuffled", "population"]
"""`batch`: of the loader's batches as they come; `shuffled`: of the same images in random batches;
`population`: pooled over the shuffled batches."""

Loader: TypeAlias = Literal["train", "eval"]

RECALIBRATE = "recalibrate (--fix)"

FINDINGS: Mapping[str, tuple[str, str]] = {
    "at-chance": (
        "no better than naming the commonest class every time, under any statistics",
        "this is not about statistics: is it trained, are its weights loaded (--checkpoint), do "
        "the labels belong to the images?",
    ),
    "non-finite": (
        "inputs, weights, statistics or outputs that are not finite, and the layer where they "
        "begin",
        "go back to an earlier checkpoint; recalibrate (--fix) where only statistics are affected",
    ),
    "mode-branch": (
        "with the same statistics in every normalization, the rest of the network gives something "
        "else in train() than in eval(), or its layers get something else",
        "this is not BatchNorm: look for self.training, and for what forward() does in one mode "
        "only (scaling, cropping, another head), and do the same in both; do not recalibrate first",
    ),
    "statistics-moved-in-eval": (
        "running statistics that a forward pass in eval mode changes",
        "make the layer update them only if self.training; until then, what it predicts depends on "
        "what it was shown before",
    ),
    "no-running-statistics": (
        "track_running_stats=False: in eval mode, too, a prediction changes with the other "
        "images in the batch",
        "make the layers with track_running_stats=True and train again, or, if batches are to "
        "decide, use GroupNorm",
    ),
    "never-updated": (
        "mean 0 and variance 1 exactly, as in a new layer: buffers not saved, not loaded, or "
        "momentum 0",
        "recalibrate (--fix); save and load the whole state_dict, buffers too, and not only the "
        "parameters",
    ),
    "frozen": (
        "far fewer updates than other layers, or none any more (track_running_stats=False), and "
        "far from the population: eval() while weights moved",
        "recalibrate (--fix); if these layers are to stay in eval() in training, let their weights "
        "and what is before them stay, too",
    ),
    "momentum-too-high": (
        "momentum ≥ 0.5: the statistics of the last few batches (TensorFlow's 0.99 is 0.01 here)",
        "recalibrate (--fix), and train with 0.1",
    ),
    "stale": (
        "(1 − momentum)^updates leaves 5 % or more of the initial values, or an average spans "
        "99 batches or more; population statistics are better",
        "recalibrate (--fix); train for more steps, or with a larger momentum (0.1)",
    ),
    "reused-layer": (
        "a layer that is called several times in a forward pass, on inputs whose statistics "
        "differ; population statistics of each call are better than those of all calls",
        "give each call a BatchNorm layer of its own (the convolutions may be shared), or use "
        "GroupNorm, and train again; recalibrating does not change that",
    ),
    "instance-norm-tracks": (
        "InstanceNorm with track_running_stats=True: each image by itself in train(), all by an "
        "average over images in eval()",
        "set track_running_stats of these layers to False: eval() then does what train() does; "
        "recalibrating does not change that",
    ),
    "non-iid-batches": (
        "the loader's batches as they come are better than the same images shuffled",
        "shuffle the training loader (shuffle=True) and train again: the network reads the class "
        "off the other images in the batch; recalibrating does not change that",
    ),
    "mixed-domains": (
        "the loader's batches as they come are of two kinds, by the means and deviations of their "
        "inputs, and better than the same images shuffled",
        "mix both kinds in each batch and train again, or give each kind BatchNorm layers of its "
        "own (x = norm_a(x) if domain == 0 else norm_b(x)), or use GroupNorm; recalibrating does "
        "not change that: one mean cannot fit both",
    ),
    "outlier-batch": (
        "the variances of the first layer alone are 30 times the population's or more: one batch "
        "with values that are far too large, as later layers see what it has normalized",
        "recalibrate (--fix); find the batch: assert x.abs().max() < LIMIT in the training loop. "
        "Or training inputs were scaled otherwise than here: compare x.std() in both",
    ),
    "padding-counted": (
        "sequences of different lengths, padded with zeros that BatchNorm counts as values",
        "normalize valid positions only (y[mask] = norm(x[mask])), put sequences of like length in "
        "a batch, or use LayerNorm, which looks at one position at a time",
    ),
    "dropout-before-norm": (
        "running statistics fit those of passes with dropout on: dropout raises the variance that "
        "a later layer sees, and eval() has none (Li et al. 2018, arXiv:1801.05134)",
        "put dropout after the last BatchNorm layer and train again, or recalibrate with dropout "
        "off and look whether it helps",
    ),
    "mismatched": (
        "population statistics are better, and no other finding says why",
        "recalibrate (--fix); usual causes, which the figures cannot tell apart: averaged weights "
        "(EMA, SWA) whose statistics were not, layers in eval() while weights moved, buffers of "
        "another checkpoint, other preprocessing in training than here",
    ),
    "small-last-batch": (
        "the loader has a batch of one among larger ones",
        "DataLoader(…, drop_last=True): a single example has no batch statistics of its own",
    ),
    "batch-too-small": (
        "batches of 16 or fewer, and predictions change with the other images in the batch",
        "train with 32 or more images a device (SyncBatchNorm joins devices; accumulating "
        "gradients does not help), or with GroupNorm",
    ),
    "distribution-shift": (
        "at a layer, evaluation images have other statistics than training images, and their "
        "own are better",
        "compare the two loaders' preprocessing (scaling, mean and std, channel order, "
        "augmentation); if the data really differ, recalibrate on data like the evaluation's",
    ),
    "dead-channels": (
        "channels that are constant over the images",
        "they carry nothing, and 1/√ε magnifies what little changes: look at the weights before "
        "them (all zero? ReLUs that are never on?), lower the learning rate, or prune",
    ),
    "eps-dominates": (
        "variances at or below ε",
        "make ε smaller than the variances, or the inputs larger: standardize them, raise the "
        "initial weights, and look for weight decay on what comes before",
    ),
    "unexplained-gap": (
        "running statistics are worse than the batch's, recalibrating does not help, and no other "
        "finding says why",
        "use layers that do the same in both modes (GroupNorm) and train again, or evaluate in "
        "batches like those of training; recalibrating does not change that",
    ),
}
"""What gives each finding away, and what to do about it; `bnbench explain findings` prints this. In
this order where nothing else decides: causes before what they lead to."""


def percent(share: float) -> str:
    """A share in percent, as it is printed."""
    return f"{100 * share:.1f} %"


def figures(loss: float, accuracy: float | None) -> str:
    """Loss and accuracy: "loss 0.413 and 85.2 % right"."""
    right = "" if accuracy is None else f" and {percent(accuracy)} right"
    return f"loss {loss:.3f}{right}"


@dataclass(frozen=True, slots=True)
class Score:
    """Mean loss (`Diagnosis.loss` says which) and share of right predictions of a loader's images.

    `batch_size`: images that share batch statistics; None where it makes no difference. `accuracy`:
    None where a prediction is not right or wrong.
    """

    loader: Loader
    statistics: Kind
    batch_size: int | None
    images: int
    loss: float
    accuracy: float | None

    @property
    def figures(self) -> str:
        """Loss and accuracy: "loss 0.413 and 85.2 % right"."""
        return figures(self.loss, self.accuracy)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReading:
    """One BatchNorm layer.

    `tracks`: whether it has running statistics. `used`: whether the forward pass reaches it.
    `momentum`: the weight of the new batch; None: the average of all batches; NaN: a layer that is
    not torch's, of which it is not known. `updates`: batches that it says it has tracked.
    `initial_weight`: what that leaves of the initial statistics in the running ones. `mean_error`,
    `variance_error`: the probe `running_error`; `blame`: the probe `gap_by_layer`, in nats; of many
    layers, the worst ones have it. `dead`, `under_eps`: channels whose variance over the images is
    next to nothing, and at most ε. `alone`: whether a channel has one value in an example.
    """

    name: str
    kind: str
    channels: int
    tracks: bool
    used: bool
    momentum: float | None
    eps: float
    updates: int | None
    initial_weight: float | None
    mean_error: float | None
    variance_error: float | None
    blame: float | None
    dead: int
    under_eps: int
    alone: bool

    @property
    def window(self) -> float:
        """Over how many batches, in effect, its running statistics average."""
        return (2 - self.momentum) / self.momentum if self.momentum else self.updates or 1

    @property
    def errors(self) -> str:
        """How far its running statistics are off, in words."""
        return (
            f"its running means are {self.mean_error:.2f} standard deviations off, its variances a "
            f"factor of {exp(self.variance_error or 0.0):.2g}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong: its name, the figures that say so, and what to do.

    `harmful`: it costs loss or accuracy on these images; else it is a risk. `layers`: where.
    """

    name: str
    harmful: bool
    evidence: str
    do: str
    layers: tuple[str, ...] = ()


def finding(
    name: str, text: str, layers: Sequence[LayerReading] = (), *, harmful: bool = True, do: str = ""
) -> Finding:
    """`do`: instead of what `FINDINGS` says."""
    names = tuple(each.name for each in layers)
    return Finding(
        name=name, harmful=harmful, evidence=text, do=do or FINDINGS[name][1], layers=names
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What `diagnose` found; `findings` with the likeliest cause first, none in a healthy network.

    `loss`: what it means. `images`: looked at, of each loader. `batch_size`: the training loader's
    own. `population`: the statistics that `recalibrated` writes, by layer; `worse_recalibrated`:
    the loaders whose images they suit worse than the running ones.
    """

    loss: str
    batch_size: int
    images: Mapping[Loader, int]
    seconds: float
    findings: tuple[Finding, ...]
    readings: tuple[Score, ...]
    layers: tuple[LayerReading, ...]
    notes: tuple[str, ...]
    worse_recalibrated: tuple[Loader, ...]
    population: Mapping[str, PooledStatistics] = field(repr=False)

    def __str__(self) -> str:
        """What `bnbench diagnose` prints."""
        from bnbench.diagnosis import words

        return words.text(self)

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong, as far as these figures can tell."""
        return not self.findings

    def reading(
        self, statistics: Kind, loader: Loader = "train", batch_size: int | None = None
    ) -> Score:
        """The reading of this kind; batch_size None: at the loader's own. Raises KeyError."""
        size = batch_size or self.batch_size
        for each in self.readings:
            same = (each.statistics, each.loader) == (statistics, loader)
            if same and each.batch_size in (None, size):
                return each
        raise KeyError(f"no reading of {loader} images under {statistics} statistics")

    def recalibrated(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of the same model with the population's statistics as running ones.

        The variance is unbiased, as torch keeps it. Everything else is the tensor that was there.
        """
        result = dict(state)
        for name, pool in self.population.items():
            unbiased = pool.variance * (pool.count / max(pool.count - 1, 1))
            for part, value in (("running_mean", pool.mean), ("running_var", unbiased)):
                key = f"{name}.{part}".removeprefix(".")  # a model that is one BatchNorm layer
                before = state.get(key, torch.empty_like(value, dtype=torch.float))
                result[key] = value.to(before).view_as(before)
        return result

    def as_record(self) -> dict[str, Any]:
        """For JSON: everything but the statistics themselves; what is not finite is None."""
        record = {"healthy": self.healthy, **asdict(self)}
        del record["population"]
        finite: dict[str, Any] = json.loads(json.dumps(record), parse_constant=lambda _: None)
        return finite
