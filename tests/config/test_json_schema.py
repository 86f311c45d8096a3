from __future__ import annotations

import json
from typing import Any

from bnbench.config import schema

SCHEMA = schema.json_schema()


def test_structure() -> None:
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(SCHEMA["properties"]) == set(schema.ExperimentFile.model_fields)
    assert SCHEMA["additionalProperties"] is False
    for name, block in schema.BLOCKS.items():
        part = SCHEMA["$defs"][f"block-{name}"]
        assert set(part["properties"]) == set(block.keys)
        assert "required" not in part  # patches give what they like
        assert len(part.get("allOf", [])) == len(block.kinds)


def test_kinds_decide_which_keys_fit() -> None:
    part = SCHEMA["$defs"]["block-norm"]
    fits = {
        rule["if"]["properties"]["kind"]["const"]: rule["then"]["propertyNames"]["enum"]
        for rule in part["allOf"]
    }
    assert fits["none"] == ["kind"]
    assert "groups" in fits["group"]
    assert "groups" not in fits["batch"]
    assert part["properties"]["kind"]["enum"] == list(fits)


def test_a_setup_may_hold_axes_and_a_profile_seeds() -> None:
    setup, profile = (
        SCHEMA["$defs"][name]["properties"] for name in ("SetupPatch", "ProfilePatch")
    )
    assert set(setup) == {*schema.BLOCKS, "axes"}
    assert set(profile) == {*schema.BLOCKS, "axes", "seeds"}
    (axes, _) = setup["axes"]["anyOf"]
    assert axes["propertyNames"]["anyOf"][0]["enum"] == schema.every_key()
    assert setup["norm"] == {"$ref": "#/$defs/block-norm"}


def test_keys_are_described_and_references_resolve() -> None:
    lr = SCHEMA["$defs"]["block-optim"]["properties"]["lr"]
    assert all("description" in each for each in lr.get("anyOf", [lr]))

    def search(part: Any) -> None:
        if isinstance(part, dict):
            if "$ref" in part:
                head, definitions, name = part["$ref"].split("/")
                assert (head, definitions) == ("#", "$defs")
                assert name in SCHEMA["$defs"]
            assert not any(key.startswith("x-") for key in part)
            for value in part.values():
                search(value)
        elif isinstance(part, list):
            for value in part:
                search(value)

    search(SCHEMA)
