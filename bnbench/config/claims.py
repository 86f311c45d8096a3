"""The claims of an experiment's file: what is compared, judged as far as the file alone can be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bnbench.config import schema
from bnbench.config.axes import Axis
from bnbench.config.check import check_against
from bnbench.config.experiment import Arm, Claim, Setup, Tune
from bnbench.config.faults import Faults, found, listing, nearest, shortened
from bnbench.config.identity import identity, point
from bnbench.config.keys import BlockKeys
from bnbench.config.labels import slug
from bnbench.config.metrics import LR, ToTarget, UsableLr, parse_metric
from bnbench.config.nodes import Entry, Mapping, Node, Origin, Sequence, is_null
from bnbench.config.strict_yaml import parse


def same_value(one: Any, other: Any) -> bool:
    """Whether two values of an axis are meant to be the same: 0.0316 is 0.0316228."""
    numbers = all(isinstance(each, int | float) for each in (one, other))
    if numbers and not isinstance(one, bool) and not isinstance(other, bool):
        return math.isclose(one, other, rel_tol=2e-3)
    return bool(one == other)


@dataclass(slots=True)
class ClaimReader:
    """Reads claims; whatever is wrong with one becomes a fault, and the claim is left out."""

    setups: tuple[Setup, ...]
    axes: tuple[Axis, ...]
    tune: Tune | None
    faults: Faults

    def read(self, entry: Entry | None) -> tuple[Claim, ...]:
        """The claims, in the file's order."""
        if entry is None or is_null(entry.node):
            return ()
        if not isinstance(entry.node, Sequence):
            self.faults.add(entry.node.origin, f"claims must be a list, not {found(entry.node)}")
            return ()
        read = [self._claim(i, item) for i, item in enumerate(entry.node.items)]
        claims: dict[str, Claim] = {}
        for item, claim in zip(entry.node.items, read, strict=True):
            if claim is None:
                continue
            if claim.id in claims:
                self.faults.add(item.origin, f"two claims have the id {claim.id}")
            claims[claim.id] = claim
        return tuple(claims.values())

    def _claim(self, number: int, node: Node) -> Claim | None:
        name = f"claims[{number}]"
        if not isinstance(node, Mapping):
            self.faults.add(node.origin, f"{name} must be a mapping, not {found(node)}")
            return None
        model, problems = check_against(
            BlockKeys(name, None, {None: schema.ClaimConfig}, None), node, whole=True
        )
        self.faults.extend(problems)
        if not isinstance(model, schema.ClaimConfig):
            return None
        before = len(self.faults.found)
        claim = self._checked(name, model, node)
        return claim if len(self.faults.found) == before else None

    def _checked(self, name: str, model: schema.ClaimConfig, node: Mapping) -> Claim | None:
        def place(key: str) -> Origin:
            return node.entries[key].node.origin if key in node.entries else node.origin

        if slug(model.id) != model.id:
            hint = f"write {slug(model.id)}" if slug(model.id) else "use letters, digits, -, _"
            self.faults.add(place("id"), f'{name}.id "{shortened(model.id)}" is no name', hint)
        try:
            metric = parse_metric(model.metric)
        except ValueError as error:
            message = f'{name}.metric "{shortened(model.metric)}" is not a metric'
            self.faults.add(place("metric"), message, str(error))
            return None
        if isinstance(metric, ToTarget | UsableLr) and model.target is None:
            message = f"{name}.target is missing: {model.metric} needs an accuracy"
            self.faults.add(place("metric"), message, "write target: 0.7")
        names = [axis.name for axis in self.axes]
        if isinstance(metric, UsableLr) and LR not in names:
            message = f"{name}: {model.metric} needs learning rates to try"
            self.faults.add(place("metric"), message, f"make {LR} an axis")
        if model.slope_over is not None and model.slope_over not in names:
            self._no_axis(place("slope_over"), f"{name}.slope_over", model.slope_over)
        for key in model.at:
            if key not in names:
                self._no_axis(place("at"), f"{name}.at", key)
        used = {*model.at, *([model.slope_over] if model.slope_over else [])}
        if isinstance(metric, UsableLr):
            used.add(LR)
        elif self.tune is not None:
            used.add(self.tune.axis)
        sound = len(self.faults.found)
        better = self._arms(name, "better", model.better, used, place("better"))
        worse = self._arms(name, "worse", model.worse or (), used, place("worse"))
        if worse and len(worse) != len(better) and len(self.faults.found) == sound:
            message = f"{name}.worse must name as many setups as better: {len(better)}"
            self.faults.add(place("worse"), message)
        if worse and worse == better:
            message = f"{name}: better and worse are the same"
            self.faults.add(place("worse"), message, "name the opponent")
        return Claim(
            id=model.id,
            says=model.says,
            metric=metric,
            metric_name=model.metric,
            better=better,
            worse=worse,
            at=dict(model.at),
            slope_over=model.slope_over,
            target=model.target,
            log=model.log,
            when=model.when,
            smallest_effect=model.smallest_effect,
            direction=model.direction,
            literature=model.literature,
        )

    def _no_axis(self, origin: Origin, what: str, key: str) -> None:
        names = [axis.name for axis in self.axes]
        close = nearest(key, names)
        hint = f"did you mean {close}?" if close else None
        there = f"axes: {listing(names, 'and')}" if names else "the experiment has no axes"
        self.faults.add(origin, f"{what}: {shortened(key)} is not an axis", hint or there)

    def _arms(
        self, name: str, key: str, given: str | tuple[str, ...], used: set[str], origin: Origin
    ) -> tuple[Arm, ...]:
        texts = (given,) if isinstance(given, str) else given
        arms = [self._arm(f"{name}.{key}", text, used, origin) for text in texts]
        return tuple(arm for arm in arms if arm is not None)

    def _arm(self, what: str, text: str, used: set[str], origin: Origin) -> Arm | None:
        """`bn`, `bn@32` where one axis is left to choose on, or `bn@data.batch_size=32,…`."""
        setup, _, rest = text.partition("@")
        known = [each.name for each in self.setups]
        if setup not in known:
            close = nearest(setup, known)
            hint = f"did you mean {close}?" if close else None
            there = f"setups: {listing(known, 'and')}" if known else "the experiment has no setups"
            self.faults.add(origin, f"{what}: {shortened(setup)} is not a setup", hint or there)
            return None
        free = [
            axis.name
            for axis in self._axes_of(setup)
            if axis.name not in used and len(axis.values) > 1
        ]
        at: dict[str, Any] = {}
        for part in filter(None, rest.split(",")):
            axis, equals, value = part.rpartition("=")
            if not equals and len(free) == 1:
                axis = free[0]
            elif axis not in [each.name for each in self.axes]:
                if not axis:
                    hint = f"write {setup}@{(free or ['data.batch_size'])[0]}={value}"
                    message = f"{what}: {shortened(part)} could be a value of several axes or none"
                    self.faults.add(origin, message, hint)
                else:
                    self._no_axis(origin, what, axis)
                return None
            node = parse(value, origin.source, self.faults)
            at[axis] = getattr(node, "value", None)
        return Arm(setup, tuple(at.items()))

    def _axes_of(self, setup: str) -> Iterator[Axis]:
        own = {axis.key: axis for each in self.setups if each.name == setup for axis in each.axes}
        return (own.get(axis.key, axis) for axis in self.axes)


