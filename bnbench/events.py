"""What a run states: facts, and the moments at which they hold.

`train` yields moments, `sinks` write them down. Facts do not know when they were found: evaluations
and probes return them, and the loop says where in the run it stands. Losses are in nats;
accuracies and disagreement are fractions of 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Split: TypeAlias = Literal["train", "val", "test"]
Statistics: TypeAlias = Literal["running", "batch", "population"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Training since the last report: the mean and the largest minibatch loss, the rate used."""

    loss: float
    loss_max: float
    lr: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Loss and accuracy of frozen weights on `images` images under one kind of statistics."""

    split: Split
    stats: Statistics
    images: int
    loss: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
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
class Confusion:
    """How often images of each class (a row) were taken for each class (a column)."""

    split: Split
    stats: Statistics
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Correctness:
    """Which images of a split were classified correctly, one bit each, in the dataset's order.

    `bits`: base64 of bytes whose highest bit comes first; bits after the last image are 0.
    """

    split: Split
    stats: Statistics
    images: int
    bits: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One number of a probe: `layer` is a module of the network, or "network" for all of it.

    `name`: which of the probe's quantities. `value`: in the unit that the probe documents.
    """

    probe: str
    layer: str
    name: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How values of a layer are distributed: counts in bins of equal width from `low` to `high`."""

    probe: str
    layer: str
    name: str
    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Something of what `diagnose` looks for, seen in training: its name in the catalogue, where
    (modules of the network) and what says so."""

    name: str
    layers: tuple[str, ...]
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diverged:
    """The run met the divergence criterion of its configuration: a result, not a failure."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The budget is spent."""


Measurement: TypeAlias = Evaluation | Gap | Confusion | Correctness
"""What an evaluation states."""

Fact: TypeAlias = Step | Measurement | Reading | Histogram | Found | Diverged | Finished
"""What `metrics.jsonl` holds, one line each."""


KINDS: dict[str, type[Fact]] = {
    "step": Step,
    "eval": Evaluation,
    "gap": Gap,
    "probe": Reading,
    "histogram": Histogram,
    "confusion": Confusion,
    "correct": Correctness,
    "finding": Found,
    "diverged": Diverged,
    "finished": Finished,
}
"""What `metrics.jsonl` calls each fact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Facts that hold at one place of a run, in the order in which they were found.

    `step`: optimizer steps done. `examples`: images trained on. `train_seconds`: of training work
    alone, without evaluation, logging and checkpoints.
    """

    step: int
    examples: int
    train_seconds: float
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class SafePoint:
    """Between two steps, with everything before it already stated.

    A checkpoint taken while `train` is suspended here resumes bit for bit.
    """

    step: int
