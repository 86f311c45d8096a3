"""Setups × axes × seeds: from an experiment to its runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bnbench.config import claims, layers, schema
from bnbench.config.experiments import Axis, ExperimentConfig, Setup
from bnbench.config.faults import Faults, Place, counted, cut, listing, shortened
from bnbench.config.feasible import Obstacle, obstacles
from bnbench.config.identity import default_setup, identity
from bnbench.config.layers import Blocks, Layer
from bnbench.config.risks import Risks
from bnbench.config.schema import BLOCKS, Key
from bnbench.config.sentences import Flaw, validated_block
from bnbench.errors import Fault, UsageError

MAX_RUNS = 10_000


@dataclass(frozen=True, slots=True)
class Point:
    """One setup at one value of every axis, merged."""

    setup: Setup | None
    blocks: Blocks
    layers: tuple[Layer, ...]
    left_out: frozenset[Key]  # axis and command-line keys without meaning here

    @property
    def name(self) -> str | None:
        """The name of the setup."""
        return None if self.setup is None else self.setup.name

    def report(self, obstacle: Obstacle, faults: Faults) -> None:
        """Adds an obstacle to training, at the first of its keys that is set."""
        paths = [tuple(dotted.split(".")) for dotted in obstacle.keys]
        path = next((path for path in paths if path[1] in self.blocks[path[0]]), paths[0][:1])
        place = layers.origin(self.layers, path, key=True)
        faults.add(place, obstacle.message, obstacle.hint, self.name)


@dataclass(frozen=True, slots=True)
class Plan:
    """The runs of an experiment, seeds outermost, with what is worth saying about them."""

    runs: tuple[schema.RunConfig, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    grid: str  # "4 setups × 2 values of optim.lr (gn: 3) × 3 seeds"
    path: Path
    points: tuple[Point, ...] = field(repr=False)  # of the first runs: those with the first seed
    setups: int = 0

    def only(self) -> schema.RunConfig:
        """The run of an experiment that has just one; raises UsageError otherwise."""
        if len(self.runs) == 1:
            return self.runs[0]
        raise UsageError(
            f"{self.path} describes {counted(len(self.runs), 'run')} ({self.grid})",
            do=f"bnbench sweep {self.path} trains them",
        )

    def faults(self, refused: Iterable[tuple[schema.RunConfig, Obstacle]]) -> list[Fault]:
        """What keeps runs of this plan from training, at the places in the file that say so."""
        found = Faults()
        for run, obstacle in refused:
            self.points[self.runs.index(run) % len(self.points)].report(obstacle, found)
        return list(found.error(self.setups).faults)


def expand(experiment: ExperimentConfig, *, max_runs: int = MAX_RUNS) -> Plan:
    """The runs: seeds outermost, then setups, then axes; equal ones once.

    Raises ConfigError with the faults of all runs, each distinct one once; a grid of more than
    `max_runs` is refused before it is expanded.
    """
    crossing = Crossing(experiment, Faults())
    crossing.limit(max_runs)
    crossing.faults.check()
    first = crossing.configs()
    crossing.faults.check(len(experiment.setups))
    risks = Risks()
    unique: dict[str, tuple[Point, schema.RunConfig]] = {}
    for point, config in first:
        risks.add(config)
        kept = unique.setdefault(identity(config), (point, config))
        if kept[0] is not point:
            crossing.collapse(kept[0], point, config)
    runs = tuple(
        config.model_copy(update={"seed": seed})
        for seed in experiment.seeds
        for _, config in unique.values()
    )
    warnings = (
        *risks.warnings(),
        *unequal_trials(experiment),
        *(
            f"claim {claim.id} cannot be judged: {reason}"
            for claim, reason in claims.doubts(experiment.claims, runs, experiment.tune)
        ),
    )
    return Plan(
        runs,
        (*experiment.notes, *crossing.notes()),
        warnings,
        grid(experiment),
        experiment.path,
        tuple(point for point, _ in unique.values()),
        len(experiment.setups),
    )


def expand_one(experiment: ExperimentConfig) -> schema.RunConfig:
    """The single run of an experiment; raises UsageError where it has several."""
    return expand(experiment).only()


def find_faults(experiment: ExperimentConfig, faults: Faults) -> None:
    """Adds the faults of the runs, for a report together with those of the file."""
    crossing = Crossing(experiment, faults)
    if crossing.limit(MAX_RUNS):
        crossing.configs()


# --- sizes --------------------------------------------------------------------------------


def size(experiment: ExperimentConfig) -> int:
    """How many runs the grid has, before equal ones collapse."""
    points = sum(
        math.prod(len(axis.values) for axis in experiment.axes_of(setup))
        for setup in experiment.setups or (None,)
    )
    return points * count(experiment.seeds)


def count(seeds: Sequence[int]) -> int:
    """How many seeds; a range longer than the machine's words has no len()."""
    return seeds.stop if isinstance(seeds, range) else len(seeds)


