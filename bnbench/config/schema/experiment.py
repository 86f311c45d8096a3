"""The file of an experiment, whole: blocks, setups, axes, seeds, profiles, claims.

A block here is a patch: it may leave out any key. What a block says is checked for each run, once
the patches lie on one another; `ExperimentFile` checks everything around the blocks.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from bnbench.config.schema.base import Block
from bnbench.config.schema.blocks import BLOCKS, Family, every_key, known
from bnbench.config.schema.claims import ClaimConfig

MAX_POINTS = 10_000  # of one range; a grid has its own limit


def _is_key(text: str) -> str:
    if not known(tuple(text.split("."))):
        raise PydanticCustomError("unknown_key", "not a dotted key")
    return text


def _is_settable(text: str) -> str:
    return text if text in BLOCKS else _is_key(text)


def _form(values: Any) -> str | None:
    """Which form an axis has; None for none of them."""
    if isinstance(values, dict):
        return next((form for form in ("log", "linear") if [*values] == [form]), None)
    return "list" if isinstance(values, list | tuple) else None


def _plain(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for i, value in enumerate(values):
        if isinstance(value, dict):
            raise PydanticCustomError("no_plain_value", "a mapping", {"index": i})
    return values


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for i, value in enumerate(values):
        if value in values[:i]:
            raise PydanticCustomError("given_twice", "given twice", {"index": i})
    return values


def _says(words: str, **more: Any) -> Any:
    return Field(json_schema_extra={"x-allowed": words, **more})


KEY = {"type": "string", "anyOf": [{"enum": every_key()}, {"pattern": r"\..*\."}]}
AxisKey = Annotated[
    str, AfterValidator(_is_key), WithJsonSchema(KEY | {"x-allowed": "a key such as optim.lr"})
]
Above = Annotated[PositiveInt | PositiveFloat, _says("a number above 0")]
Number = Annotated[int | float, _says("a number")]
Points = Annotated[int, Field(ge=2, le=MAX_POINTS)]
Triple = _says("[first, last, how many]: three numbers")


class LogRange(Block):
    """Values with equal ratios, e.g. {log: [0.003, 3.0, 7]}."""

    log: Annotated[tuple[Above, Above, Points], Field(strict=False), Triple]


class LinearRange(Block):
    """Values with equal differences, e.g. {linear: [1, 9, 5]}."""

    linear: Annotated[tuple[Number, Number, Points], Field(strict=False), Triple]


ValueList = Annotated[tuple[Any, ...], Field(min_length=1, strict=False), AfterValidator(_plain)]
Values = Annotated[
    Annotated[ValueList, Tag("list")]
    | Annotated[LogRange, Tag("log")]
    | Annotated[LinearRange, Tag("linear")],
    Discriminator(_form),
    _says("a list, {log: [a, b, n]} or {linear: [a, b, n]}"),
]
Axes = Annotated[dict[AxisKey, Values] | None, _says("a mapping of keys to values")]
Seed = Annotated[int, Field(ge=0)]
SeedList = Annotated[
    tuple[Seed, ...],
    Field(min_length=1, strict=False, json_schema_extra={"uniqueItems": True}),
    AfterValidator(_distinct),
]
Seeds = Annotated[
    PositiveInt | SeedList | None, _says("a whole number of at least 1, or a list of seeds")
]


def _patch(name: str) -> Any:
    return WithJsonSchema({"type": "object", "x-block": name})


class Patch(Block):
    """Blocks that are put on those below, key by key."""

    data: Annotated[dict[str, Any] | None, _patch("data")] = None
    model: Annotated[dict[str, Any] | None, _patch("model")] = None
    norm: Annotated[dict[str, Any] | None, _patch("norm")] = None
    optim: Annotated[dict[str, Any] | None, _patch("optim")] = None
    train: Annotated[dict[str, Any] | None, _patch("train")] = None
    probes: Annotated[dict[str, Any] | None, _patch("probes")] = None
    compute: Annotated[dict[str, Any] | None, _patch("compute")] = None


class SetupPatch(Patch):
    """A named arm of the comparison."""

    axes: Annotated[Axes, _says("a mapping", **{"x-write": "axes: {optim.lr: [0.1, 1.0]}"})] = (
        Field(None, description="values of its own for axes of the experiment")
    )


class ProfilePatch(Patch):
    """A named variant of the size: its axes and seeds replace those of the file."""

    axes: Axes = None
    seeds: Seeds = None


class TuneConfig(Block):
    """The axis from which the report picks a value per cell, on validation only."""

    axis: Annotated[str, WithJsonSchema(KEY | {"x-allowed": "one of the axes"})] = Field(
        description="it names one of the axes"
    )
    by: Literal["val/accuracy", "val/loss"] = Field("val/accuracy", description="what it picks by")


class ExperimentFile(Patch):
    """An experiment: what is compared, over which values, with how many seeds."""

    experiment: str | None = Field(
        None, description="folder under the runs directory; default: the file's name"
    )
    question: str | None = Field(None, description="what the experiment asks; a report's title")
    setup: str | None = Field(None, description="label of a single run; for several see setups")
    swept: Annotated[
        Annotated[tuple[AxisKey, ...], Field(strict=False), AfterValidator(_distinct)] | None,
        _says("a list of keys"),
    ] = Field(None, description="dotted keys that were varied, in a resolved run's own file")
    seed: Seed = Field(
        0, description="initial weights, split and order of the data; the same in every setup"
    )
    profile: str | None = Field(
        None, description="which of the profiles is in force; default: the first"
    )
    profiles: dict[str, ProfilePatch | None] | None = Field(
        None, description="named variants of the size: seeds, axes and blocks instead of the file's"
    )
    setups: (
        dict[
            str,
            Annotated[SetupPatch | None, _says("a mapping", **{"x-write": "{norm: {kind: …}}"})],
        ]
        | None
    ) = Field(None, description="named arms; each is a patch on the base configuration")
    axes: Axes = Field(
        None, description="dotted keys with the values that are crossed with every setup"
    )
    seeds: Seeds = Field(None, description="how many seeds, from 0; or a list of seeds")
    tune: Annotated[TuneConfig | None, _says("{axis: …, by: …} or null")] = Field(
        None, description="the axis from which the report picks a value per cell"
    )
    claims: Annotated[tuple[ClaimConfig, ...], Field(strict=False)] | None = Field(
        None, description="what is judged from the runs by `bnbench report`"
    )
    set: dict[Annotated[str, AfterValidator(_is_settable)], Any] | None = Field(
        None, description="dotted keys whose values win over base, setups and axes"
    )


# --- the JSON Schema, for editors ---------------------------------------------------------


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of an experiment's file."""
    whole = ExperimentFile.model_json_schema()
    inner: dict[str, Any] = whole.pop("$defs")
    blocks = {f"block-{name}": _block(block, inner) for name, block in BLOCKS.items()}
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bnbench experiment",
    }
    top = {key: value for key, value in _clean(whole).items() if key != "description"}
    return head | top | {"type": ["object", "null"], "$defs": blocks | _clean(inner)}


def _block(block: Family, inner: dict[str, Any]) -> dict[str, Any]:
    """A block as base or patch may give it: no key is required, the kind decides which fit.

    Mappings inside of it are added to `inner`, by the names that the block refers to.
    """
    properties: dict[str, Any] = {}
    rules: list[dict[str, Any]] = []
    for kind, model in block.models.items():
        whole = model.model_json_schema()
        inner |= whole.get("$defs", {})
        for key, part in _clean(whole["properties"]).items():
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
    patch = {"type": ["object", "null"], "properties": properties, "additionalProperties": False}
    return patch | ({"allOf": rules} if rules else {})


def _clean(part: Any) -> Any:
    """Without titles and our own marks; where a block belongs, with a reference to it."""
    if isinstance(part, list):
        return [_clean(each) for each in part]
    if not isinstance(part, dict):
        return part
    if "x-block" in part:
        return {"$ref": f"#/$defs/block-{part['x-block']}"}
    return {
        key: _clean(value)
        for key, value in part.items()
        if key[:2] != "x-" and not (key == "title" and isinstance(value, str))
    }
