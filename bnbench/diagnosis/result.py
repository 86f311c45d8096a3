"""What a diagnosis states: scores, a row for each layer, findings with their evidence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from html import escape
from math import exp, isfinite
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from bnbench.catalogue import FINDINGS
from bnbench.errors import UsageError
from bnbench.probes.pooled import PooledStatistics

Kind: TypeAlias = Literal["running", "batch", "shuffled", "population"]
"""`batch`: of the loader's batches as they come; `shuffled`: of the same images in random batches;
`population`: pooled over the shuffled batches."""

Loader: TypeAlias = Literal["train", "eval", "val"]
"""`val`: of `bnbench.watch`."""

RECALIBRATE = "recalibrate (--fix)"
NATS = "nats"


def percent(share: float) -> str:
    """A share in percent, as it is printed."""
    return f"{100 * share:.1f} %"


def number(loss: float) -> str:
    """A loss, as it is printed."""
    return f"{loss:.3f}" if isfinite(loss) else "not finite"


def figures(loss: float, accuracy: float | None, unit: str) -> str:
    """Loss and accuracy: "loss 0.413 and 85.2 % right". `unit`: said where it is not nats."""
    right = "" if accuracy is None else f" and {percent(accuracy)} right"
    return f"loss {number(loss)}{'' if unit == NATS else unit and f' {unit}'}{right}"


def by_a_factor(whose: str, log: float) -> str:
    """ ", their variances a factor of 1.8"; empty where that is 1, as it is printed."""
    factor = f"{exp(log):.2g}"
    return "" if factor == "1" else f", {whose} variances a factor of {factor}"


@dataclass(frozen=True, slots=True)
class Score:
    """Mean loss (`Diagnosis.loss` says which) and share of right predictions of a loader's images.

    `batch_size`: images that share batch statistics; None where it makes no difference. `accuracy`:
    None where a prediction is not right or wrong. `unit`: of the loss; empty where it has its own.
    """

    loader: Loader
    statistics: Kind
    batch_size: int | None
    images: int
    loss: float
    accuracy: float | None
    unit: str = NATS

    @property
    def figures(self) -> str:
        """Loss and accuracy: "loss 0.413 and 85.2 % right"."""
        return figures(self.loss, self.accuracy, self.unit)


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
        factor = by_a_factor("its", self.variance_error or 0.0)
        return f"its running means are {self.mean_error:.2f} standard deviations off{factor}"


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

    @property
    def code(self) -> str:
        """How, where `do` has what is advised as a rule; else empty."""
        known = FINDINGS[self.name]
        return known.code if known.do in self.do else ""


def finding(
    name: str, text: str, layers: Sequence[LayerReading] = (), *, harmful: bool = True, do: str = ""
) -> Finding:
    """`do`: instead of what the catalogue says."""
    names = tuple(each.name for each in layers)
    return Finding(
        name=name, harmful=harmful, evidence=text, do=do or FINDINGS[name].do, layers=names
    )


def said_once(found: Iterable[Finding], costs: str) -> Iterator[Finding]:
    """The same, where only the first of those that rest on these figures repeats them."""
    first = None
    for each in found:
        if costs not in each.evidence:
            yield each
        elif first is None:
            first = each.name
            yield each
        else:
            same = f"the same figures as for {first}: they do not tell which costs what"
            yield replace(each, evidence=each.evidence.replace(costs, same))


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What `diagnose` found; `findings` with the likeliest cause first, none in a healthy network.

    `loss`: what it means. `images`: looked at, of each loader. `batch_size`: the training loader's
    own. `running`: mean and variance, (C,), that eval() uses, by layer; `population`: those that
    `recalibrated` writes; `worse_recalibrated`: the loaders whose images they suit worse than the
    running ones.
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
    running: Mapping[str, tuple[Tensor, ...]] = field(repr=False)
    population: Mapping[str, PooledStatistics] = field(repr=False)

    def __str__(self) -> str:
        """What `bnbench diagnose` prints."""
        from bnbench.diagnosis import words

        return words.text(self)

    def html(self) -> str:
        """What `bnbench diagnose --html` writes: a page with pictures that needs nothing else."""
        from bnbench.diagnosis import page

        return page.page(self)

    def _repr_html_(self) -> str:
        """The page in a notebook, in a frame of its own."""
        page = escape(self.html())
        style = "width: 100%; height: 70vh; border: 1px solid #8884; resize: vertical"
        sandbox = "allow-popups allow-popups-to-escape-sandbox"  # links to sources
        return (
            f'<iframe sandbox="{sandbox}" srcdoc="{page}" style="{style}" '
            'title="bnbench diagnose"></iframe>'
        )

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

    @property
    def against(self) -> tuple[str, str] | None:
        """Why not to recalibrate, and what to do instead; None where nothing speaks against it."""
        if self.worse_recalibrated:
            where = " and the ".join(f"{each} loader's" for each in self.worse_recalibrated)
            why = f"with recalibrated statistics the model is worse on the {where} images"
            return why, "keep the running statistics"
        for each in self.findings:
            if each.name == "mode-branch":
                why = "the rest of the network does something else in train() than in eval()"
                return why, each.do
        return None

    def recalibrated(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of the same model with the population's statistics as running ones.

        The variance is unbiased, as torch keeps it. Everything else is the tensor that was there.
        Raises UsageError where something speaks `against` it.
        """
        if self.against:
            raise UsageError(self.against[0], do=self.against[1])
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
        del record["population"], record["running"]
        finite: dict[str, Any] = json.loads(json.dumps(record), parse_constant=lambda _: None)
        return finite