def grid(experiment: ExperimentConfig) -> str:
    """The grid in words, e.g. `4 setups × 2 values of optim.lr (gn: 3) × 3 seeds`."""
    parts = [counted(len(experiment.setups), "setup")] if experiment.setups else []
    for axis in experiment.axes:
        others = {
            setup.name: len(own.values)
            for setup in experiment.setups
            for own in setup.axes
            if own.key == axis.key and len(own.values) != len(axis.values)
        }
        suffix = f" ({_in_short(others)})" if others else ""
        parts.append(f"{counted(len(axis.values), 'value')} of {axis.name}{suffix}")
    return " × ".join([*parts, counted(count(experiment.seeds), "seed")])


def _in_short(counts: dict[str, int]) -> str:
    return cut([f"{shortened(name)}: {count:,}" for name, count in counts.items()])


def unequal_trials(experiment: ExperimentConfig) -> Iterator[str]:
    """A warning where the axis that is tuned has more values in one setup than in another."""
    for axis in experiment.axes:
        if experiment.tune is None or axis.name != experiment.tune.axis:
            continue
        counts = {
            setup.name: len(each.values)
            for setup in experiment.setups
            for each in experiment.axes_of(setup)
            if each.key == axis.key
        }
        if len(set(counts.values())) > 1:
            yield (
                f"tune.axis {axis.name}: setups with more values have more trials to pick the "
                f"best from ({_in_short(counts)})"
            )


# --- crossing -----------------------------------------------------------------------------


