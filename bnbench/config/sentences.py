"""What pydantic found, in sentences: the key, what it must be, what it is, and what was meant."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

from bnbench.config.hints import (
    ALWAYS_SWAPPED,
    in_a_block,
    meant,
    meant_block,
    nearest_kind,
    no_dotted_key,
    value_called,
    value_meant,
    written_out,
)
from bnbench.config.schema import BLOCKS, Block, Family, Key
from bnbench.config.yaml import MISSING, Path, at
from bnbench.wording import did_you_mean, found, listing, nearest

Model = TypeVar("Model", bound=BaseModel)
Part: TypeAlias = dict[str, Any]
"""Of a JSON Schema."""
# What types of JSON Schema are called; numbers have bounds as well.
WORDS = {"null": ["null"], "boolean": ["true", "false"], "string": ["text"], "array": ["a list"]}


class Flaw(NamedTuple):
    """A fault inside of some data: `path` leads to it, `key` says whether its key is at fault."""

    path: Path
    message: str
    hint: str | None = None
    key: bool = False


def validated(model: type[Model], values: Any) -> tuple[Model | None, list[Flaw]]:
    """The model of a file, or of a part of it, or None and what is wrong."""
    return Subject(model, values).validated()


def validated_block(
    name: str, values: Mapping[str, Any], *, whole: bool
) -> tuple[Block | None, list[Flaw]]:
    """The model of a block, or None and what is wrong with it.

    Without `whole`, a key that is missing is no flaw: it may still come from a patch.
    """
    family = BLOCKS[name]
    kind = family.kind(values)
    if kind not in family.models:
        return None, [_wrong_kind(family, values), *_unknown_to_all(family, values)]
    model, flaws = Subject(family.models[kind], values, family, kind).validated()
    return model, flaws if whole else [flaw for flaw in flaws if " is missing" not in flaw.message]


MOST = 200
"""Flaws of one block that are told: each costs a sentence at every point of the grid."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Values, and the model that they must fit. A block also has a family and a kind."""

    model: type[BaseModel]
    values: Any
    family: Family | None = None
    kind: str | None = None

    def validated(self) -> tuple[Any, list[Flaw]]:
        """The model, or None and every flaw, once; of a long list of wrong items, the first."""
        try:
            return self.model.model_validate(self.values), []
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
        # A key that is at fault says it all; so does what is wrong inside one branch of a union.
        located = {_located(self.values, each): each for each in reversed(details)}
        keys = {path for path, on_key in located if on_key}
        above = {path[:length] for path, _ in located for length in range(len(path))}
        flaws = []
        for (path, on_key), detail in reversed(located.items()):
            known = any(path[:length] in keys for length in range(len(path) + 1))
            if on_key or not (known or (path in above and detail["type"] != "missing")):
                flaws.append(self.explained(path, detail, on_key=on_key))
            if len(flaws) == MOST:
                break
        return None, flaws

    def explained(self, path: Path, detail: Any, *, on_key: bool) -> Flaw:
        """One sentence for what pydantic found."""
        value, name = at(self.values, path), self.dotted(path)
        if detail["type"] == "missing" and value is MISSING:
            return self.missing(path)
        if detail["type"] == "extra_forbidden":
            return Flaw(path, *self.no_key(path), key=True)
        if detail["type"] == "fault" and detail["msg"] == "unknown key":
            axis = value if on_key and path[-2] == "axes" else None
            key = tuple(str(path[-1] if on_key else value).split("."))
            return Flaw(path, *no_dotted_key(key, axis), key=on_key)
        if detail["type"] == "fault":
            named = detail["loc"][-1:] == ("[key]",)
            around, message = self.dotted(path[:-1]), detail["msg"]
            message = message.replace("{value}", found(path[-1] if named else value))
            message = message.replace("{around}", around)
            message = message.replace("{name}", around if named else name)
            return Flaw(path, message, detail["ctx"]["hint"], on_key)
        part, branches = _part(self.model, path)
        said = f"a list of {len(value):,}" if detail["type"] == "too_long" else found(value)
        message = f"{name} must be {allowed(self.model, path)}, not {said}"
        if "\\udc" in ascii(value):  # half a character stands for a byte of a path that is no text
            message = f"{name}: this path is not UTF-8, which no configuration can hold"
        hint = did_you_mean(value_called(name, found(value).strip('"')))
        return Flaw(path, message, self.hint(part, branches, value) if hint is None else hint)

    def missing(self, path: Path) -> Flaw:
        """The sentence for a required key; its place is the kind that needs it."""
        tag = self.family.tag if self.family else None
        chosen = tag is not None and tag in self.values and len(path) == 1
        said = f': {tag} "{self.kind}" needs it' if self.kind else ""
        described = _part(self.model, path)[0].get("description")
        hint = f"{path[-1]}: {described}" if described else None
        place = (str(tag),) if chosen else path[:-1]
        return Flaw(place, f"{self.dotted(path)} is missing{said}", hint, key=chosen)

    def no_key(self, path: Path) -> tuple[str, str | None]:
        """Message and hint for a key that its mapping does not have."""
        key, around, family = str(path[-1]) or '""', self.dotted(path[:-1]), self.family
        where = None
        if family is None:
            where = {"setups": "a setup", "profiles": "a profile"}.get(str(path[0]))
            where = "an experiment" if len(path) == 1 else where if len(path) == 3 else None
        message = f"{key if where else self.dotted(path)} is not a key of {where or around}"
        if "." in key:
            head, _, tail = key.partition(".")
            hint = f"only --set, --over and axes take dotted keys: write {head}: {{{tail}: …}}"
            return message, hint
        if family is None or len(path) > 1:
            parts = _part(self.model, path[:-1])[1]
            keys = [each for part in parts for each in part.get("properties", {})]
            close = did_you_mean(nearest(key, keys), "" if where else f"{around}.")
            if where == "a setup" and key == "seed":
                return message, "seeds are shared by all setups, so that differences are paired"
            if where:  # at the top of the file, of a setup or a profile
                close = meant(key, at(self.values, path), close)
            return message, close or f"allowed: {listing(keys, 'and')}"
        if family.tag:
            message = f'{self.dotted(path)} is not a key of {family.tag} "{self.kind}"'
        if (self.kind, key) == ("timm", "norm"):
            return message, ALWAYS_SWAPPED
        if others := family.kinds_with(key):
            return message, f"{key} is a key of {family.tag} {listing(others)}"
        guess = did_you_mean(nearest(key, self.model.model_fields), f"{family.name}.")
        if not guess and (close := nearest(key, family.keys)):
            kinds = listing(family.kinds_with(close))
            guess = f"did you mean {family.name}.{close}, a key of {kinds}?"
        return message, meant(self.dotted(path), guess=guess)

    def hint(self, part: Part, branches: list[Part], value: Any) -> str | None:
        """What to write instead, as far as it can be guessed."""
        types = {str(each.get("type")).replace("integer", "number") for each in branches}
        words = [word for each in branches for word in (*each.get("enum", ()), each.get("const"))]
        words = [word for word in words if isinstance(word, str)]
        if "oneOf" in part:  # the values of an axis
            if isinstance(value, dict):
                return did_you_mean(nearest(next(iter(value), None), ("log", "linear"), 0.5))
            return f"write [{found(value)}]" if isinstance(value, str | int | float) else None
        if "x-block" in part and not isinstance(value, tuple):
            return meant_block(BLOCKS[part["x-block"]], value)
        if "x-write" in part:
            kind = value_meant(value) if isinstance(value, str) else None
            return f"write {{{in_a_block(*kind)}}}" if kind else f"write {part['x-write']}"
        if write := meant_value(value, types):
            return write
        bare = not words and not any("pattern" in each for each in branches)
        if types <= {"string", "null"} and bare and isinstance(value, bool | int | float):
            return f'write "{found(value)}", in quotes'
        if "x-because" in part:
            return f"{self.kind} {part['x-because']}"
        if value in (None, False):
            value = next((word for word in words if word in ("none", "constant")), None)
        return did_you_mean(nearest(value, words, 0.6))

    def dotted(self, path: Path) -> str:
        """The path as messages show it: `optim.milestones[1]`."""
        inner = "".join(
            f"[{part}]" if isinstance(part, int) else "." + (part or '""') for part in path
        )
        return (self.family.name + inner if self.family else inner).removeprefix(".")


