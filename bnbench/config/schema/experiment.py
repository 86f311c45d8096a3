"""The file of an experiment, whole: blocks, setups, axes, seeds, profiles, claims.

A block here is a patch: it may leave out any key. What a block says is checked for each run, once
the patches are merged; `ExperimentFile` checks everything around the blocks.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag
from pydantic import WithJsonSchema as Shown

from bnbench.config.schema.base import Block, NonNegative, Positive, Seed, distinct, fault
from bnbench.config.schema.run import BLOCKS, LOGGERS, Loggers, RunConfig, every_key, known
from bnbench.wording import slug


def _is_key(text: str) -> str:
    if not known(tuple(text.split("."))):
        raise fault("unknown key")  # `hints` has the words
    return text


def _is_settable(text: str) -> str:
    return text if text in BLOCKS else _is_key(text)


def _is_name(text: str) -> str:
    if not slug(text):
        raise fault("{name}: {value} leaves no name for a folder", "use a letter or a digit")
    return text


def _form(values: Any) -> str | None:
    """Which form an axis has; None for none of them."""
    if isinstance(values, dict):
        return next((form for form in ("log", "linear") if [*values] == [form]), None)
    return "list" if isinstance(values, tuple) else None


def _plain(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for i, value in enumerate(values):
        if isinstance(value, dict):
            raise fault("{around} takes plain values, not a mapping", at=i)
    return values


def _own_folders(setups: dict[str, Any]) -> dict[str, Any]:
    slugs: dict[str, str] = {}
    for name in setups:
        other = slugs.setdefault(slug(name), name)
        if other != name:
            named = f'the setups "{other}" and "{name}" share the folder name {slug(name)}'
            raise fault(named, at=name)
    return setups


KEY = {"type": "string", "anyOf": [{"enum": every_key()}, {"pattern": r"\..*\."}]}
AxisKey = Annotated[
    str, AfterValidator(_is_key), Shown(KEY | {"x-allowed": "a key such as optim.lr"})
]
Name = Annotated[str, AfterValidator(_is_name)]
Number = Annotated[float, Field(ge=-1e20, le=1e20)]
Points = Annotated[int, Field(ge=2, le=10_000)]  # of one range; a grid has its own limit
Triple = Field(json_schema_extra={"x-allowed": "[first, last, how many]: three numbers"})


class LogRange(Block):
    """Values with equal ratios, e.g. {log: [0.003, 3.0, 7]}."""

    log: Annotated[tuple[Positive, Positive, Points], Triple]


class LinearRange(Block):
    """Values with equal differences, e.g. {linear: [1, 9, 5]}."""

    linear: Annotated[tuple[Number, Number, Points], Triple]


ValueList = Annotated[tuple[Any, ...], Field(min_length=1), AfterValidator(_plain)]
Values = Annotated[
    Annotated[ValueList, Tag("list")]
    | Annotated[LogRange, Tag("log")]
    | Annotated[LinearRange, Tag("linear")],
    Discriminator(_form),
    Field(json_schema_extra={"x-allowed": "a list, {log: [a, b, n]} or {linear: [a, b, n]}"}),
]
Axes = dict[AxisKey, Values] | None
SeedList = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(distinct)]
Seeds = Annotated[
    Annotated[int, Field(ge=1, le=1_000_000)] | SeedList | None,
    Field(
        json_schema_extra={"x-allowed": "a whole number from 1 to 1,000,000, or a list of seeds"}
    ),
]

Looks = Annotated[tuple[Annotated[int, Field(ge=6, le=1_000_000)], ...], Field(min_length=1)]
AnyBlock = dict[str, Any] | None


class Patch(Block):
    """Blocks that are put on those below, key by key."""

    data: Annotated[AnyBlock, Shown({"type": "object", "x-block": "data"})] = None
    model: Annotated[AnyBlock, Shown({"type": "object", "x-block": "model"})] = None
    norm: Annotated[AnyBlock, Shown({"type": "object", "x-block": "norm"})] = None
    optim: Annotated[AnyBlock, Shown({"type": "object", "x-block": "optim"})] = None
    train: Annotated[AnyBlock, Shown({"type": "object", "x-block": "train"})] = None
    probes: Annotated[AnyBlock, Shown({"type": "object", "x-block": "probes"})] = None
    compute: Annotated[AnyBlock, Shown({"type": "object", "x-block": "compute"})] = None


class SetupPatch(Patch):
    """A named arm of the comparison."""

    axes: Axes = Field(
        None,
        description="values of its own for axes of the experiment",
        json_schema_extra={"x-allowed": "a mapping", "x-write": "axes: {optim.lr: [0.1, 1.0]}"},
    )


ClaimNames = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(distinct)]


class ProfilePatch(Patch):
    """A named variant of the size: its axes and seeds replace those of the file."""

    axes: Axes = None
    seeds: Seeds = None
    claims: ClaimNames | None = Field(
        None,
        description="ids of the claims that are judged; runs that none of them needs are left out",
        json_schema_extra={"x-allowed": "a list of ids of claims"},
    )


class TuneConfig(Block):
    """The axis from which the report picks a value per cell, on validation only."""

    axis: Annotated[str, Shown(KEY | {"x-allowed": "one of the axes"})] = Field(
        description="it names one of the axes"
    )
    by: Literal["val/accuracy", "val/loss"] = Field("val/accuracy", description="what it picks by")
    race: bool = Field(False, description="give up values that are worse, from three seeds on")


Arms = Annotated[tuple[str, ...], Field(min_length=1, max_length=2)]


class ClaimConfig(Block):
    """One claim, judged from paired differences: `better` minus `worse` at the same seed.

    `better: bn@32` names a value of the one axis that is left, `bn@data.batch_size=32` of any.
    `better: [bn@32, bn@2]` against `worse: [gn@32, gn@2]` is a difference of differences. An axis
    that a claim does not fix is tuned (`tune:`) on validation, with equal trials for each setup;
    the verdict is on the values chosen, which are luck where many runs fail.

    A run that diverged is worse than any number, and a target never reached is further than any;
    both are ranked and counted, never averaged. Always inconclusive, with the reason: missing
    runs, a chosen learning rate at the end of its grid where a better one could turn the verdict,
    unequal trials, a failed sanity check (a gap without batch statistics; neither side learned),
    setups that come to the same runs; and, for a probe's reading with a `target`, a run that ends
    below it.
    """

    id: str = Field(description="a short name, e.g. higher-learning-rates")
    says: str = Field(description="the claim in words")
    metric: str = Field(description="what is compared, e.g. test/running/accuracy")
    better: str | Arms = Field(
        description="the setup that the claim favours, e.g. bn, bn@32 or bn@data.batch_size=32; "
        "two: the first minus the second",
        json_schema_extra={"x-allowed": "a setup such as bn or bn@32, or a list of two"},
    )
    worse: str | Arms | None = Field(
        None,
        description="its opponent; null: zero",
        json_schema_extra={"x-allowed": "a setup such as bn or bn@32, a list of two, or null"},
    )
    at: dict[str, Any] = Field(
        default_factory=dict, description="which cells: values of axes, e.g. {data.batch_size: 64}"
    )
    slope_over: str | None = Field(
        None,
        description="an axis: the metric's least-squares slope per doubling of it is compared",
    )
    target: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        None,
        description="the validation accuracy that …_to_target and usable_lr_… are about, and that "
        "every run must reach at the end for a claim about a probe to be judged",
    )
    log: bool = Field(
        False, description="compare log₂ of the metric: ratios; for what is always above 0"
    )
    when: Literal["last", "first", "mean"] = Field(
        "last", description="which readings of a probe count"
    )
    smallest_effect: NonNegative = Field(
        0.0,
        description="in the metric's unit (accuracies: percentage points): less does not matter",
    )
    direction: Literal["up", "down", "two-sided"] = Field(
        "up", description="up: better has more of the metric; down: less; two-sided: they differ"
    )
    literature: str | None = Field(
        None, description="what others found; shown with the verdict, never used by it"
    )


class PublishedConfig(Block):
    """A number that others have published for a setup: shown beside our runs, never used."""

    says: str = Field(description="what was measured, in words")
    metric: str = Field(description="the same of ours, e.g. test/running/accuracy")
    of: str = Field(description="the setup, e.g. bn or bn@32")
    values: Annotated[tuple[Number, ...], Field(min_length=1)] = Field(
        description="each published run, in the metric's unit (accuracies: percent)",
        json_schema_extra={"x-allowed": "a list of numbers"},
    )
    source: str = Field(description="where it is published")


OneSetup = Annotated[
    SetupPatch | None,
    Field(json_schema_extra={"x-allowed": "a mapping", "x-write": "{norm: {kind: …}}"}),
]


class RegisteredConfig(Block):
    """What was decided before the runs, as `bnbench configs check FILE --register` has written it.

    A report says whether the file is as registered, or what has changed since.
    """

    date: str = Field(description="when, in UTC")
    sha256: str = Field(description="of the lines of decided")
    decided: tuple[str, ...] = Field(description="seeds, values, setups and claims, a line each")


class ExperimentFile(Patch):
    """An experiment: what is compared, over which values, with how many seeds."""

    experiment: Name | None = Field(
        None, description="folder under the runs directory; default: the file's name"
    )
    question: str | None = Field(None, description="what the experiment asks; a report's title")
    setup: Name | None = Field(
        None, description="label of a single run; for several arms see setups"
    )
    swept: Annotated[tuple[AxisKey, ...], AfterValidator(distinct)] | None = Field(
        None,
        description="dotted keys that were varied, in a resolved run's own file",
        json_schema_extra={"x-allowed": "a list of keys"},
    )
    seed: Seed = Field(
        0, description="initial weights, split and order of the data; the same in every setup"
    )
    log: Loggers = Field(
        LOGGERS,
        description="where runs are shown while they train, with TensorBoard's names of curves; "
        "no part of what a run is. wandb, mlflow and trackio are extras: pip install "
        "'bnbench[wandb]'. []: metrics.jsonl alone",
        json_schema_extra={"x-allowed": "a list of tensorboard, wandb, mlflow and trackio"},
    )
    profile: str | None = Field(
        None, description="which of the profiles is in force; default: the first"
    )
    profiles: dict[str, ProfilePatch | None] | None = Field(
        None, description="named variants of the size: seeds, axes and blocks instead of the file's"
    )
    setups: Annotated[dict[Name, OneSetup], AfterValidator(_own_folders)] | None = Field(
        None, description="named arms; each is a patch on the base configuration"
    )
    axes: Axes = Field(
        None, description="dotted keys with the values that are crossed with every setup"
    )
    seeds: Seeds = Field(None, description="how many seeds, from 0; or a list of seeds")
    looks: Looks | None = Field(
        None,
        description="numbers of seeds at which claims are judged, up to all; more seeds are added "
        "for undecided ones alone; `bnbench sweep --until decided` sets them",
    )
    tune: TuneConfig | None = Field(
        None,
        description="the axis from which the report picks a value per cell; race: true gives up "
        "values that are worse on validation, from three seeds on",
        json_schema_extra={"x-allowed": "{axis: …, by: …, race: …} or null"},
    )
    claims: tuple[ClaimConfig, ...] | None = Field(
        None, description="what is judged from the runs by `bnbench report`"
    )
    published: tuple[PublishedConfig, ...] | None = Field(
        None, description="numbers of others, shown beside ours by `bnbench report`"
    )
    registered: RegisteredConfig | None = Field(
        None, description="what was decided before the runs; written by configs check --register"
    )
    set: dict[Annotated[str, AfterValidator(_is_settable)], Any] | None = Field(
        None, description="dotted keys whose values win over base, setups and axes"
    )


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of an experiment's file, for editors."""
    run, whole = RunConfig.model_json_schema(), ExperimentFile.model_json_schema()
    kinds, around = run.pop("$defs"), whole.pop("$defs")
    for kind in kinds.values():
        kind.pop("required", None)  # a patch gives what it likes
    blocks = {}
    for name in BLOCKS:
        part = run["properties"][name]
        anyone = part.get("oneOf") or [{"$ref": part["$ref"]}]
        blocks[f"block-{name}"] = {"anyOf": [*anyone, {"type": "null"}]}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    empty = {"title": "bnbench experiment", "type": ["object", "null"]}
    cleaned: dict[str, Any] = _clean(whole)
    return head | cleaned | empty | {"$defs": blocks | _clean(kinds | around)}


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
