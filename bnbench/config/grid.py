"""Setups × axes × seeds: from an experiment to its runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bnbench.config import keys, schema
from bnbench.config.axes import Axis
from bnbench.config.check import check_block
from bnbench.config.claims import doubts
from bnbench.config.experiment import ExperimentConfig, Setup
from bnbench.config.faults import Faults, Problem, counted, listing, shortened
from bnbench.config.feasible import Obstacle, obstacles
from bnbench.config.identity import identity
from bnbench.config.labels import default_setup
from bnbench.config.merge import Tree, deeper, fitting, merged
from bnbench.config.nodes import Entry, Key, Mapping, Origin, Source, nested
from bnbench.config.risks import Risks
from bnbench.errors import ConfigError, Fault, UsageError

MAX_RUNS = 10_000


@dataclass(frozen=True, slots=True)
class Plan:
    """The runs of an experiment, seeds outermost, with what is worth saying about them."""

    runs: tuple[schema.RunConfig, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    grid: str  # "4 setups × 2 values of optim.lr (gn: 3) × 3 seeds"
    path: Path
    faults: Callable[[Iterable[tuple[schema.RunConfig, Obstacle]]], list[Fault]]
    """What keeps some of the runs from training, at the places in the file that say so."""

    def only(self) -> schema.RunConfig:
        """The run of an experiment that has just one; raises UsageError otherwise."""
        if len(self.runs) == 1:
            return self.runs[0]
        raise UsageError(
            f"{self.path} describes {counted(len(self.runs), 'run')} ({self.grid})",
            do=f"bnbench sweep {self.path} trains them",
        )


@dataclass(frozen=True, slots=True)
class Point:
    """One setup at one value of every axis, merged."""

    setup: Setup | None
    tree: Tree
    left_out: frozenset[Key]  # axis and command-line keys without meaning here


def expand(experiment: ExperimentConfig, *, max_runs: int = MAX_RUNS) -> Plan:
    """The runs: seeds outermost, then setups, then axes; equal ones once.

    Raises ConfigError with the faults of all runs, each distinct one once; a grid of more than
    `max_runs` is refused before it is expanded.
    """
    crossing = Crossing(experiment)
    crossing.cap(max_runs)
    first = crossing.configs()
    crossing.faults.check(len(experiment.setups))
    risks = Risks()
    unique: dict[str, tuple[Point, schema.RunConfig]] = {}
    for point, config in first:
        risks.add(config)
        kept = unique.setdefault(identity(config), (point, config))
        if kept[0] is not point:
            crossing.collapse(kept, (point, config))
    runs = tuple(
        config.model_copy(update={"seed": seed})
        for seed in experiment.seeds
        for _, config in unique.values()
    )
    notes = (*experiment.notes, *crossing.notes())
    warnings = (
        *risks.warnings(),
        *unequal_trials(experiment),
        *(
            f"claim {claim.id} cannot be judged: {reason}"
            for claim, reason in doubts(experiment.claims, runs, experiment.tune)
        ),
    )

    def faults(refused: Iterable[tuple[schema.RunConfig, Obstacle]]) -> list[Fault]:
        found = Faults()
        for config, obstacle in refused:
            first = config.model_copy(update={"seed": experiment.seeds[0]})
            origin = crossing.place(unique[identity(first)][0].tree, obstacle.keys)
            found.extend([Problem(origin, obstacle.message, obstacle.hint)], config.setup)
        return found.listed(len(experiment.setups) or 1)

    return Plan(runs, notes, warnings, grid(experiment), experiment.path, faults)


def expand_one(experiment: ExperimentConfig) -> schema.RunConfig:
    """The single run of an experiment; raises UsageError where it has several."""
    return expand(experiment).only()


def run_faults(experiment: ExperimentConfig) -> Faults:
    """The faults of the runs, for a report together with those of the file."""
    crossing = Crossing(experiment)
    try:
        crossing.cap(MAX_RUNS)
    except ConfigError:
        return crossing.faults
    crossing.configs()
    return crossing.faults


def size(experiment: ExperimentConfig) -> int:
    """How many runs the grid has, before equal ones collapse."""
    points = sum(
        math.prod(len(axis.values) for axis in experiment.axes_of(setup))
        for setup in experiment.setups or (None,)
    )
    return points * _seeds(experiment)


def _seeds(experiment: ExperimentConfig) -> int:
    # A range longer than the machine's words has no len().
    seeds = experiment.seeds
    return seeds.stop if isinstance(seeds, range) else len(seeds)


def grid(experiment: ExperimentConfig) -> str:
    """The grid in words, e.g. `4 setups × 2 values of optim.lr (gn: 3) × 3 seeds`."""
    parts = [counted(len(experiment.setups), "setup")] if experiment.setups else []
    for axis in experiment.axes:
        others = own_counts(experiment, axis)
        suffix = f" ({in_short(others)})" if others else ""
        parts.append(f"{counted(len(axis.values), 'value')} of {axis.name}{suffix}")
    return " × ".join([*parts, counted(_seeds(experiment), "seed")])


def own_counts(experiment: ExperimentConfig, axis: Axis) -> dict[str, int]:
    """Setups that take another number of values than the axis has, with that number."""
    return {
        setup.name: len(own.values)
        for setup in experiment.setups
        for own in setup.axes
        if own.key == axis.key and len(own.values) != len(axis.values)
    }


def in_short(counts: dict[str, int]) -> str:
    """`gn: 3, ln: 4`; long lists are cut."""
    words = [f"{shortened(name)}: {count:,}" for name, count in counts.items()]
    rest = f" and {len(words) - 6} more" if len(words) > 7 else ""
    return ", ".join(words[:6] if rest else words) + rest


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
                f"best from ({in_short(counts)})"
            )


@dataclass(slots=True)
class Crossing:
    """Crosses setups with axes, and keeps what it learns on the way."""

    experiment: ExperimentConfig
    faults: Faults = field(default_factory=Faults)
    checked: dict[tuple[str, int], tuple[Mapping, schema.Block | None, list[Problem]]] = field(
        default_factory=dict
    )
    collapsed: dict[str, int] = field(default_factory=dict)

    def cap(self, max_runs: int) -> None:
        number = size(self.experiment)
        if number > max_runs:
            origin = Origin(Source(str(self.experiment.path), ""))
            self.faults.add(
                origin,
                f"the grid has {number:,} runs ({grid(self.experiment)}), more than {max_runs:,}",
                "sweep --max-runs lifts this limit",
            )
            self.faults.check()

    def points(self) -> Iterator[Point]:
        for setup in self.experiment.setups or (None,):
            axes = self.experiment.axes_of(setup)
            for values in itertools.product(*(axis.values for axis in axes)):
                patch: dict[str, Entry] = {}
                for axis, value in zip(axes, values, strict=True):
                    block, *rest = axis.key
                    entry = Entry(value.origin, value)
                    new = Entry(value.origin, nested(tuple(rest), entry))
                    patch[block] = deeper(patch[block], new) if block in patch else new
                yield self.point(
                    setup, {k: e.node for k, e in patch.items() if isinstance(e.node, Mapping)}
                )

    def point(self, setup: Setup | None, axes: Tree) -> Point:
        """Base, setup, axis values; `--set` before the axes, to choose their kind, and after."""
        sets, tree = self.experiment.sets, self.experiment.base
        if setup is not None:
            tree = merged(tree, setup.patch)
        tree = merged(tree, fitting(tree, sets)[0])
        axes, unused = fitting(tree, self.without_assigned_kinds(axes))
        tree = merged(tree, axes)
        sets, overruled = fitting(tree, sets)
        return Point(setup, merged(tree, sets), frozenset(unused | overruled))

    def without_assigned_kinds(self, axes: Tree) -> Tree:
        """Without the kinds that `--set` overrules: they must not decide which keys fit."""
        result = dict(axes)
        for name, block in axes.items():
            tag = keys.BLOCKS[name].tag
            if tag in block.entries and self.assigned(keys.BLOCKS[name]):
                entries = {key: entry for key, entry in block.entries.items() if key != tag}
                result[name] = Mapping(entries, block.origin)
        return result

    def configs(self) -> list[tuple[Point, schema.RunConfig]]:
        """Each valid, feasible point with the first seed; the others leave faults."""
        result = []
        never_used: dict[str | None, frozenset[Key]] = {}
        for point in self.points():
            left_out, name = point.left_out, point.setup.name if point.setup else None
            never_used[name] = never_used.get(name, left_out) & left_out
            config = self.config(point)
            if config is not None:
                result.append((point, config))
        everywhere = frozenset.intersection(*never_used.values())
        for key in everywhere:
            self.useless(key)
        for setup in self.experiment.setups:
            self.useless_in(setup, never_used[setup.name] - everywhere)
        return result

    def config(self, point: Point) -> schema.RunConfig | None:
        setup = point.setup.name if point.setup else None
        blocks: dict[str, Any] = {}
        for name in keys.BLOCKS:
            block, problems = self.checked_block(name, point.tree[name])
            self.faults.extend(problems, setup)
            blocks[name] = block
        if any(block is None for block in blocks.values()):
            return None
        names = [axis.name for axis in self.experiment.axes]
        config = schema.RunConfig.model_construct(
            experiment=self.experiment.name,
            setup=setup or self.experiment.label or default_setup(blocks["norm"]),
            swept=(*(key for key in self.experiment.swept if key not in names), *names),
            seed=self.experiment.seeds[0],
            **blocks,
        )
        hindered = obstacles(config)
        for obstacle in hindered:
            origin = self.place(point.tree, obstacle.keys)
            self.faults.extend([Problem(origin, obstacle.message, obstacle.hint)], setup)
        return None if hindered else config

    def checked_block(self, name: str, block: Mapping) -> tuple[schema.Block | None, list[Problem]]:
        """Merging shares what it does not change, so most blocks of a grid are seen once."""
        known = self.checked.get((name, id(block)))
        if known is None:
            model, problems = check_block(name, block, whole=True)
            known = self.checked[name, id(block)] = (block, model, problems)
        return known[1], known[2]

    def place(self, tree: Tree, candidates: tuple[str, ...]) -> Origin:
        for dotted in candidates:
            block, key = dotted.split(".")
            if key in tree[block].entries:
                return tree[block].entries[key].origin
        return tree[candidates[0].split(".")[0]].origin

    def useless(self, key: Key) -> None:
        """A key of an axis or of the command line that no run has."""
        block, name = key
        for axis in self.experiment.axes:
            if axis.key[:2] == key:
                self.add_useless(axis.origin, keys.BLOCKS[block], name)
        if block in self.experiment.sets and name in self.experiment.sets[block].entries:
            origin = self.experiment.sets[block].entries[name].origin
            self.add_useless(origin, keys.BLOCKS[block], name)

    def useless_in(self, setup: Setup, never_used: frozenset[Key]) -> None:
        """Keys for which a setup gives values of its own, and which none of its runs has."""
        for axis in setup.axes:
            block, name = axis.key[:2]
            if (block, name) in never_used:
                self.add_useless(axis.origin, keys.BLOCKS[block], name, setup)

    def assigned(self, block: keys.BlockKeys) -> bool:
        """Whether the command line chooses a block's kind."""
        sets = self.experiment.sets
        return block.name in sets and block.tag in sets[block.name].entries

    def add_useless(
        self, origin: Origin, block: keys.BlockKeys, name: str, setup: Setup | None = None
    ) -> None:
        hint = f"{name} is a key of {block.tag} {listing(block.kinds_with(name))}"
        where = f" of setup {shortened(setup.name)}" if setup else ""
        self.faults.add(origin, f"no run{where} has the key {block.name}.{name}", hint)

    # --- what collapsed -------------------------------------------------------------------

    def collapse(
        self, kept: tuple[Point, schema.RunConfig], same: tuple[Point, schema.RunConfig]
    ) -> None:
        """Counts a point that is the same run as an earlier one, under the reason for it."""
        reasons = []
        for block, name in sorted(kept[0].left_out | same[0].left_out):
            tag = keys.BLOCKS[block].tag
            kind = getattr(getattr(same[1], block), tag or "", None)
            reasons.append(f"{block}.{name} has no meaning under {block}.{tag} {kind}")
        reasons += [f"--set {dotted} decides it" for dotted in self.decisive()]
        reason = listing(reasons, "and") if reasons else "nothing that decides the numbers differs"
        self.collapsed[reason] = self.collapsed.get(reason, 0) + 1

    def decisive(self) -> list[str]:
        """Assigned keys that a setup or an axis gives as well."""
        given = {axis.key[:2] for axis in self.experiment.axes}
        for setup in self.experiment.setups:
            given |= {(name, key) for name, block in setup.patch.items() for key in block.entries}
        return [
            f"{name}.{key}"
            for name, block in self.experiment.sets.items()
            for key in block.entries
            if (name, key) in given
        ]

    def notes(self) -> Iterator[str]:
        seeds, total = len(self.experiment.seeds), size(self.experiment)
        for reason, points in self.collapsed.items():
            number = points * seeds
            verb = "is" if number == 1 else "are"
            yield (
                f"{number:,} of {total:,} runs {verb} the same as another, since {reason}: "
                "trained once"
            )
