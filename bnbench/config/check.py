"""Validates one block of a located tree, and says in our words what is wrong."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from bnbench.config import keys, schema
from bnbench.config.faults import Problem, found, listing, meant_value, nearest
from bnbench.config.nodes import Entry, Key, Mapping, Node, Scalar, descend, is_null, plain

OFF_WORDS = ("off", "no", "false", "null", "nothing", "identity")
ABSENT = {"missing", "extra_forbidden"}


def check_block(
    name: str, mapping: Mapping, *, whole: bool
) -> tuple[schema.Block | None, list[Problem]]:
    """The block's model, or None and its faults.

    Without `whole`, only what is written is judged: keys that a kind requires may still come from
    a patch.
    """
    return check_against(keys.BLOCKS[name], mapping, whole=whole)


def check_against(
    block: keys.BlockKeys, mapping: Mapping, *, whole: bool
) -> tuple[schema.Block | None, list[Problem]]:
    """The same for a mapping that need not be one of the blocks."""
    name, kind = block.name, block.kind(mapping)
    if kind not in block.models:
        return None, [*_wrong_kind(block, mapping), *_unknown_to_all(block, mapping)]
    problems: list[Problem] = []
    values = plain(absolute_paths(name, mapping))
    if name == "train":
        _one_budget(mapping, values, problems)
    model = block.models[kind]
    try:
        valid = model.model_validate(values)
    except ValidationError as error:
        seen: set[tuple[str | int, ...]] = set()
        for detail in error.errors(include_url=False, include_context=False, include_input=False):
            problem = _explain(block, kind, mapping, detail["loc"], detail["type"], seen, whole)
            if problem:
                problems.append(problem)
        return None, problems
    return (None if problems else valid), problems


def _one_budget(mapping: Mapping, values: dict[str, Any], problems: list[Problem]) -> None:
    given = [key for key in schema.BUDGETS if values.get(key) is not None]
    for extra in given[1:]:
        problems.append(
            Problem(
                mapping.entries[extra].origin,
                f"train.{extra} stands beside train.{given[0]}",
                "give exactly one of epochs, steps, examples",
            )
        )
        del values[extra]


def _wrong_kind(block: keys.BlockKeys, mapping: Mapping) -> list[Problem]:
    assert block.tag is not None
    entry = mapping.entries[block.tag]
    value = entry.node.value if isinstance(entry.node, Scalar) else None
    message = f"{block.name}.{block.tag} must be {listing(block.kinds)}, not {found(entry.node)}"
    off = (
        block.name == "norm" and isinstance(entry.node, Scalar) and str(value).lower() in OFF_WORDS
    )
    if off or (block.name == "norm" and value is False) or (block.name == "norm" and value is None):
        return [Problem(entry.node.origin, message, "the kind without normalization is none")]
    close = keys.nearest_kind(block, value) if isinstance(value, str) else None
    return [Problem(entry.node.origin, message, f"did you mean {close}?" if close else None)]


def _unknown_to_all(block: keys.BlockKeys, mapping: Mapping) -> list[Problem]:
    result = []
    for key, entry in mapping.entries.items():
        if key not in block.all_keys:
            close = nearest(key, block.all_keys)
            hint = f"did you mean {block.name}.{close}?" if close else keys.elsewhere(key)
            message = f"{block.name}.{key} is not a key of any {block.tag}"
            result.append(Problem(entry.origin, message, hint))
    return result


def _explain(
    block: keys.BlockKeys,
    kind: str | None,
    mapping: Mapping,
    location: tuple[str | int, ...],
    error: str,
    seen: set[tuple[str | int, ...]],
    whole: bool,
) -> Problem | None:
    """One sentence for what pydantic found, or None where another one already covers it."""
    # A union's branches are named in the location, models by their class: cut to what the tree has.
    classes = _schema(block.models[kind]).get("$defs", {})
    path = tuple(part for part in location if part not in classes)
    while error not in ABSENT and len(path) > 1 and descend(mapping, path) is None:
        path = path[:-1]
    if error == "missing" and isinstance(path[-1], int):  # an item of a fixed number
        path, error = path[:-1], "too_few"
    if path in seen:
        return None
    if error in ("too_short", "bool_type") and any(other[: len(path)] == path for other in seen):
        return None  # not short as written, and meant as a mapping: what is inside is at fault
    seen.add(path)
    dotted = block.name + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)
    if error == "missing":
        return _missing(block, kind, mapping, path, dotted) if whole else None
    entry = descend(mapping, path)
    if entry is None:
        return Problem(mapping.origin, f"{dotted} is not valid")
    if error == "extra_forbidden" and len(path) == 1:
        return Problem(entry.origin, *keys.no_key(block, kind, str(path[0])))
    if error == "extra_forbidden":
        close = nearest(str(path[-1]), _keys_inside(block, kind, path[:-1]))
        inside = dotted.rpartition(".")[0]
        hint = f"did you mean {inside}.{close}?" if close else None
        return Problem(entry.origin, f"{dotted} is not a key", hint)
    allowed, types = expectation(block, kind, path)
    message = f"{dotted} must be {allowed}, not {found(entry.node)}"
    return Problem(entry.node.origin, message, _meant(block, kind, path, entry.node, types))


def _missing(
    block: keys.BlockKeys,
    kind: str | None,
    mapping: Mapping,
    path: tuple[str | int, ...],
    dotted: str,
) -> Problem:
    chosen = mapping.entries.get(block.tag) if block.tag else None
    place = chosen.origin if chosen else mapping.origin
    described = _schema(block.models[kind])["properties"].get(str(path[0]), {}).get("description")
    return Problem(
        place,
        f"{dotted} is missing" + (f': {block.tag} "{kind}" needs it' if kind else ""),
        f"{path[0]}: {described}" if described else None,
    )


def _meant(
    block: keys.BlockKeys,
    kind: str | None,
    path: tuple[str | int, ...],
    node: Node,
    types: tuple[str, ...],
) -> str | None:
    write = meant_value(node, types)
    if write:
        return write
    part = _part(block, kind, path)
    if "x-because" in part:
        return f"{kind} {part['x-because']}"
    value = plain(node)
    words = [
        word
        for branch in part.get("anyOf", [part])
        for word in (*branch.get("enum", ()), branch.get("const"))
        if isinstance(word, str)
    ]
    if isinstance(value, bool | None) and words:
        off = next((word for word in words if word in ("none", "constant")), None)
        return f"did you mean {off}?" if off and not value else None
    close = nearest(value, words, 0.6) if isinstance(value, str) else None
    return f"did you mean {close}?" if close else None


# --- what a key may be, from the schema ---------------------------------------------------


@functools.cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _part(block: keys.BlockKeys, kind: str | None, path: tuple[str | int, ...]) -> dict[str, Any]:
    """The JSON Schema at a path, as far as the schema reaches; {} beyond."""
    root = _schema(block.models[kind])
    part: dict[str, Any] = root
    for step in path:
        for branch in (part, *part.get("anyOf", ())):
            branch = root["$defs"][branch["$ref"].split("/")[-1]] if "$ref" in branch else branch
            if isinstance(step, str) and step in branch.get("properties", {}):
                part = branch["properties"][step]
                break
            if isinstance(step, int) and "items" in branch and branch["items"]:
                part = branch["items"]
                break
            if isinstance(step, int) and step < len(branch.get("prefixItems", ())):
                part = branch["prefixItems"][step]
                break
        else:
            return {}
    return part


def _keys_inside(block: keys.BlockKeys, kind: str | None, path: tuple[str | int, ...]) -> list[str]:
    """The keys of a mapping inside a block; [] where any may be."""
    root = _schema(block.models[kind])
    part = _part(block, kind, path)
    found: list[str] = []
    for branch in part.get("anyOf", [part]):
        branch = root["$defs"][branch["$ref"].split("/")[-1]] if "$ref" in branch else branch
        found += branch.get("properties", {})
    return found


def expectation(
    block: keys.BlockKeys, kind: str | None, path: tuple[str | int, ...]
) -> tuple[str, tuple[str, ...]]:
    """What a key may be, in words, and which of `number` and `boolean` are among it."""
    part = _part(block, kind, path)
    branches = part.get("anyOf", [part])
    names = {branch.get("type") for branch in branches}
    types = tuple({"integer": "number"}.get(str(name), str(name)) for name in names)
    if "x-allowed" in part:
        return str(part["x-allowed"]), types
    return listing(word for branch in branches for word in _words(branch)), types


def _words(part: dict[str, Any]) -> list[str]:
    if "enum" in part:
        return [str(word) for word in part["enum"]]
    if "const" in part:
        return [str(part["const"])]
    match part.get("type"):
        case "null":
            return ["null"]
        case "boolean":
            return ["true", "false"]
        case "integer":
            return [f"a whole number{_bounds(part, whole=True)}"]
        case "number":
            return [f"a number{_bounds(part, whole=False)}"]
        case "array" if "prefixItems" in part:
            return [f"a list of {len(part['prefixItems'])} numbers"]
        case "array":
            items = _words(part.get("items", {}))[0].removeprefix("a ")
            return [f"a list of {items.replace('number', 'numbers', 1)}"]
        case "string":
            return ["text"]
        case _:
            return ["a mapping"]


def _bounds(part: dict[str, Any], *, whole: bool) -> str:
    low, above = part.get("minimum"), part.get("exclusiveMinimum")
    high, below = part.get("maximum"), part.get("exclusiveMaximum")
    if whole and above is not None:
        low, above = above + 1, None
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    lower = f" of at least {low:g}" if low is not None else ""
    lower = f" above {above:g}" if above is not None else lower
    upper = f" below {below:g}" if below is not None else ""
    upper = f" of at most {high:g}" if high is not None else upper
    return f"{lower} and{upper}" if lower and upper else lower + upper


def is_whole_number(key: Key) -> bool:
    """Whether a key takes whole numbers but no others."""
    block = keys.BLOCKS[key[0]]
    for kind, model in block.models.items():
        if key[1] in model.model_fields:
            part = _part(block, kind, key[1:])
            names = {branch.get("type") for branch in part.get("anyOf", [part])}
            return "integer" in names and "number" not in names
    return False


def nulls_are_empty(node: Node) -> Node:
    """A block with nothing beneath its key is an empty mapping."""
    return Mapping({}, node.origin) if is_null(node) else node


# The keys that name files; in `target` a class name follows the path.
PATH_KEYS = {"data": "root", "model": "target", "norm": "target"}


def absolute_paths(name: str, block: Mapping) -> Mapping:
    """A block with absolute paths: what is relative starts where it was written."""
    key = PATH_KEYS.get(name)
    entry = block.entries.get(key) if key else None
    if entry is None or not isinstance(entry.node, Scalar) or not isinstance(entry.node.value, str):
        return block
    text, colon, inside = entry.node.value, "", ""
    if key == "target":
        text, colon, inside = text.rpartition(":")
        if not text:
            return block  # not a target: the schema says so
    folder = entry.node.origin.source.folder
    path = Path(folder).absolute() / os.path.expanduser(text)  # noqa: PTH111
    # Path keeps `..`; two spellings of one place should be one text.
    node = Scalar(os.path.normpath(path) + colon + inside, entry.node.origin)
    return Mapping({**block.entries, str(key): Entry(entry.origin, node)}, block.origin)
