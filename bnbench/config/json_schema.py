"""A JSON Schema of experiment files, so that editors complete and explain keys."""

from __future__ import annotations

from typing import Any

from bnbench.config import schema
from bnbench.config.keys import BLOCKS, PROFILE_KEYS, BlockKeys, every_key
from bnbench.config.load import METRICS

TITLES = {
    "experiment": "folder under the runs directory; default: the file's name",
    "question": "what the experiment asks; a report's title",
    "setup": "label of a single run; for several arms see setups",
    "swept": "dotted keys that were varied, in a resolved run's own file",
    "setups": "named arms; each is a patch on the base configuration",
    "axes": "dotted keys with the values that are crossed with every setup",
    "seeds": "how many seeds, from 0; or a list of seeds",
    "tune": "the axis from which the report picks a value per cell, on validation only",
    "claims": "what is judged from the runs by `bnbench report`",
    "profile": "which of the profiles is in force; default: the first",
    "profiles": "named variants of the size: seeds, axes and blocks in the place of the file's",
    "set": "dotted keys whose values win over base, setups and axes",
}


def json_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of an experiment file."""
    inner: dict[str, Any] = {}
    blocks = {f"block-{name}": _block(block, inner) for name, block in BLOCKS.items()}
    patch = {name: {"$ref": f"#/$defs/block-{name}"} for name in BLOCKS}
    seed = schema.RunConfig.model_json_schema()["properties"]["seed"]
    text = {"type": ["string", "null"]}
    mapping = {"type": ["object", "null"]}
    range_of_three = {
        "type": "array",
        "prefixItems": [{"type": "number"}, {"type": "number"}, {"type": "integer", "minimum": 2}],
        "minItems": 3,
        "items": False,
    }
    values = {
        "oneOf": [
            {"type": "array", "minItems": 1},
            *(
                {
                    "type": "object",
                    "properties": {kind: range_of_three},
                    "required": [kind],
                    "additionalProperties": False,
                }
                for kind in ("log", "linear")
            ),
        ]
    }
    reference = {"$ref": "#/$defs/values-of-an-axis"}
    axes = mapping | {
        "properties": dict.fromkeys(every_key(), reference),
        "additionalProperties": reference,
    }
    seeds = {
        "oneOf": [
            {"type": "integer", "minimum": 1},
            {"type": "array", "minItems": 1, "uniqueItems": True}
            | {"items": {"type": "integer", "minimum": 0}},
            {"type": "null"},
        ]
    }
    claim = _block(BlockKeys("claims", None, {None: schema.ClaimConfig}, None), inner)
    own: dict[str, dict[str, Any]] = {
        "experiment": text,
        "question": text,
        "setup": text,
        "swept": {"type": ["array", "null"], "items": {"enum": every_key()}},
        "setups": mapping
        | {
            "additionalProperties": {
                "type": ["object", "null"],
                "properties": patch
                | {"axes": axes | {"description": "values of its own for axes of the experiment"}},
                "additionalProperties": False,
            }
        },
        "axes": axes,
        "seeds": seeds,
        "tune": mapping
        | {
            "properties": {"axis": {"enum": every_key()}, "by": {"enum": list(METRICS)}},
            "required": ["axis"],
            "additionalProperties": False,
        },
        "claims": {"type": ["array", "null"], "items": claim},
        "profile": text,
        "profiles": mapping
        | {
            "additionalProperties": mapping
            | {
                "properties": {
                    key: part
                    for key, part in (patch | {"axes": axes, "seeds": seeds}).items()
                    if key in PROFILE_KEYS
                },
                "additionalProperties": False,
            }
        },
        "set": mapping,
    }
    properties = {key: {**part, "description": TITLES[key]} for key, part in own.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bnbench experiment",
        "type": ["object", "null"],
        "properties": properties | patch | {"seed": _clean(seed)},
        "additionalProperties": False,
        "$defs": blocks | inner | {"values-of-an-axis": values},
    }


def _block(block: BlockKeys, inner: dict[str, Any]) -> dict[str, Any]:
    """A block as base or patch may give it: no key is required, the kind decides which fit.

    Mappings inside of it are added to `inner`, by the names that the block refers to.
    """
    properties: dict[str, Any] = {}
    rules: list[dict[str, Any]] = []
    for kind, model in block.models.items():
        schema = model.model_json_schema()
        for name, definition in schema.get("$defs", {}).items():
            parts = {key: _clean(part) for key, part in definition["properties"].items()}
            inner[name] = _clean(definition) | {"properties": parts}
        for key, part in schema["properties"].items():
            part = _clean(part)
            if key == block.tag:
                part = {"enum": block.kinds, "default": block.default}
            old = properties.setdefault(key, part)
            if part != old:
                branches = old.get("anyOf", [old]) if "description" not in old else [old]
                if part not in branches:
                    properties[key] = {"anyOf": [*branches, part]}
        if kind is not None:
            rules.append(
                {
                    "if": {"properties": {block.tag: {"const": kind}}, "required": [block.tag]},
                    "then": {
                        "description": (model.__doc__ or "").strip(),
                        "propertyNames": {"enum": list(model.model_fields)},
                    },
                }
            )
    result: dict[str, Any] = {
        "type": ["object", "null"],
        "properties": properties,
        "additionalProperties": False,
    }
    if rules:
        result["allOf"] = rules
    return result


def _clean(part: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != "title" and key[:2] != "x-"}
