"""Setups × axes × seeds: from an experiment to its runs."""

from __future__ import annotations

import itertools
import math
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bnbench.config import claims, layers, schema
from bnbench.config.experiments import Axis, Claim, ExperimentConfig
from bnbench.config.faults import Faults, Place
from bnbench.config.feasible import Obstacle, obstacles, warnings
from bnbench.config.files import as_typed, inline
from bnbench.config.identity import default_setup, identity, value_at
from bnbench.config.layers import Block, Blocks, Layer
from bnbench.config.schema import BLOCKS, Key
from bnbench.config.sentences import Flaw, validated_block
from bnbench.errors import Fault, UsageError
from bnbench.wording import counted, cut, listing, shortened

MAX_RUNS = 10_000
"""That are started, unless more are asked for."""
STORED_RUNS = 1_000_000
"""That are read back: more than anybody trains, and what a foreign file says still ends."""


@dataclass(frozen=True, slots=True)
class Point:
    """One setup at one value of every axis, merged."""

    setup: str | None
    blocks: Blocks
    layers: tuple[Layer, ...]
    left_out: frozenset[Key]  # axis and command-line keys without meaning here

    def report(self, obstacle: Obstacle, faults: Faults) -> None:
        """Adds an obstacle to training, at the first of its keys that is set."""
        paths = [tuple(dotted.split(".")) for dotted in obstacle.keys]
        path = next((path for path in paths if path[1] in self.blocks[path[0]]), paths[0][:1])
        place = layers.origin(self.layers, path, key=True)
        faults.add(place, obstacle.message, obstacle.hint, self.setup)


