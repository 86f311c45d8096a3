"""The frozen facts that a run can state.

`train` yields them, `sinks` write them down. Each carries where in the run it holds: `step`
(optimizer steps done), `examples` (images seen) and `train_seconds` (training work alone:
evaluation, logging and checkpoints are not in it). Losses are in nats; accuracies, disagreement
are fractions of 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Split: TypeAlias = Literal["train", "val", "test"]
Statistics: TypeAlias = Literal["running", "batch", "population"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Where in the run a fact holds."""

    step: int
    examples: int
    train_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Fact):
    """Training since the last report: the mean and the largest minibatch loss, the rate used."""

    loss: float
    loss_max: float
    lr: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation(Fact):
    """Loss and accuracy of frozen weights on `images` images under one kind of statistics."""

    split: Split
    stats: Statistics
    images: int
    loss: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap(Fact):
    """Eval-mode discrepancy: running minus batch statistics, same weights, same images.

    `disagreement`: share of images whose predicted class differs.
    `kl`: mean KL(p_batch || p_running), in nats.
    """

    split: Split
    images: int
    loss: float
    accuracy: float
    disagreement: float
    kl: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion(Fact):
    """How often images of each class (a row) were taken for each class (a column)."""

    split: Split
    stats: Statistics
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe(Fact):
    """One reading of a probe: `layer` is a module of the network, or "network" for all of it.

    `name`: which of the probe's quantities; `value` in its unit, which the probe states.
    """

    probe: str
    layer: str
    name: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram(Fact):
    """How values of a layer are distributed: counts in bins of equal width from `low` to `high`."""

    probe: str
    layer: str
    name: str
    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diverged(Fact):
    """The run met the divergence criterion of its configuration: a result, not a failure."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Fact):
    """The budget is spent."""


Measurement: TypeAlias = Evaluation | Gap | Confusion
"""What an evaluation states."""

Reading: TypeAlias = Probe | Histogram
"""What a probe states."""

Event: TypeAlias = Step | Measurement | Reading | Diverged | Finished
"""What `metrics.jsonl` holds, one line each."""


@dataclass(frozen=True, slots=True)
class SafePoint:
    """Not a fact but a place: between two steps, with everything before it already stated.

    A checkpoint taken while `train` is suspended here resumes bit for bit.
    """

    step: int
