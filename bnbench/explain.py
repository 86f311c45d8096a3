"""What a name means: kinds, keys, probes, metrics, findings, functions, how claims are judged.

Every text comes from where the thing is defined: docstrings and descriptions of the schema; the
docstrings of layers, networks and probes, read as text so that nothing imports torch;
`config/metrics.py`; `diagnosis/findings.md`; `stats/verdict.py`.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from bnbench import catalogue
from bnbench.config import hints, metrics, schema, sentences
from bnbench.errors import UsageError
from bnbench.wording import cut, did_you_mean, listing, nearest, shortened

PACKAGE = Path(__file__).parent
PROBE_READING = "probe / <probe> [/ <layers>] / <reading>"
TOPICS = {"norms": "norm", "models": "model", "datasets": "data", "optimizers": "optim"}
TOPICS |= {"probe": "probes", "metric": "metrics", "finding": "findings", "claim": "claims"}
# Words of the field that are part of a metric's name.
IN_METRICS = {
    "test/population/accuracy": ("population", "population statistics", "precise bn"),
    "test/running/accuracy": ("running", "running statistics", "eval", "eval mode", "inference"),
    "test/batch/accuracy": ("batch statistics", "train mode", "training mode"),
    "val/gap/accuracy": ("gap",),
}
NO_VALUES = ("null", "text")
"""Words among what a key takes that say nothing of it."""
PYTHON = ("assemble.swapping.swap", "watching.watch.Watch", "diagnosis.diagnose.diagnose",
          "notebook.sweep", "notebook.open")  # fmt: skip
"""What `bnbench.swap` and the like are, by file."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a block, dotted as `--set` takes it, and the kinds that have it like this."""

    name: str
    kinds: tuple[str, ...]
    allowed: str
    required: bool
    default: Any
    description: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What one name of a topic means; the fields are those of `--json`.

    `text`: its own docstring; `details`: docstrings of its layers, network or file, with formula
    and source. `keys`: of its block; those without a description only choose the kind. `parts`: of
    a finding, what the catalogue says.
    """

    topic: str
    name: str
    text: str
    details: tuple[str, ...] = ()
    keys: tuple[Key, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The first paragraph, on one line."""
        return " ".join(self.text.split("\n\n")[0].split())


@functools.cache
def entries() -> tuple[Entry, ...]:
    """Everything that has a name of its own, topic by topic."""
    of_metrics = map(_metric, get_args(metrics.Metric))
    return (*_blocks(), *_probes(), *of_metrics, *_findings(), _claims(), *map(_function, PYTHON))


def topics() -> list[str]:
    return list(dict.fromkeys(entry.topic for entry in entries()))


def topic(word: str) -> str | None:
    """The topic that a word names; None for all else."""
    meant = _meant(word)
    return meant if meant in topics() else None


def find(word: str) -> Sequence[Entry | Key]:
    """What a topic, a name, a metric or a key means. Raises UsageError with the nearest name."""
    meant = _meant(word)
    found = [
        each
        for each in entries()
        if meant in (each.topic, each.name, each.name.removeprefix("bnbench."))
    ]
    if found:
        return found
    keys = _keys_called(meant)
    if "." not in word or not keys:
        also = [key for name in hints.keys_called(word) for key in _keys_called(name)]
        keys = also + [key for key in keys if key not in also]
    if keys:
        return keys
    plain = re.sub("[-_ ]+", " ", word.lower())
    metric = next((metric for metric, words in IN_METRICS.items() if plain in words), word)
    if "/" in metric or metric in metrics.METRICS:
        try:
            return [_metric(type(metrics.parse_metric(metric)))]
        except ValueError as error:
            raise UsageError(f"{word} is not a metric", do=str(error)) from None
    if keys := _keys_called(word, in_values=True):
        return keys
    every = [key.name for each in entries() for key in each.keys]
    names = [*topics(), *TOPICS, *(each.name for each in entries())]
    close = nearest(word, [*names, *every, *(key.rpartition(".")[2] for key in every)])
    close = close or hints.called(nearest(word, " ".join(hints.ALSO_CALLED.values()).split()) or "")
    there = re.compile(rf"\b{re.escape(word)}\b", re.IGNORECASE)
    speak = [each.name for each in entries() if there.search(repr(each))]
    spoken_of = f"`bnbench explain NAME` speaks of it: {cut(speak)}" if speak else None
    hint = hints.meant(word, guess=spoken_of or did_you_mean(close))
    raise UsageError(
        f"nothing is called {shortened(word)}", do=hint or "`bnbench explain` lists the topics"
    )