@dataclass(frozen=True, slots=True)
class Plan:
    """The runs of an experiment, seeds outermost, with what is worth saying about them."""

    runs: tuple[schema.RunConfig, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    unjudged: tuple[str, ...]  # claims that cannot be judged from these runs, and why
    grid: str  # "2 setups × 2 values of optim.lr × 3 seeds: 12, 3 of them the same as another"
    path: Path
    points: tuple[Point, ...] = field(repr=False)  # of the first runs: those with the first seed
    setups: int

    def only(self) -> schema.RunConfig:
        """The run of an experiment that has just one; raises UsageError otherwise."""
        if len(self.runs) == 1:
            return self.runs[0]
        name = as_typed(self.path)
        raise UsageError(
            f"{name} describes {counted(len(self.runs), 'run')} ({self.grid})",
            do=f"bnbench sweep {name} trains them; to train one, add for example\n"
            f"  {self._options_of_one()}",
        )

    def _options_of_one(self) -> str:
        """What of the command line leaves only the first run."""
        first, setup = self.runs[0], self.points[0].setup
        words = [] if setup is None else ["--setup", setup]
        for key in first.swept:
            if len({repr(value_at(run, key)) for run in self.runs if run.setup == first.setup}) > 1:
                words += ["--set", f"{key}={inline(value_at(first, key))}"]
        if len(self.runs) > len(self.points):
            words += ["--seed", str(first.seed)]
        return shlex.join(words)

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
    first = list(crossing.configs(max_runs))
    aims = experiment.aims
    if aims is not None and not crossing.faults.found:
        first = crossing.of_claims(first, aims)
    if crossing.faults.found:
        raise crossing.faults.error(len(experiment.setups))
    unique: dict[str, tuple[Point, schema.RunConfig]] = {}
    same: Counter[str] = Counter()
    for point, config in first:
        kept, _ = unique.setdefault(identity(config), (point, config))
        if kept is not point:
            same[crossing.reason(kept.left_out | point.left_out, config)] += 1
    configs = [config for _, config in first]
    runs = tuple(
        config.model_copy(update={"seed": seed})
        for seed in experiment.seeds
        for _, config in unique.values()
    )
    total, seeds = size(experiment), len(experiment.seeds)
    notes = [
        f"{number * seeds:,} of {total:,} runs {'is' if number * seeds == 1 else 'are'} the same "
        f"as another, since {reason}: trained once"
        for reason, number in same.items()
    ]
    cells = [config for _, config in unique.values()]
    doubts = claims.doubts(experiment.claims if aims is None else aims, cells, experiment.tune)
    repeated = sum(same.values()) * seeds
    of_all = f": {total:,}, {repeated:,} of them the same as another" * bool(repeated)
    return Plan(
        runs,
        (*experiment.notes, *notes),
        (*warnings(configs), *unequal_trials(experiment, {run.setup for run in configs})),
        tuple(f"claim {claim.id} cannot be judged: {reason}" for claim, reason in doubts),
        grid(experiment) + of_all,
        experiment.path,
        tuple(point for point, _ in unique.values()),
        len(experiment.setups),
    )


def stored(experiment: ExperimentConfig) -> tuple[schema.RunConfig, ...]:
    """The runs of a study that was started, however many it was started with. Raises as above."""
    return expand(experiment, max_runs=STORED_RUNS).runs


def find_faults(experiment: ExperimentConfig, faults: Faults) -> None:
    """Adds the faults of the runs, for a report together with those of the file."""
    for _ in Crossing(experiment, faults).configs(MAX_RUNS):
        pass


# --- sizes --------------------------------------------------------------------------------


def size(experiment: ExperimentConfig) -> int:
    """How many runs the grid has, before equal ones collapse."""
    setups = experiment.setups or (None,)
    points = (math.prod(len(axis.values) for axis in experiment.axes_of(each)) for each in setups)
    return sum(points) * len(experiment.seeds)


def values_of(experiment: ExperimentConfig, axis: Axis) -> dict[str, int]:
    """How many values of an axis each setup has."""
    return {
        setup.name: len(each.values)
        for setup in experiment.setups
        for each in experiment.axes_of(setup)
        if each.key == axis.key
    }


def in_short(counts: dict[str, int]) -> str:
    """`gn: 3, ln: 1`."""
    return cut([f"{shortened(name)}: {number:,}" for name, number in counts.items()])


def grid(experiment: ExperimentConfig) -> str:
    """The grid in words, e.g. `4 setups × 2 values of optim.lr (gn: 3) × 3 seeds`."""
    parts = [counted(len(experiment.setups), "setup")] if experiment.setups else []
    for axis in experiment.axes:
        number, numbers = len(axis.values), values_of(experiment, axis)
        others = {name: own for name, own in numbers.items() if own != number}
        suffix = f" ({in_short(others)})" if others else ""
        parts.append(f"{counted(number, 'value')} of {axis.name}{suffix}")
    whole = " × ".join([*parts, counted(len(experiment.seeds), "seed")])
    if experiment.aims:
        whole += f"; only those of {listing([each.id for each in experiment.aims], 'and')}"
    return whole


def unequal_trials(experiment: ExperimentConfig, trained: Collection[str]) -> Iterator[str]:
    """A warning where the axis that is tuned has more values in one of these setups."""
    tuned = experiment.tune.axis if experiment.tune is not None else None
    for axis in experiment.axes:
        numbers = {k: n for k, n in values_of(experiment, axis).items() if k in trained}
        if axis.name == tuned and len(set(numbers.values())) > 1:
            yield (
                f"tune.axis {tuned}: setups with more values have more trials to pick the best "
                f"from ({in_short(numbers)})"
            )


# --- crossing -----------------------------------------------------------------------------


@dataclass(slots=True)
class Crossing:
    """Crosses setups with axes, and gathers the faults of the runs."""

    experiment: ExperimentConfig
    faults: Faults
    checked: dict[tuple[str, int], tuple[Block, schema.Block | None, list[Flaw]]] = field(
        default_factory=dict
    )

    def configs(self, max_runs: int) -> Iterator[tuple[Point, schema.RunConfig]]:
        """Each valid, feasible point with the first seed; the others leave faults."""
        number = size(self.experiment)
        if number > max_runs:
            said = f"the grid has {number:,} runs ({grid(self.experiment)}), more than {max_runs:,}"
            place = Place(0, 0, 0, str(self.experiment.path))
            self.faults.add(place, said, "sweep --max-runs lifts this limit")
            return
        unused: dict[str | None, frozenset[Key]] = {}
        for point in self.points():
            unused[point.setup] = unused.get(point.setup, point.left_out) & point.left_out
            config = self.config(point)
            if config is not None:
                yield point, config
        if self.experiment.overrides.setup is not None:
            return  # what has no meaning here may have one in the setups that are left out
        everywhere = frozenset.intersection(*unused.values())
        for key in everywhere:
            places = _places(self.experiment.axes, key)
            if key[1] in self.experiment.sets.get(key[0], {}):
                places.append(layers.origin(self.experiment.set_layers, key, key=True))
            self.useless(key, places)
        for setup in self.experiment.setups:
            for key in unused[setup.name] - everywhere:
                where = f" of setup {shortened(setup.name)}"
                self.useless(key, _places(setup.axes, key), where)

    def of_claims(
        self, found: list[tuple[Point, schema.RunConfig]], aims: tuple[Claim, ...]
    ) -> list[tuple[Point, schema.RunConfig]]:
        """The runs that these claims are about; a fault where there is none."""
        kept = [each for each in found if claims.concern(aims, each[1])]
        if not kept:
            path = ("profiles", self.experiment.profile or "", "claims")
            asked = self.experiment.overrides.claims
            place = claims.ASKED if asked else self.experiment.source.place(path)
            ids = listing([each.id for each in aims], "and")
            said = f"claim {ids}: its" if len(aims) == 1 else f"claims {ids}: their"
            said = f"no run is of {said} setups or values are not planned"
            self.faults.add(place, said, "name them in setups and axes, or leave the claim out")
        return kept

    def points(self) -> Iterator[Point]:
        """Every setup at every point of its axes.

        `--set` is applied before the axes, to choose the kind that they must fit, and after.
        """
        sets = self.experiment.sets
        for setup in self.experiment.setups or (None,):
            stack, blocks = self.experiment.base_layers, self.experiment.base
            if setup is not None:
                stack, blocks = (*stack, setup.layer), layers.merged(blocks, setup.layer.blocks)
            blocks = layers.merged(blocks, layers.fitting(blocks, sets)[0])
            axes = [axis.layers for axis in self.experiment.axes_of(setup)]
            for values in itertools.product(*axes):
                patch = layers.united(values)
                fit, unused = layers.fitting(blocks, self.without_assigned_kinds(patch))
                merged = layers.merged(blocks, fit)
                above, overruled = layers.fitting(merged, sets)
                yield Point(
                    setup.name if setup else None,
                    layers.merged(merged, above),
                    (*stack, *values, *self.experiment.set_layers),
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

    def config(self, point: Point) -> schema.RunConfig | None:
        """The run of a point, or None and its faults."""
        blocks: dict[str, Any] = {}
        for name, block in point.blocks.items():
            # Merging shares what it does not change, so most blocks of a grid are seen once.
            known = self.checked.get((name, id(block)))
            if known is None:
                known = self.checked[name, id(block)] = (
                    block,
                    *validated_block(name, block, whole=True),
                )
            _, blocks[name], flaws = known
            for flaw in flaws:
                place = layers.origin(point.layers, (name, *flaw.path), key=flaw.key)
                self.faults.add(place, flaw.message, flaw.hint, point.setup)
        if any(block is None for block in blocks.values()):
            return None
        names = [axis.name for axis in self.experiment.axes]
        config = schema.RunConfig.model_construct(
            experiment=self.experiment.name,
            setup=point.setup or self.experiment.label or default_setup(blocks["norm"]),
            swept=(*(key for key in self.experiment.swept if key not in names), *names),
            seed=self.experiment.seeds[0],
            log=self.experiment.log,
            **blocks,
        )
        hindered = obstacles(config)
        if self.experiment.tune is not None and not config.data.validation_size:
            axis = self.experiment.tune.axis
            said = f"data.validation_size: 0 leaves no image on which tune could choose {axis}"
            hindered.append(Obstacle(("data.validation_size",), said, "hold out some: 1000"))
        for obstacle in hindered:
            point.report(obstacle, self.faults)
        return None if hindered else config

    def useless(self, key: Key, places: list[Place], where: str = "") -> None:
        """Adds a fault wherever a key is given that no run has."""
        (block, name), family = key, BLOCKS[key[0]]
        hint = f"{name} is a key of {family.tag} {listing(family.kinds_with(name))}"
        for place in places:
            self.faults.add(place, f"no run{where} has the key {block}.{name}", hint)

    def reason(self, left_out: frozenset[Key], config: schema.RunConfig) -> str:
        """Why two points are the same run: keys that have no meaning, and those that are set."""
        reasons = []
        for block, name in sorted(left_out):
            tag = BLOCKS[block].tag
            kind = getattr(getattr(config, block), tag or "", None)
            reasons.append(f"{block}.{name} has no meaning under {block}.{tag} {kind}")
        given: set[Key] = {axis.key[:2] for axis in self.experiment.axes}
        for setup in self.experiment.setups:
            given |= {(name, key) for name, block in setup.layer.blocks.items() for key in block}
        for block, values in self.experiment.sets.items():
            decisive = [name for name in values if (block, name) in given]
            reasons += [f"--set {block}.{name} decides it" for name in decisive]
        return listing(reasons, "and") if reasons else "nothing that decides the numbers differs"


def _places(axes: tuple[Axis, ...], key: Key) -> list[Place]:
    return [axis.place for axis in axes if axis.key[:2] == key]
