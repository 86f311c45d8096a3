"""Back to YAML: a resolved run, and an experiment with its overrides."""

from __future__ import annotations

import json
import re
from typing import Any

from bnbench.config import schema
from bnbench.config.axes import Axis
from bnbench.config.check import PATH_KEYS, absolute_paths
from bnbench.config.experiment import ExperimentConfig
from bnbench.config.faults import Faults
from bnbench.config.keys import BLOCKS
from bnbench.config.merge import Tree
from bnbench.config.nodes import Entry, Mapping, Node, Source, plain
from bnbench.config.strict_yaml import parse

# Text that no reader of YAML takes for anything but text; the rest is quoted.
BARE = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*( [A-Za-z0-9_./(=-]+)*")
WORDS = frozenset(["true", "false", "null", "yes", "no", "on", "off", "y", "n"])
CONTROL = re.compile("[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]")


def dump(config: schema.RunConfig) -> str:
    """A resolved run as a file that `load_experiment` reads back to an equal run."""
    header = "# One run, fully resolved: every key has its value. `bnbench train` accepts it.\n"
    return header + _block(config.model_dump())


def dump_experiment(experiment: ExperimentConfig) -> str:
    """The experiment as a file that loads to the same plan from any folder.

    The user's own text, where nothing was overridden and no path in it is relative; otherwise
    what it says, with the overrides and absolute paths.
    """
    if not experiment.overridden and not _moves(experiment):
        text = experiment.text
        if "experiment" in experiment.root.entries:
            return text
        named = f"experiment: {_inline(experiment.name)}\n{text}"
        # In front of a flow mapping or a directive, the line would make it another file.
        if _says(named) == {"experiment": experiment.name, **plain(experiment.root)}:
            return named
    return "# The experiment as given, with the command line's overrides.\n" + _block(
        _content(experiment)
    )


def _moves(experiment: ExperimentConfig) -> bool:
    """Whether the text would mean something else in another folder."""
    return (
        plain(absolute(experiment.root)) != plain(experiment.root)
        or any(PATH_KEYS.get(name) in block.entries for name, block in experiment.sets.items())
        or any(PATH_KEYS.get(axis.key[0]) == axis.key[1] for axis in experiment.axes)
    )


def absolute(node: Mapping) -> Mapping:
    """A whole file's tree with every path absolute."""
    entries = dict(node.entries)
    for name, entry in node.entries.items():
        inner = entry.node
        if name in PATH_KEYS and isinstance(inner, Mapping):
            entries[name] = Entry(entry.origin, absolute_paths(name, inner))
        elif name == "setups" and isinstance(inner, Mapping):
            setups = {
                key: Entry(
                    each.origin,
                    absolute(each.node) if isinstance(each.node, Mapping) else each.node,
                )
                for key, each in inner.entries.items()
            }
            entries[name] = Entry(entry.origin, Mapping(setups, inner.origin))
    return Mapping(entries, node.origin)


def _content(experiment: ExperimentConfig) -> dict[str, Any]:
    result: dict[str, Any] = {"experiment": experiment.name}
    if experiment.question is not None:
        result["question"] = experiment.question
    if experiment.profile is not None:  # what it says is in everything below
        result |= {"profile": experiment.profile, "profiles": {experiment.profile: {}}}
    if experiment.label is not None:
        result["setup"] = experiment.label
    if experiment.swept:
        result["swept"] = experiment.swept
    result |= {name: part for name, part in _tree(experiment.base).items() if part}
    if experiment.setups:
        result["setups"] = {
            setup.name: _tree(setup.patch) | ({"axes": _axes(setup.axes)} if setup.axes else {})
            for setup in experiment.setups
        }
    if experiment.axes:
        result["axes"] = _axes(experiment.axes)
    seeds = experiment.seeds
    result["seeds"] = len(seeds) if isinstance(seeds, range) else tuple(seeds)
    if experiment.tune is not None:
        result["tune"] = {"axis": experiment.tune.axis, "by": experiment.tune.by}
    if experiment.claims:
        result["claims"] = plain(experiment.root.entries["claims"].node)
    if experiment.sets:
        result["set"] = _tree(experiment.sets)
    return result


def _tree(tree: Tree) -> dict[str, Any]:
    return {name: plain(absolute_paths(name, tree[name])) for name in BLOCKS if name in tree}


def _axes(axes: tuple[Axis, ...]) -> dict[str, Any]:
    return {axis.name: tuple(_value(axis.name, value) for value in axis.values) for axis in axes}


def _value(key: str, node: Node) -> Any:
    name, _, last = key.partition(".")
    if PATH_KEYS.get(name) == last:
        alone = Mapping({last: Entry(node.origin, node)}, node.origin)
        return plain(absolute_paths(name, alone))[last]
    return plain(node)


def _says(text: str) -> Any:
    faults = Faults()
    root = parse(text, Source("", ""), faults)
    return plain(root) if root is not None and not faults.found else None


# --- text ---------------------------------------------------------------------------------


def _block(content: dict[str, Any], indent: str = "") -> str:
    lines = []
    for key, value in content.items():
        name = f"{indent}{_inline(key)}:"
        if isinstance(value, dict) and value and len(indent) < 4:
            lines.append(f"{name}\n{_block(value, indent + '  ')}")
        else:
            lines.append(f"{name} {_inline(value)}\n")
    return "".join(lines)


def _inline(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return _text(value)
        case dict():
            return "{" + ", ".join(f"{_inline(k)}: {_inline(v)}" for k, v in value.items()) + "}"
        case _:
            return "[" + ", ".join(_inline(item) for item in value) + "]"


def _text(value: str) -> str:
    if BARE.fullmatch(value) and value.lower() not in WORDS:
        return value
    return CONTROL.sub(
        lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False)
    )