def _located(values: Any, detail: Any) -> tuple[Path, bool]:
    """The path of an error in the values, which know nothing of unions' branches, and whether
    its key is at fault."""
    parts, path = detail["loc"], list[str | int]()
    for part in parts:
        if (inner := at(values, (part,))) is not MISSING:
            values = inner
            path.append(part)
    if detail["type"] == "missing" and isinstance(parts[-1], str):  # else: a list is too short
        path.append(parts[-1])
    place = detail["ctx"]["at"] if detail["type"] == "fault" else None
    path += [] if place is None else [place]
    return tuple(path), parts[-1:] == ("[key]",) or isinstance(place, str)


# --- what a key must be -------------------------------------------------------------------


def allowed(model: type[BaseModel], path: Path) -> str:
    """What a key of a model must be, in words."""
    part, branches = _part(model, path)
    return str(part.get("x-allowed") or listing(_words(branches)))


@functools.cache
def _json_schema(model: type[BaseModel]) -> Part:
    return model.model_json_schema()


def _part(model: type[BaseModel], path: Path) -> tuple[Part, list[Part]]:
    """The JSON Schema at a path, {} where it describes nothing, and the parts of its union."""
    part = root = _json_schema(model)
    for step in path:
        part = next(filter(None, (_inner(each, step) for each in _branches(root, part))), {})
    return part, _branches(root, part)


