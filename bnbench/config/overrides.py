"""The command line's part of a configuration: `--set`, `--over`, `--seeds`, `--seed`."""

from __future__ import annotations

from dataclasses import dataclass

from bnbench.config import keys
from bnbench.config.check import nulls_are_empty
from bnbench.config.faults import Faults, found, shortened
from bnbench.config.merge import deeper, merged
from bnbench.config.nodes import Entry, Key, Mapping, Node, Origin, Source, nested
from bnbench.config.strict_yaml import MAX_KEY, parse


@dataclass(frozen=True, slots=True)
class Overrides:
    """Arguments as typed: `set` and `over` hold `KEY=VALUE` texts."""

    set: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    seeds: int | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """A value that wins over everything below it."""

    key: Key
    entry: Entry


def read_sets(texts: tuple[str, ...], faults: Faults) -> list[Assignment]:
    """The assignments of `--set`; whatever cannot be one is a fault."""
    result = []
    for rank, text in enumerate(texts, start=1):
        assignment = _assignment("--set", text, text.partition("=")[2], rank, faults)
        if assignment is None:
            continue
        key, entry = assignment.key, assignment.entry
        if key[0] in keys.OWN_KEYS and len(key) == 1:
            result.append(assignment)
        else:
            kept = settable(key, entry, faults)
            if kept:
                result.append(kept)
    return result


def settable(key: Key, entry: Entry, faults: Faults) -> Assignment | None:
    """An assignment to a block or to one of its keys, or None and a fault."""
    if len(key) == 1 and key[0] in keys.BLOCKS:
        node = nulls_are_empty(entry.node)
        if isinstance(node, Mapping):
            return Assignment(key, Entry(entry.origin, node))
        faults.add(entry.origin, f"{key[0]} must be a mapping, not {found(node)}")
        return None
    if not keys.known(key):
        faults.add(entry.origin, *keys.no_dotted_key(key))
        return None
    return Assignment(key, entry)


def read_overs(texts: tuple[str, ...], first: int, faults: Faults) -> dict[str, Entry]:
    """The axes of `--over`, still to be read as axes are; `first` ranks them after `--set`."""
    result: dict[str, Entry] = {}
    for rank, text in enumerate(texts, start=first):
        value = text.partition("=")[2].strip()
        spread = value if value.startswith("{") else f"[{value}]"
        assignment = _assignment("--over", text, spread if value else "", rank, faults)
        if assignment is None:
            continue
        dotted = ".".join(assignment.key)
        if dotted in result:
            faults.add(assignment.entry.origin, f"{dotted} is given twice")
        else:
            result[dotted] = assignment.entry
    return result


def _assignment(option: str, text: str, value: str, rank: int, faults: Faults) -> Assignment | None:
    name, equals, _ = text.partition("=")
    name = name.strip()
    source = Source(f"{option} {shortened(name)}".strip(), "", rank)
    origin = Origin(source)
    if not equals or not name:
        faults.add(origin, "this is not KEY=VALUE", f"write {option} optim.lr=0.1")
        return None
    if len(name) > MAX_KEY:
        message = f"the key {shortened(name)} is longer than {MAX_KEY} characters"
        faults.add(origin, message)
        return None
    if not value.strip():
        faults.add(origin, f"{name} has no value", f"write {option} {name}=null for no value")
        return None
    before = len(faults.found)
    node: Node | None = parse(value, source, faults)
    if len(faults.found) > before:
        return None
    if node is None:
        faults.add(origin, f"{name} has no value", f"write {option} {name}=null for no value")
        return None
    return Assignment(tuple(name.split(".")), Entry(origin, node))


def united(assignments: list[Assignment]) -> dict[str, Mapping]:
    """One patch of many assignments; of two for the same key the later wins."""
    result: dict[str, Entry] = {}
    for each in assignments:
        block = each.key[0]
        if len(each.key) == 1:
            new = each.entry
        else:
            new = Entry(each.entry.origin, nested(each.key[1:], each.entry))
        result[block] = deeper(result[block], new) if block in result else new
    return {name: entry.node for name, entry in result.items() if isinstance(entry.node, Mapping)}


def combined(file: list[Assignment], arguments: list[Assignment]) -> dict[str, Mapping]:
    """The file's assignments with the command line's on top, as a patch on a patch."""
    return merged(united(file), united(arguments))
