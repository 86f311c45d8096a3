"""Trees of a configuration that need not be sound: keys twice, scalars as typed; and their text."""

from __future__ import annotations

import json
import random
import re
from typing import Any, TypeAlias

import yaml

Tree: TypeAlias = Any
"""`Pairs`, lists, `Raw` text and plain scalars."""


class Raw(str):
    """A scalar that is written as it is: unquoted, tagged, anchored or broken."""

    __slots__ = ()


class Pairs(list[tuple[str, Tree]]):
    """A mapping that can hold a key twice."""


def as_tree(node: Any) -> Tree:
    """PyYAML's node as a tree; what YAML reads as text becomes text, numbers stay as typed."""
    if isinstance(node, yaml.MappingNode):
        return Pairs((key.value, as_tree(value)) for key, value in node.value)
    if isinstance(node, yaml.SequenceNode):
        return [as_tree(item) for item in node.value]
    plain = node.style is None and re.match(r"[-+.\d]|(true|false|null|~|)$", node.value)
    return Raw(node.value) if plain else str(node.value)


def mappings(tree: Tree, path: str = "") -> list[tuple[str, Pairs]]:
    """Every mapping of a tree with its dotted path, itself first."""
    if isinstance(tree, list) and not isinstance(tree, Pairs):
        return [each for item in tree for each in mappings(item, path)]
    if not isinstance(tree, Pairs):
        return []
    inner = [each for key, value in tree for each in mappings(value, f"{path}.{key}")]
    return [(path.lstrip("."), tree), *inner]


def written(rng: random.Random, tree: Pairs) -> str:
    """The tree as a file, in one of the ways in which people and programs write YAML."""
    if rng.random() < 0.25:
        return flow(tree) + "\n"
    return _block(rng, tree, 0, rng.choice([1, 2, 2, 4]), rng.choice([0.0, 0.2]))


def flow(tree: Tree) -> str:
    """The tree on one line; keys and text in JSON's quotes, which are YAML's as well."""
    match tree:
        case Pairs():
            return "{" + ", ".join(f"{quoted(k)}: {flow(v)}" for k, v in tree) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(flow, tree)) + "]"
        case Raw():
            return str(tree)
        case str():
            return quoted(tree)
        case _:
            return json.dumps(tree)


def quoted(text: str) -> str:
    """The text in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _block(rng: random.Random, tree: Pairs, indent: int, step: int, comments: float) -> str:
    lines = []
    for key, value in tree:
        bare = re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", key) and key not in (
            "true",
            "false",
            "null",
        )
        start = " " * indent + (key if bare else quoted(key)) + ":"
        remark = "  # why not" if rng.random() < comments else ""
        if isinstance(value, Pairs) and value and indent < 60 and rng.random() < 0.8:
            inner = _block(rng, value, indent + step, step, comments)
            lines.append(f"{start}{remark}\n{inner}")
        else:
            lines.append(f"{start} {flow(value)}{remark}\n")
    return "".join(lines)


def shuffled(rng: random.Random, tree: Tree) -> Tree:
    """The same tree with the keys of every mapping in another order."""
    match tree:
        case Pairs():
            return Pairs(
                rng.sample([(key, shuffled(rng, value)) for key, value in tree], len(tree))
            )
        case list():
            return [shuffled(rng, item) for item in tree]
        case _:
            return tree
