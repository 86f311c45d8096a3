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
        models = {model.__name__ for model in block.models.values()}
        assert {kind.get("$ref") for kind in SCHEMA["$defs"][f"block-{name}"]["anyOf"]} == {
            None,  # a block may be empty
            *(f"#/$defs/{model}" for model in models),
        }
        for model in models:
            assert "required" not in SCHEMA["$defs"][model]  # patches give what they like
            assert SCHEMA["$defs"][model]["additionalProperties"] is False


def test_kinds_decide_which_keys_fit() -> None:
    for block in schema.BLOCKS.values():
        for kind, model in block.models.items():
            part = SCHEMA["$defs"][model.__name__]
            assert set(part["properties"]) == set(model.model_fields)
            if kind is not None:
                tag = part["properties"][block.tag]
                assert kind in tag.get("enum", [tag.get("const")])


def test_a_setup_may_hold_axes_and_a_profile_seeds() -> None:
    setup, profile = (
        SCHEMA["$defs"][name]["properties"] for name in ("SetupPatch", "ProfilePatch")
    )
    assert set(setup) == {*schema.BLOCKS, "axes"}
    assert set(profile) == {*schema.BLOCKS, "axes", "claims", "seeds"}
    (axes, _) = setup["axes"]["anyOf"]
    assert axes["propertyNames"]["anyOf"][0]["enum"] == schema.every_key()
    assert setup["norm"] == {"$ref": "#/$defs/block-norm"}


def test_keys_are_described_and_references_resolve() -> None:
    assert SCHEMA["$defs"]["SGDConfig"]["properties"]["lr"]["description"]

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
