"""Axes and seeds: what a grid is crossed from."""

from __future__ import annotations

import math
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from bnbench.config import keys
from bnbench.config.check import is_whole_number, nulls_are_empty
from bnbench.config.faults import Faults, found, listing, meant_value, nearest, shortened
from bnbench.config.nodes import (
    Entry,
    Key,
    Mapping,
    Node,
    Origin,
    Scalar,
    Sequence,
    Source,
    is_null,
    plain,
)

MAX_POINTS = 10_000  # of one range; a grid has its own cap
SPREADS = ("log", "linear")

Seeds: TypeAlias = AbstractSequence[int]
"""A tuple or, so that `seeds: 1000000000` costs nothing before the cap refuses it, a range."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A key and the values that it takes, each with its place."""

    key: Key
    values: tuple[Node, ...]
    origin: Origin

    @property
    def name(self) -> str:
        """The dotted key."""
        return ".".join(self.key)


def read_axes(
    entry: Entry | None, overs: dict[str, Entry], faults: Faults, notes: list[str]
) -> tuple[Axis, ...]:
    """The file's axes, with those of `--over` in their place or behind them."""
    listed: dict[str, Entry] = {}
    if entry is not None:
        node = nulls_are_empty(entry.node)
        if isinstance(node, Mapping):
            listed = dict(node.entries)
        else:
            faults.add(node.origin, f"axes must be a mapping, not {found(node)}")
    for name, values in listed.items():
        if name in overs:
            _read_axis(name, values, faults, [])  # replaced, but judged all the same
    result = [_read_axis(name, values, faults, notes) for name, values in (listed | overs).items()]
    return tuple(axis for axis in result if axis is not None)


def read_own_axes(
    setup: str,
    entry: Entry,
    names: list[str],
    overs: dict[str, Entry],
    faults: Faults,
    notes: list[str],
) -> tuple[Axis, ...]:
    """A setup's values for the experiment's axes, which have the `names`; `--over` wins."""
    node = nulls_are_empty(entry.node)
    if not isinstance(node, Mapping):
        message = f"setups.{setup}.axes must be a mapping, not {found(node)}"
        faults.add(node.origin, message, "write axes: {optim.lr: [0.1, 1.0]}")
        return ()
    result = []
    for name, values in node.entries.items():
        before, own_notes = len(faults.found), list[str]()
        axis = _read_axis(name, values, faults, own_notes)
        if len(faults.found) == before and axis is not None and name not in names:
            close = nearest(name, names)
            if close:
                hint = f"did you mean {close}?"
            elif names:
                hint = f"a setup may give values of its own for {listing(names, 'and')}"
            else:
                hint = "the experiment's axes name it first, with the values of the other setups"
            faults.add(
                values.origin, f"setups.{setup}.axes: {name} is not an axis of the experiment", hint
            )
        elif axis is not None and name not in overs:
            result.append(axis)
            notes += [f"setup {shortened(setup)}: {note}" for note in own_notes]
    return tuple(result)


def _read_axis(name: str, entry: Entry, faults: Faults, notes: list[str]) -> Axis | None:
    key = tuple(name.split("."))
    if name in ("seed", "seeds"):
        faults.add(entry.origin, f"{name} is not an axis", "seeds: lists the seeds")
        return None
    if not keys.known(key):
        if len(key) == 1 and key[0] in keys.BLOCKS and isinstance(entry.node, Mapping):
            inner = next(iter(entry.node.entries), "…")
            hint = f"axes take dotted keys: write {name}.{inner}: …"
            faults.add(entry.origin, f"{name} is a block, not a key", hint)
        else:
            faults.add(entry.origin, *keys.no_dotted_key(key))
        return None
    node = entry.node
    if isinstance(node, Mapping):
        values = _spread(name, key, node, faults)
        if values is None:
            return None
    elif isinstance(node, Sequence):
        values = node.items
        for item in values:
            if isinstance(item, Mapping):
                faults.add(item.origin, f"axes.{name} takes plain values, not a mapping")
                return None
    else:
        shown = f"write [{found(node)}]" if not is_null(node) else None
        faults.add(node.origin, f"axes.{name} must be a list, not {found(node)}", shown)
        return None
    if not values:
        faults.add(node.origin, f"axes.{name} has no values")
        return None
    distinct: dict[Any, Node] = {}
    for value in values:
        distinct.setdefault(_same(plain(value)), value)
    kept = tuple(distinct.values())
    if len(kept) < len(values):
        notes.append(f"{name} lists {len(values)} values, {len(kept)} of them distinct")
    return Axis(key, kept, entry.origin)


