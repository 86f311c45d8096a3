"""Every number has a minimum and a maximum, and a list of numbers a length."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, create_model

from bnbench.config import schema


def numbers(part: Any, root: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Each number of a JSON Schema with its path, wherever in lists, mappings and unions."""
    if "$ref" in part:
        part = root["$defs"][part["$ref"].rpartition("/")[2]]
    if part.get("type") in ("integer", "number") and "enum" not in part:
        yield ".".join(path), part
    for inner in (*part.get("anyOf", ()), *part.get("oneOf", ()), *part.get("prefixItems", ())):
        yield from numbers(inner, root, path)
    for key in ("items", "additionalProperties"):
        if isinstance(part.get(key), dict):
            yield from numbers(part[key], root, (*path, "[]"))
    for key, inner in part.get("properties", {}).items():
        yield from numbers(inner, root, (*path, key))


def unbounded(model: type[BaseModel]) -> list[str]:
    """The numbers of a model without both bounds."""
    whole = model.model_json_schema()
    sides = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
    return [
        path
        for path, part in numbers(whole, whole)
        if not all(any(math.isfinite(part.get(key, math.inf)) for key in side) for side in sides)
    ]


MODELS: list[type[BaseModel]] = [schema.RunConfig, schema.ExperimentFile]


def test_every_number_has_bounds() -> None:
    assert [unbounded(model) for model in MODELS] == [[], []]
    schemas = [model.model_json_schema() for model in MODELS]
    assert sum(len(list(numbers(whole, whole))) for whole in schemas) > 90


def test_a_number_without_bounds_is_found() -> None:
    inner = create_model("Inner", lengths=(tuple[int, ...], ...))
    outer = create_model("Outer", inner=(inner | bool | None, ...))
    assert unbounded(outer) == ["inner.lengths.[]"]


BOUNDED = [
    (family.name, family.tag, kind, path, part)
    for family in schema.BLOCKS.values()
    for kind, model in family.models.items()
    for whole in [model.model_json_schema()]
    for path, part in numbers(whole, whole)
    if "[]" not in path and path not in ("betas",)
]


@pytest.mark.parametrize(("name", "tag", "kind", "path", "part"), BOUNDED)
def test_what_is_above_a_maximum_is_refused_with_key_value_and_maximum(
    faults: Any, name: str, tag: str | None, kind: str | None, path: str, part: Any
) -> None:
    most = part.get("maximum", part.get("exclusiveMaximum"))
    above = most * 1.001 + 1 if part["type"] == "number" else most + 1
    for value in (value for value in (above, 2**63 - 1) if most < value < 2**63):
        key, _, inner = path.partition(".")
        said = f"{{{inner}: {value}}}" if inner else f"{value}"
        chosen = f"{tag}: {kind}, " if tag else ""
        text = faults(f"{name}: {{{chosen}{key}: {said}}}").splitlines()
        (line,) = [each for each in text if f" {name}.{path} must be" in each]
        shown = f"{most:,}" if isinstance(most, int) else re.sub(r"e\+0?", "e", f"{most:g}")
        assert f" {shown}" in line
        assert f"not {value}" in line


@pytest.mark.parametrize("key", ["model.widths", "optim.milestones", "probes.landscape.steps"])
def test_a_list_that_is_too_long_is_refused_with_both_lengths(faults: Any, key: str) -> None:
    block, _, inner = key.partition(".")
    inner, _, deeper = inner.partition(".")
    said = f"{{{deeper}: {[1] * 101}}}" if deeper else f"{[1] * 101}"
    most = 10 if key == "model.widths" else 100
    line = faults(f"{block}: {{{inner}: {said}}}").splitlines()[0]
    assert f"{key} must be a list of at most {most} " in line
    assert line.endswith("not a list of 101")
