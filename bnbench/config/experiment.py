"""An experiment as written: what `load` reads and `expand` crosses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bnbench.config.axes import Axis, Seeds
from bnbench.config.labels import in_words
from bnbench.config.merge import Tree
from bnbench.config.metrics import Metric
from bnbench.config.nodes import Mapping


@dataclass(frozen=True, slots=True)
class Setup:
    """A named arm: a patch on the base, and values of its own for axes of the experiment."""

    name: str
    patch: Tree
    axes: tuple[Axis, ...] = ()  # each in the place of the experiment's axis of that key


@dataclass(frozen=True, slots=True)
class Tune:
    """The axis from which the report picks a value per cell, and the metric it picks by."""

    axis: str
    by: str


@dataclass(frozen=True, slots=True)
class Arm:
    """A side of a comparison: a setup, at values of axes where these are given."""

    setup: str
    at: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        values = ",".join(f"{key}={in_words(value)}" for key, value in self.at)
        return f"{self.setup}@{values}" if values else self.setup


@dataclass(frozen=True, slots=True)
class Claim:
    """What is to be judged: `better` minus `worse` in `metric`, at the same seed.

    Of two arms the first minus the second counts: a difference of differences. Without `worse` the
    opponent is zero.
    """

    id: str
    says: str
    metric: Metric
    metric_name: str
    better: tuple[Arm, ...]
    worse: tuple[Arm, ...]
    at: dict[str, Any]
    slope_over: str | None
    target: float | None
    log: bool  # log₂ of the metric
    when: Literal["last", "first", "mean"]
    smallest_effect: float
    direction: Literal["up", "down", "two-sided"]
    literature: str | None


@dataclass(frozen=True, slots=True)
class ExperimentConfig:
    """An experiment as written, with the command line's overrides; `expand` makes its runs."""

    name: str
    question: str | None
    base: Tree
    setups: tuple[Setup, ...]
    axes: tuple[Axis, ...]
    seeds: Seeds
    tune: Tune | None
    claims: tuple[Claim, ...]
    profile: str | None  # which of the file's profiles is in it
    sets: Tree  # assignments that win over base, setups and axes
    label: str | None  # the setup of a resolved run's own file
    swept: tuple[str, ...]  # the axes of a resolved run's own file
    notes: tuple[str, ...]
    path: Path
    text: str  # the file, verbatim
    overridden: bool  # whether the command line changed anything
    root: Mapping = field(repr=False)  # the whole file, located

    def axes_of(self, setup: Setup | None) -> tuple[Axis, ...]:
        """The axes that a setup is crossed with, in the experiment's order."""
        own = {axis.key: axis for axis in setup.axes} if setup else {}
        return tuple(own.get(axis.key, axis) for axis in self.axes)