def _same(value: Any) -> Any:
    """Equal for equal values: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, tuple):
        return tuple(_same(item) for item in value)
    if isinstance(value, dict):  # in a list, as the options of a user's own layer may hold
        return frozenset((key, _same(item)) for key, item in value.items())
    return (isinstance(value, bool | str), value)


def _spread(name: str, key: Key, node: Mapping, faults: Faults) -> tuple[Node, ...] | None:
    """The points of `{log: [a, b, n]}` or `{linear: [a, b, n]}`."""
    if len(node.entries) != 1 or next(iter(node.entries)) not in SPREADS:
        wrong = next((each for each in node.entries if each not in SPREADS), None)
        close = nearest(wrong, SPREADS, 0.5) if wrong else None
        message = f"axes.{name} must be a list, {{log: [a, b, n]}} or {{linear: [a, b, n]}}"
        faults.add(node.origin, message, f"did you mean {close}?" if close else None)
        return None
    kind, entry = next(iter(node.entries.items()))
    dotted = f"axes.{name}.{kind}"
    parts = entry.node.items if isinstance(entry.node, Sequence) else ()
    numbers = [part.value for part in parts if isinstance(part, Scalar)]
    if len(parts) != 3 or not all(
        isinstance(number, int | float) and not isinstance(number, bool) for number in numbers
    ):
        message = f"{dotted} must be [first, last, how many]: three numbers"
        hint = next((h for part in parts if (h := meant_value(part, ("number",)))), None)
        faults.add(entry.node.origin, message, hint)
        return None
    first, last, count = (number for number in numbers if isinstance(number, int | float))
    if not isinstance(count, int) or not 2 <= count <= MAX_POINTS:
        message = f"{dotted} must end in a whole number from 2 to {MAX_POINTS:,}, not {count}"
        faults.add(parts[2].origin, message)
        return None
    if kind == "log" and (first <= 0 or last <= 0):
        low = parts[0] if first <= 0 else parts[1]
        faults.add(low.origin, f"{dotted} must have ends above 0, not {found(low)}")
        return None
    whole = is_whole_number(key)
    return tuple(
        Scalar(value, entry.node.origin) for value in _points(kind, first, last, count, whole)
    )


def _points(
    kind: str, first: int | float, last: int | float, count: int, whole: bool
) -> list[int | float]:
    """The ends as typed; between them 6 significant digits, so that ids are short and stable."""
    result: list[int | float] = []
    for i in range(count):
        t = i / (count - 1)
        value: int | float
        if i in (0, count - 1):
            value = first if i == 0 else last
        elif kind == "log":
            value = math.exp(math.log(first) * (1 - t) + math.log(last) * t)
        else:
            value = first * (1 - t) + last * t
        if whole:
            value = round(value)
        elif 0 < i < count - 1:
            value = float(f"{value:.6g}")
        result.append(value)
    return result


# --- seeds --------------------------------------------------------------------------------


def read_seeds(
    own: dict[str, Entry], count: int | None, single: int | None, rank: int, faults: Faults
) -> Seeds:
    """The seeds: `--seed`, else `--seeds`, else `seeds:`, else `seed:`, else 0."""
    if count is not None and single is not None:
        origin = Origin(Source("--seeds", "", rank + 1_000))
        faults.add(origin, "--seeds and --seed stand side by side", "give one of them")
    for option, number, least in (("--seeds", count, 1), ("--seed", single, 0)):
        if number is not None and (number < least or number >= 2**63):
            origin = Origin(Source(option, "", rank + 1_000))
            message = f"must be a whole number of at least {least}, not {number}"
            faults.add(origin, message)
            return (0,)
    if single is not None:
        return (single,)
    if count is not None:
        return range(count)
    seed = own.get("seed")
    if seed is not None and not _is_seed(seed.node):
        message = f"seed must be a whole number of at least 0, not {found(seed.node)}"
        faults.add(seed.node.origin, message, meant_value(seed.node, ("number",)))
        seed = None
    if "seeds" in own and not is_null(own["seeds"].node):
        seeds = _several(own["seeds"].node, faults)
        if seed is not None and plain(seed.node) not in seeds:
            message = f"seed {plain(seed.node)} is not among the seeds"
            faults.add(seed.origin, message, "give seed or seeds, not both")
        return seeds
    return (0,) if seed is None else (plain(seed.node),)


def _is_seed(node: Node) -> bool:
    value = node.value if isinstance(node, Scalar) else None
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _several(node: Node, faults: Faults) -> Seeds:
    if isinstance(node, Sequence):
        if not node.items:
            faults.add(node.origin, "seeds has no values")
            return (0,)
        seen: dict[int, None] = {}
        for item in node.items:
            if not _is_seed(item):
                message = f"a seed must be a whole number of at least 0, not {found(item)}"
                faults.add(item.origin, message, meant_value(item, ("number",)))
            elif plain(item) in seen:
                faults.add(item.origin, f"seeds lists {plain(item)} twice")
            else:
                seen[plain(item)] = None
        return tuple(seen) or (0,)
    if _is_seed(node) and plain(node) > 0:
        return range(plain(node))
    message = f"seeds must be a whole number of at least 1, or a list of seeds, not {found(node)}"
    faults.add(node.origin, message, meant_value(node, ("number",)))
    return (0,)