@dataclass(slots=True)
class Crossing:
    """Crosses setups with axes, and keeps what it learns while doing so."""

    experiment: ExperimentConfig
    faults: Faults
    checked: dict[tuple[str, int], tuple[Any, schema.Block | None, list[Flaw]]] = field(
        default_factory=dict
    )
    collapsed: dict[str, int] = field(default_factory=dict)

    def limit(self, max_runs: int) -> bool:
        """Whether the grid is small enough; a fault if it is not."""
        number = size(self.experiment)
        if number > max_runs:
            self.faults.add(
                Place(0, 0, 0, str(self.experiment.path)),
                f"the grid has {number:,} runs ({grid(self.experiment)}), more than {max_runs:,}",
                "sweep --max-runs lifts this limit",
            )
        return number <= max_runs

    def points(self) -> Iterator[Point]:
        """Every setup at every point of its axes.

        `--set` is applied before the axes, to choose the kind that they must fit, and after.
        """
        experiment = self.experiment
        for setup in experiment.setups or (None,):
            stack, blocks = experiment.base_layers, experiment.base
            if setup is not None:
                stack, blocks = (*stack, setup.layer), layers.merged(blocks, setup.layer.blocks)
            blocks = layers.merged(blocks, layers.fitting(blocks, experiment.sets)[0])
            axes = [axis.layers for axis in experiment.axes_of(setup)]
            for values in itertools.product(*axes):
                patch: dict[str, Any] = {}
                for layer in values:
                    patch = layers.deeper(patch, layer.blocks)
                fit, unused = layers.fitting(blocks, self.without_assigned_kinds(patch))
                merged = layers.merged(blocks, fit)
                sets, overruled = layers.fitting(merged, experiment.sets)
                yield Point(
                    setup,
                    layers.merged(merged, sets),
                    (*stack, *values, *experiment.set_layers),
                    frozenset(unused | overruled),
                )

    def without_assigned_kinds(self, patch: Blocks) -> Blocks:
        """Without the kinds that `--set` overrules: they must not decide which keys fit."""
        result = dict(patch)
        for name, block in patch.items():
            tag = BLOCKS[name].tag
            if tag in block and tag in self.experiment.sets.get(name, {}):
                result[name] = {key: value for key, value in block.items() if key != tag}
        return result

    def configs(self) -> list[tuple[Point, schema.RunConfig]]:
        """Each valid, feasible point with the first seed; the others leave faults."""
        result = []
        never_used: dict[str | None, frozenset[Key]] = {}
        for point in self.points():
            left_out = point.left_out
            never_used[point.name] = never_used.get(point.name, left_out) & left_out
            config = self.config(point)
            if config is not None:
                result.append((point, config))
        everywhere = frozenset.intersection(*never_used.values())
        for key in everywhere:
            for axis in self.experiment.axes:
                self.useless(axis, key)
            if key[1] in self.experiment.sets.get(key[0], {}):
                place = layers.origin(self.experiment.set_layers, key, key=True)
                self.faults.add(place, *_no_run_has(key))
        for setup in self.experiment.setups:
            for axis in setup.axes:
                for key in never_used[setup.name] - everywhere:
                    self.useless(axis, key, setup)
        return result

    def config(self, point: Point) -> schema.RunConfig | None:
        """The run of a point, or None and its faults."""
        blocks: dict[str, Any] = {}
        for name in BLOCKS:
            blocks[name], flaws = self.checked_block(name, point.blocks[name])
            for flaw in flaws:
                place = layers.origin(point.layers, (name, *flaw.path), key=flaw.key)
                self.faults.add(place, flaw.message, flaw.hint, point.name)
        if any(block is None for block in blocks.values()):
            return None
        names = [axis.name for axis in self.experiment.axes]
        config = schema.RunConfig.model_construct(
            experiment=self.experiment.name,
            setup=point.name or self.experiment.label or default_setup(blocks["norm"]),
            swept=(*(key for key in self.experiment.swept if key not in names), *names),
            seed=self.experiment.seeds[0],
            **blocks,
        )
        hindered = obstacles(config)
        for obstacle in hindered:
            point.report(obstacle, self.faults)
        return None if hindered else config

    def checked_block(
        self, name: str, block: Mapping[str, Any]
    ) -> tuple[schema.Block | None, list[Flaw]]:
        """Merging shares what it does not change, so most blocks of a grid are seen once."""
        known = self.checked.get((name, id(block)))
        if known is None:
            model, flaws = validated_block(name, block, whole=True)
            known = self.checked[name, id(block)] = (block, model, flaws)
        return known[1], known[2]

    def useless(self, axis: Axis, key: Key, setup: Setup | None = None) -> None:
        """A fault if no run (of a setup) has the key of an axis."""
        if axis.key[:2] == key:
            self.faults.add(axis.place, *_no_run_has(key, setup))

    # --- what collapsed -------------------------------------------------------------------

    def collapse(self, kept: Point, same: Point, config: schema.RunConfig) -> None:
        """Counts a point that is the same run as an earlier one, under the reason for it."""
        reasons = []
        for block, name in sorted(kept.left_out | same.left_out):
            tag = BLOCKS[block].tag
            kind = getattr(getattr(config, block), tag or "", None)
            reasons.append(f"{block}.{name} has no meaning under {block}.{tag} {kind}")
        reasons += [f"--set {dotted} decides it" for dotted in self.decisive()]
        reason = listing(reasons, "and") if reasons else "nothing that decides the numbers differs"
        self.collapsed[reason] = self.collapsed.get(reason, 0) + 1

    def decisive(self) -> list[str]:
        """Assigned keys that a setup or an axis gives as well."""
        given: set[Key] = {axis.key[:2] for axis in self.experiment.axes}
        for setup in self.experiment.setups:
            given |= {(name, key) for name, block in setup.layer.blocks.items() for key in block}
        sets = self.experiment.sets
        return [f"{name}.{key}" for name in sets for key in sets[name] if (name, key) in given]

    def notes(self) -> Iterator[str]:
        """How many runs are trained once instead of several times, and why."""
        seeds, total = len(self.experiment.seeds), size(self.experiment)
        for reason, points in self.collapsed.items():
            number = points * seeds
            verb = "is" if number == 1 else "are"
            yield (
                f"{number:,} of {total:,} runs {verb} the same as another, since {reason}: "
                "trained once"
            )


def _no_run_has(key: Key, setup: Setup | None = None) -> tuple[str, str]:
    block, name = key
    where = f" of setup {shortened(setup.name)}" if setup else ""
    family = BLOCKS[block]
    hint = f"{name} is a key of {family.tag} {listing(family.kinds_with(name))}"
    return f"no run{where} has the key {block}.{name}", hint
