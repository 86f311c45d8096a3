"""The metrics that claims name: what a run, or a row of runs, is reduced to.

test/running/accuracy          split/statistics/quantity, from a run's last evaluation
val/gap/accuracy               running minus batch statistics at the end: + eval mode is better
val/running/examples_to_target when an accuracy is reached, twice in a row; as log₂
usable_lr_max                  the largest learning rate that trains, as log₁₀
probe/batch_noise/noise        a probe's reading, for the network or a mean over layers
images_per_second              what training costs, as log₂
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from bnbench.config import schema
from bnbench.wording import listing, nearest

SPLITS = ("train", "val", "test")
STATISTICS = ("running", "batch", "population")
QUANTITIES = ("accuracy", "error", "loss")
GAPS = ("accuracy", "loss", "disagreement", "kl")
TO_TARGET = ("examples_to_target", "steps_to_target", "seconds_to_target")
USABLE = ("usable_lr_max", "usable_lr_decades")
COSTS = ("images_per_second", "train_seconds")
LR = "optim.lr"


@dataclass(frozen=True, slots=True)
class EndReading:
    """What the last evaluation of a split says under one kind of statistics.

    Running statistics are those of inference, batch statistics those of training; population
    statistics are recomputed over training images with frozen weights ("precise BN").
    """

    split: str
    statistics: str
    quantity: str


@dataclass(frozen=True, slots=True)
class GapReading:
    """Running minus batch statistics (eval mode minus training mode) at the last evaluation of a
    split. Above 0, eval mode is better in accuracy, and worse in loss."""

    split: str
    quantity: str


@dataclass(frozen=True, slots=True)
class ToTarget:
    """Examples, steps or seconds to an accuracy, as log₂: a difference of 1 is twice as many."""

    split: str
    statistics: str
    quantity: str


@dataclass(frozen=True, slots=True)
class UsableLr:
    """The largest learning rate that trains, or the width of their range; in decades."""

    quantity: str


@dataclass(frozen=True, slots=True)
class Speed:
    """A whole run's speed or time, as log₂."""

    quantity: str


@dataclass(frozen=True, slots=True)
class ProbeReading:
    """A probe's reading; of several layers, their mean.

    `layers`: a pattern as in file names; "network"; or "inputs": of each activation's input.
    """

    probe: str
    layers: str
    quantity: str


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table that others have written; `unit`: "points" of percentages, or ""."""

    name: str
    unit: str


Metric: TypeAlias = EndReading | GapReading | ToTarget | UsableLr | Speed | ProbeReading | Column


# By name, all but the readings of probes.
METRICS: dict[str, Metric] = {
    **{f"{s}/{k}/{q}": EndReading(s, k, q) for s in SPLITS for k in STATISTICS for q in QUANTITIES},
    **{f"{split}/gap/{name}": GapReading(split, name) for split in SPLITS for name in GAPS},
    **{
        f"{split}/{kind}/{name}": ToTarget(split, kind, name)
        for split in ("train", "val")
        for kind in STATISTICS
        for name in TO_TARGET
    },
    **{name: UsableLr(name) for name in USABLE},
    **{name: Speed(name) for name in COSTS},
}


def parse_metric(text: str) -> Metric:
    """The metric of a name. Raises ValueError, with the nearest name if one is near."""
    if text in METRICS:
        return METRICS[text]
    match text.split("/"):
        case ["probe", probe, *layers, quantity] if len(layers) <= 1:
            if probe not in schema.ProbesConfig.model_fields:
                close = nearest(probe, schema.ProbesConfig.model_fields)
                hint = f"did you mean {close}?" if close else "`bnbench explain probes` lists them"
                raise ValueError(f"{probe} is not a probe; {hint}")
            return ProbeReading(probe, layers[0] if layers else "*", quantity)
    close = nearest(text, METRICS, 0.6)
    if close:
        raise ValueError(f"did you mean {close}?")
    raise ValueError(
        f"{listing(SPLITS)}/{listing(STATISTICS)}/{listing((*QUANTITIES, *TO_TARGET))}, "
        f"{listing((*USABLE, *COSTS))}, val/gap/{listing(GAPS)}, or probe/batch_noise/noise"
    )


def of_test_images(metric: Metric) -> bool:
    """Whether it is a mean over test images of what is right or wrong with each."""
    match metric:
        case EndReading("test", _, "accuracy" | "error") | GapReading("test", "accuracy"):
            return True
        case _:
            return False


def worst(metric: Metric) -> Literal["high", "low"] | None:
    """At which end of the metric a run is that diverged; None: it has no value there."""
    match metric:
        case EndReading(quantity="accuracy"):
            return "low"
        case EndReading() | ToTarget():
            return "high"
        case _:
            return None


def unit(metric: Metric) -> str:
    """What a difference of the metric counts; "" for pure numbers."""
    match metric:
        case (
            EndReading(quantity="accuracy" | "error")
            | GapReading(quantity="accuracy" | "disagreement")
            | ProbeReading(probe="shifted_images")
        ):
            return "points"
        case EndReading() | GapReading():
            return "nats"
        case ToTarget() | Speed():
            return "doublings"
        case UsableLr():
            return "decades"
        case ProbeReading():
            return ""
        case Column():
            return metric.unit
