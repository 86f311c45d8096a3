"""An experiment as written: its base, setups, axes and seeds, each as layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, TypeAlias

from bnbench.config import layers, schema
from bnbench.config.faults import Faults, Place
from bnbench.config.layers import Blocks, Layer
from bnbench.config.metrics import Metric, unit
from bnbench.config.schema import Key
from bnbench.config.sentences import is_whole_number
from bnbench.config.yaml import Path, Source
from bnbench.wording import in_words, listing, point_words

Seeds: TypeAlias = Sequence[int]
"""A tuple or, so that `seeds: 1000000000` costs nothing before it is refused, a range."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A key and the distinct values that it takes, each a layer."""

    key: Key
    values: tuple[Any, ...]
    layers: tuple[Layer, ...]
    place: Place

    @property
    def name(self) -> str:
        """The dotted key."""
        return ".".join(self.key)


@dataclass(frozen=True, slots=True)
class Setup:
    """A named arm: a patch on the base, and values of its own for axes of the experiment."""

    name: str
    layer: Layer
    axes: tuple[Axis, ...] = ()  # each instead of the experiment's axis of that key


@dataclass(frozen=True, slots=True)
class Arm:
    """A side of a comparison: a setup, at values of axes where these are given."""

    setup: str
    at: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        values = ",".join(f"{key}={in_words(value)}" for key, value in self.at)
        return f"{self.setup}@{values}" if values else self.setup

    @property
    def words(self) -> str:
        """The same in the words of tables and sentences."""
        point = point_words(dict(self.at))
        return f"{self.setup} at {point}" if point else self.setup


class Claim(schema.ClaimConfig):
    """What is to be judged: `better` minus `worse` in the metric, at the same seed.

    Of two arms the first minus the second counts: a difference of differences. Without
    `worse_arms` the opponent is zero.
    """

    measured: Metric
    better_arms: tuple[Arm, ...]
    worse_arms: tuple[Arm, ...]

    @property
    def unit(self) -> str:
        """Of its differences."""
        return "doublings" if self.log else unit(self.measured)


class Published(schema.PublishedConfig):
    """Numbers of others for one arm."""

    measured: Metric
    arm: Arm


@dataclass(frozen=True, slots=True)
class Overrides:
    """Arguments as typed: `set` and `over` hold `KEY=VALUE` texts."""

    set: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    seeds: int | None = None
    seed: int | None = None
    setup: str | None = None  # of the file's setups this one alone
    claims: tuple[str, ...] = ()  # ids; the runs of these claims alone, judged among the others


@dataclass(frozen=True, slots=True)
class ExperimentConfig:
    """An experiment as written, overrides included; `plans.expand` makes its runs."""

    name: str
    question: str | None
    base: Blocks
    base_layers: tuple[Layer, ...]  # the file and the profile in force
    setups: tuple[Setup, ...]
    axes: tuple[Axis, ...]
    seeds: Seeds
    looks: tuple[int, ...]  # numbers of seeds at which claims are judged; (): once, at all of them
    log: tuple[schema.Logger, ...]
    log_place: Place
    tune: schema.TuneConfig | None
    claims: tuple[Claim, ...]
    published: tuple[Published, ...]
    registered: schema.RegisteredConfig | None
    claims_only: bool  # whether the profile names them: runs of no claim are left out
    profile: str | None  # which of the file's profiles is in force
    sets: Blocks  # values that win over base, setups and axes
    set_layers: tuple[Layer, ...]
    label: str | None  # the setup of a resolved run's own file
    swept: tuple[str, ...]  # the axes of a resolved run's own file
    notes: tuple[str, ...]
    path: FilePath
    overrides: Overrides  # the command line's
    overridden: bool  # whether they, or `--until`, changed anything
    source: Source = field(repr=False)

    @property
    def aims(self) -> tuple[Claim, ...] | None:
        """The claims that runs are trained for: `--claim`'s, else the profile's; None: all runs."""
        asked = self.overrides.claims
        if asked:
            return tuple(claim for claim in self.claims if claim.id in asked)
        return self.claims if self.claims_only else None

    @property
    def raced(self) -> bool:
        """Whether values of the tuned axis that are worse are given up on the way."""
        return self.tune is not None and self.tune.race

    @property
    def stages(self) -> tuple[int, ...]:
        """The looks; all seeds for a race without any; () where all runs are asked for at once."""
        return self.looks or ((len(self.seeds),) if self.raced else ())

    def axes_of(self, setup: Setup | None) -> tuple[Axis, ...]:
        """The axes that a setup is crossed with, in the experiment's order."""
        own = {axis.key: axis for axis in setup.axes} if setup else {}
        return tuple(own.get(axis.key, axis) for axis in self.axes)


def read_looks(
    seeds: Seeds, source: Source, values: Sequence[int] | None, faults: Faults
) -> tuple[int, ...]:
    """Numbers of seeds at which claims are judged, of which the last is all; () for once."""
    looks = tuple(values or ())
    if looks and (looks[-1] != len(seeds) or list(looks) != sorted(set(looks))):
        numbers = listing(map(str, looks), "and")
        said = f"looks must rise to {len(seeds)}, the number of seeds, not {numbers}"
        hint = "or --set looks=null: judged once, at all"
        faults.add(source.place(("looks",), key=True), said, hint)
    return looks


def read_axis(name: str, values: Any, source: Source, notes: list[str]) -> Axis:
    """An axis whose form is sound; equal values count once, and a note says so."""
    key = tuple(name.split("."))
    listed: list[tuple[Path, Any]]
    if isinstance(values, dict):
        ((form, (first, last, count)),) = values.items()
        points = _points(form, first, last, count, whole=is_whole_number(key))
        listed = [((name, form), value) for value in points]
    else:
        listed = [((name, i), value) for i, value in enumerate(values)]
    distinct: dict[Any, tuple[Path, Any]] = {}
    for path, value in listed:
        distinct.setdefault(_same(value), (path, value))
    if len(distinct) < len(listed):
        notes.append(f"{name} lists {len(listed)} values, {len(distinct)} of them distinct")
    values = tuple(value for _, value in distinct.values())
    patches = [Layer(source.part(path), layers.patch(key, value), key)
               for path, value in distinct.values()]  # fmt: skip
    return Axis(key, values, tuple(patches), source.place((name,), key=True))


def _same(value: Any) -> Any:
    """Equal for equal values: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, tuple):
        return tuple(_same(item) for item in value)
    if isinstance(value, dict):  # in a list, as the options of a user's own layer may hold
        return frozenset((key, _same(item)) for key, item in value.items())
    return (isinstance(value, bool | str), value)


def _points(form: str, first: float, last: float, count: int, *, whole: bool) -> list[int | float]:
    """The ends as typed; between them 6 significant digits, so that ids are short and stable."""
    result: list[int | float] = [first]
    for i in range(1, count - 1):
        t = i / (count - 1)
        if form == "log":
            value = math.exp(math.log(first) * (1 - t) + math.log(last) * t)
        else:
            value = first * (1 - t) + last * t
        result.append(value if whole else float(f"{value:.6g}"))
    return [round(value) if whole else value for value in [*result, last]]