def _branches(root: Part, part: Part) -> list[Part]:
    """The part or the parts of its union, with references followed."""
    union = part.get("anyOf") or part.get("oneOf") or [part]
    return [root["$defs"][each["$ref"].split("/")[-1]] if "$ref" in each else each
            for each in union]  # fmt: skip


def _inner(part: Part, step: str | int) -> Part | None:
    if isinstance(step, str):
        other = part.get("additionalProperties")
        return part.get("properties", {}).get(step) or (other if isinstance(other, dict) else None)
    fixed = part.get("prefixItems", ())
    return fixed[step] if step < len(fixed) else part.get("items")


def _words(branches: Iterable[Part]) -> list[str]:
    words = [word for branch in branches for word in _words_of(branch)]
    containers = any(word.startswith(("a mapping", "a list")) for word in words)
    return [word for word in words if word != "null"] if containers else words


def _words_of(part: Part) -> list[str]:
    if "enum" in part or "const" in part:
        return [str(word) for word in part.get("enum", [part.get("const")])]
    match part.get("type"):
        case "integer":
            return [f"a whole number{_bounds(part)}"]
        case "number":
            return [f"a number{_bounds(part)}"]
        case "array" if "prefixItems" in part:
            return [f"a list of {len(part['prefixItems'])} numbers"]
        case "array" if part.get("items", {}).get("type") in ("integer", "number"):
            items = _words_of(part["items"])[0].removeprefix("a ")
            most = f"at most {part['maxItems']} " if "maxItems" in part else ""
            return [f"a list of {most}{items.replace('number', 'numbers', 1)}"]
        case kind:
            return WORDS.get(str(kind), ["a mapping"])


def _bounds(part: Part) -> str:
    """The bounds of a number, which always has two; either may be excluded."""
    low, high = part.get("minimum"), part.get("maximum")
    if low is not None and high is not None:
        return f" from {_short(low)} to {_short(high)}"
    first = f"above {_short(part['exclusiveMinimum'])}" if low is None else f"of at least {low:g}"
    last = f"below {part['exclusiveMaximum']:g}" if high is None else f"at most {_short(high)}"
    return f" {first} and {last}"


def _short(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else re.sub(r"e\+0?", "e", f"{bound:g}")


def is_whole_number(key: Key) -> bool:
    """Whether a key takes whole numbers but no others."""
    family = BLOCKS[key[0]]
    model = family.models[(*family.kinds_with(key[1]), None)[0]]
    types = {branch.get("type") for branch in _part(model, key[1:])[1]}
    return "integer" in types and "number" not in types


def meant_value(value: Any, types: Iterable[str]) -> str | None:
    """What to write instead of text that looks like a `number` or a `boolean`."""
    text = value.strip() if isinstance(value, str) else ""
    meant: str | None = None
    if "number" in types:
        number = re.fullmatch(r"([-+]?)0*([0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?)", text)
        if number:
            meant = (number[1].replace("+", "") + number[2]).replace("_", "")
        elif re.fullmatch(r"0(x[0-9a-fA-F]{1,15}|o[0-7]{1,15}|b[01]{1,15})", text):
            meant = str(int(text, 0))
    if "boolean" in types and text.lower() in ("yes", "on", "true", "no", "off", "false"):
        meant = "true" if text.lower() in ("yes", "on", "true") else "false"
    if meant is None:
        return None
    return f"write {meant}" + (", without quotes" if meant == text else "")


# --- kinds that there are not ---------------------------------------------------------------


def _wrong_kind(family: Family, values: Mapping[str, Any]) -> Flaw:
    tag = str(family.tag)
    value = values[tag]
    message = f"{family.name}.{tag} must be {listing(family.kinds)}, not {found(value)}"
    kind = nearest_kind(family, str(value if value else "off").lower())
    said = isinstance(value, str) or not value
    if kind == "none" and value != "none":
        return Flaw((tag,), message, "the kind without normalization is none")
    return Flaw((tag,), message, written_out(family, value) or did_you_mean(kind if said else None))


def _unknown_to_all(family: Family, values: Mapping[str, Any]) -> Iterator[Flaw]:
    for key in values:
        if key not in family.keys:
            guess = did_you_mean(nearest(key, family.keys), f"{family.name}.")
            hint = meant(f"{family.name}.{key}", guess=guess)
            message = f"{family.name}.{key} is not a key of any {family.tag}"
            yield Flaw((key,), message, hint, key=True)
