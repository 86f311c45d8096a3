"""An experiment as written: what `load` reads and `expand` crosses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bnbench.config.axes import Axis, Seeds
from bnbench.config.merge import Tree
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
class ExperimentConfig:
    """An experiment as written, with the command line's overrides; `expand` makes its runs."""

    name: str
    question: str | None
    base: Tree
    setups: tuple[Setup, ...]
    axes: tuple[Axis, ...]
    seeds: Seeds
    tune: Tune | None
    claims: tuple[str, ...]
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
