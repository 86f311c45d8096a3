from __future__ import annotations

import json
from typing import Any

from bnbench.config import json_schema
from bnbench.config.keys import BLOCKS, TOP_KEYS, every_key


def test_structure() -> None:
    schema = json_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["properties"]) == set(TOP_KEYS)
    assert schema["additionalProperties"] is False
    for name, block in BLOCKS.items():
        part = schema["$defs"][f"block-{name}"]
        assert set(part["properties"]) == set(block.all_keys)
        assert "required" not in part  # patches give what they like
        assert len(part.get("allOf", [])) == len(block.kinds)


def test_kinds_decide_which_keys_fit() -> None:
    part = json_schema()["$defs"]["block-norm"]
    fits = {
        rule["if"]["properties"]["kind"]["const"]: rule["then"]["propertyNames"]["enum"]
        for rule in part["allOf"]
    }
    assert fits["none"] == ["kind"]
    assert "groups" in fits["group"]
    assert "groups" not in fits["batch"]
    assert part["properties"]["kind"]["enum"] == list(fits)


def test_a_setup_may_hold_axes() -> None:
    setup = json_schema()["properties"]["setups"]["additionalProperties"]
    assert set(setup["properties"]) == {*BLOCKS, "axes"}
    assert set(setup["properties"]["axes"]["properties"]) == set(every_key())


def test_keys_are_described_and_references_resolve() -> None:
    schema = json_schema()
    lr = schema["$defs"]["block-optim"]["properties"]["lr"]
    assert all("description" in each for each in lr.get("anyOf", [lr]))

    def walk(part: Any) -> None:
        if isinstance(part, dict):
            if "$ref" in part:
                head, definitions, name = part["$ref"].split("/")
                assert (head, definitions) == ("#", "$defs")
                assert name in schema["$defs"]
            assert not any(key.startswith("x-") for key in part)
            for value in part.values():
                walk(value)
        elif isinstance(part, list):
            for value in part:
                walk(value)

    walk(schema)