def taken_for(word: str) -> str | None:
    """The key or kind that is also called so; None of what is a name itself."""
    names = {entry.name.removeprefix("bnbench.") for entry in entries()} | {*topics()}
    if word in names | TOPICS.keys() or _keys_called(word):
        return None
    kind, keys = hints.value_meant(word), hints.keys_called(word)
    return kind[1] if kind else keys[0] if len(keys) == 1 else None


def _meant(word: str) -> str:
    """The topic, key or kind that is also called so; else the word itself."""
    key = taken_for(word) or word
    return TOPICS.get(key, key).removesuffix(".kind").removesuffix(".dataset")


def _keys_called(word: str, *, in_values: bool = False) -> list[Key]:
    """Keys of that name, dotted or not, or with such a value; kinds that have the same one are
    named together."""
    found: dict[str, Key] = {}
    for key in (key for entry in entries() for key in entry.keys):
        values = re.split(", | or | and ", key.allowed.removeprefix("a list of "))
        names = values if in_values else (key.name, key.name.rpartition(".")[2])
        if word in names and word not in NO_VALUES:
            same = repr(replace(key, kinds=()))
            kinds = found[same].kinds if same in found else ()
            found[same] = replace(key, kinds=kinds + key.kinds)
    return list(found.values())


# --- topics ---------------------------------------------------------------------------------


def _blocks() -> Iterator[Entry]:
    for block, family in schema.BLOCKS.items():
        for kind, model in family.models.items():
            if model is not schema.ProbesConfig:
                text = _docstring(model)
                keys = _keys(model, f"{block}.", kind)
                yield Entry(block, kind or block, text, _details(text), keys)
    whole = schema.ExperimentFile
    yield Entry("experiment", "experiment", _docstring(whole), (), _keys(whole))


def _probes() -> Iterator[Entry]:
    for name, info in schema.ProbesConfig.model_fields.items():
        (model,) = [each for each in get_args(info.annotation) if issubclass(each, BaseModel)]
        keys = _keys(model, f"probes.{name}.", name)
        yield Entry("probes", name, _docstring(model), (_definition(f"probes.{name}"),), keys)


def _metric(kind: type) -> Entry:
    """A kind of metric; its name shows what may stand at each place."""
    names = [name for name, metric in metrics.METRICS.items() if type(metric) is kind]
    places = zip(*(name.split("/") for name in names), strict=True)
    name = " / ".join("|".join(dict.fromkeys(place)) for place in places) or PROBE_READING
    units: dict[str, dict[str, None]] = {}
    for each in names:
        units.setdefault(metrics.unit(metrics.METRICS[each]), {})[each.split("/")[-1]] = None
    unit = "; ".join(f"{unit} for {listing(names, 'and')}" for unit, names in units.items())
    text = " ".join(_docstring(kind).split())
    return Entry("metrics", name, f"{text} Unit: {unit or 'its own'}.")


def _findings() -> Iterator[Entry]:
    for name, known in catalogue.FINDINGS.items():
        yield Entry("findings", name, known.seen, parts=asdict(known))


def _claims() -> Entry:
    model, modules = schema.ClaimConfig, ("stats.verdict", "stats.looks", "stats.racing")
    details = tuple(map(_definition, modules))
    return Entry("claims", "claims", _docstring(model), details, _keys(model, "claims."))


def _function(place: str) -> Entry:
    name = place.rpartition(".")[2].lower()
    return Entry("python", f"bnbench.{name}", _definition(place))


# --- where texts come from --------------------------------------------------------------------


def _keys(model: type[BaseModel], prefix: str = "", kind: str | None = None) -> tuple[Key, ...]:
    return tuple(
        Key(
            name=f"{prefix}{field}",
            kinds=(kind,) if kind else (),
            allowed=sentences.allowed(model, (field,)),
            required=info.is_required(),
            default=None if info.is_required() else info.get_default(call_default_factory=True),
            description=info.description,
        )
        for field, info in model.model_fields.items()
        if info.description
    )


def _docstring(kind: type) -> str:
    return inspect.getdoc(kind) or ""


def _details(text: str) -> tuple[str, ...]:
    """The docstrings that a text refers to, as in `norms.group.GroupNorm`."""
    return tuple(filter(None, map(_definition, re.findall(r"`(\w+(?:\.\w+)+)`", text))))


def _definition(name: str) -> str:
    """The docstring of a module, or of what stands in one, without importing it; "" for neither."""
    first, *inside = name.split(".")
    path = PACKAGE / f"{first}.py"
    if not path.is_file():
        path = PACKAGE / first / f"{inside.pop(0)}.py"
    if not path.is_file():
        return ""
    tree: Any = ast.parse(path.read_text(encoding="utf-8"))
    for part in inside:
        tree = next((node for node in tree.body if getattr(node, "name", None) == part), None)
    return (tree and ast.get_docstring(tree)) or ""