def runs_of(claim: Claim, arm: Arm, runs: tuple[schema.RunConfig, ...]) -> list[schema.RunConfig]:
    """The runs that an arm is about: all seeds, and all values of the axes that it leaves open.

    A value that has no meaning in a setup is not asked for there.
    """
    wanted = claim.at | dict(arm.at)

    def fits(run: schema.RunConfig) -> bool:
        values = point(run)
        return run.setup == arm.setup and all(
            values.get(key) is None or same_value(values[key], value)
            for key, value in wanted.items()
        )

    return [run for run in runs if fits(run)]


def doubts(
    claims: tuple[Claim, ...], runs: tuple[schema.RunConfig, ...], tune: Tune | None
) -> Iterator[tuple[Claim, str]]:
    """Why a claim cannot be judged from these runs, where it cannot."""
    for claim in claims:
        open_axes = {claim.slope_over, tune.axis if tune is not None else None}
        open_axes |= {LR} if isinstance(claim.metric, UsableLr) else set()
        sides = [
            [runs_of(claim, arm, runs) for arm in arms] for arms in (claim.better, claim.worse)
        ]
        empty = [
            arm
            for arms, side in zip((claim.better, claim.worse), sides, strict=True)
            for arm, chosen in zip(arms, side, strict=True)
            if not chosen
        ]
        if empty:
            yield claim, f"no run is {listing([str(arm) for arm in empty], 'or')}{_at(claim)}"
            continue
        several = [
            f"{arm} has several values of {listing(left, 'and')}"
            for arms, side in zip((claim.better, claim.worse), sides, strict=True)
            for arm, chosen in zip(arms, side, strict=True)
            if (left := sorted(_varying(chosen) - open_axes))
        ]
        if several:
            yield claim, f"{several[0]}: name one, with @ or at:"
        elif claim.worse:
            better, worse = ([{identity(run) for run in arm} for arm in side] for side in sides)
            if better == worse:
                yield claim, "better and worse are the same runs"


def _varying(runs: list[schema.RunConfig]) -> set[str]:
    """The axes of which the runs have several values."""
    seen: dict[str, set[str]] = {}
    for run in runs:
        for key, value in point(run).items():
            seen.setdefault(key, set()).add(repr(value))
    return {key for key, values in seen.items() if len(values) > 1}


def _at(claim: Claim) -> str:
    return f" at {', '.join(f'{key}={value}' for key, value in claim.at.items())}" * bool(claim.at)
