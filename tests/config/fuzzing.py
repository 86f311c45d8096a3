"""Any file and any command line: what is drawn, and what must hold of it.

`judge` is what must hold: a valid plan, or a ConfigError whose faults all have a place; never
another exception. `test_fuzz.py` draws some cases, `scripts/torture` as many as asked.
"""

from __future__ import annotations

import copy
import functools
import json
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from hypothesis import strategies as st

from bnbench.config import experiments, files, identity, loading, plans, schema, yaml
from bnbench.config.faults import Faults
from bnbench.errors import BnbenchError, ConfigError

LINE_LENGTH = 400  # of a sentence; a hint lists keys and may have twice as many characters
FOREIGN = re.compile(r"Traceback|pydantic|<class|object at 0x|[A-Z]\w*Error\b|NoneType|\berrno\b")
EVERYTHING = """\
experiment: all
question: b?
data: {dataset: synthetic, batch_size: 8, validation_size: 100, drop_last: false}
model: {kind: plain, widths: [4, 8], dropout: 0.1}
norm: {kind: batch, batch_size: 4, momentum: null}
optim: {schedule: step, milestones: [0.2]}
train: {steps: 9, checkpoint_every: 4}
probes: {landscape: {every: 3, steps: [0.5]}}
setups:
  a: {norm: {kind: none}}
  b: {norm: {kind: group}, axes: {optim.lr: [0.1, 2]}}
  c:
  d: {model: {kind: resnet, depth: 8}, norm: {kind: ghost, batch_size: 2}}
  e: {norm: {kind: frn}, axes: {norm.placement: [before], optim.lr: {linear: [1, 2, 2]}}}
  g: {norm: {kind: custom, target: own.py:Own, options: {a: {b: [1]}}}}
  i: {data: {dataset: custom, target: own.py:Own, options: {a: 1}}}
  h: {data: {dataset: image-folder, root: images, image_size: 8, validation_size: 4, batch_size: 4}}
axes: {optim.lr: {log: [0.1, 1, 3]}, norm.placement: [before, after]}
seeds: 2
tune: {axis: optim.lr, by: val/loss}
profiles: {x: {seeds: [1, 4], train: {epochs: 1}}, y: {claims: [a]}}
claims: [{id: a, says: s, metric: val/running/loss, better: b, worse: c, at: {optim.lr: 0.1}}]
set: {optim.momentum: 0.5}
"""


@functools.cache
def workspace() -> tuple[tempfile.TemporaryDirectory[str], Path, Path]:
    """A folder with what the cases name, and another one; removed when the process ends."""
    kept = tempfile.TemporaryDirectory(prefix="bnbench-fuzz-")
    here, elsewhere = Path(kept.name, "here"), Path(kept.name, "elsewhere")
    elsewhere.mkdir()
    for part in ("train", "test"):
        for image in (
            f"images/{part}/{label}/{i}.png" for label in ("cat", "dog") for i in range(8)
        ):
            (here / image).parent.mkdir(parents=True, exist_ok=True)
            (here / image).write_bytes(b"counted, never read")
    (here / "own.py").write_text("class Own: ...\n")
    (here / "bad.py").write_text("class Own(:\n")
    return kept, here, elsewhere


# --- what is drawn ------------------------------------------------------------------------

WORDS = (
    *("norm", "kind", "batch", "none", "off", "1e999", ".nan", "- ", ": ", "&a ", "*a", "{", "}"),
    *("[", "]", "\n", "\n  ", "\t", "'", '"', "!!int ", "<<", "#", "|", "? ", "---\n", "lr", "0"),
    *("setups", "axes", "seeds", "optim.lr", "log", "\0", "\ud7ff", "\x85", "%", "@", ",", "\x1b"),
)
ODD_NAMES = ["../a", "Ä b", "a\u2028b", " a\nb", "=a", "C:\\x", "1e-3"]
KINDS = sorted({kind for block in schema.BLOCKS.values() for kind in block.kinds})
DOTTED = [*schema.every_key(), *schema.ExperimentFile.model_fields, "norm.options.a", "profile"]
TEXTS = st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=25).map("".join)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 70)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["after", "30s", "cifar100", "resnet18", "own.py:Own", "bad.py:Own", *KINDS])
    | st.sampled_from(
        ["no", "1e-3", "a: b", "a #b", "é\u0301🙂", "a\u2028b", "\u202ea", " a\nb", "γ"]
    )
    | st.text(max_size=6)
)
KEYS = st.sampled_from(sorted({key.split(".")[-1] for key in DOTTED})) | st.text(max_size=6)
VALUES = (
    SCALARS
    | st.lists(SCALARS, max_size=3)
    | st.dictionaries(KEYS, SCALARS, max_size=2)
    | st.fixed_dictionaries({"log": st.lists(SCALARS, max_size=4)})
)
FLOW = VALUES.map(lambda value: json.dumps(value, ensure_ascii=False))
ARGUMENTS = st.lists(
    st.tuples(st.sampled_from(DOTTED) | st.text(max_size=4), FLOW | TEXTS).map("=".join) | TEXTS,
    max_size=2,
).map(tuple)
OVERRIDES = st.just(loading.Overrides()) | st.builds(
    loading.Overrides,
    ARGUMENTS,
    ARGUMENTS,
    st.none() | st.integers(-1, 3) | st.integers(),
    st.none() | st.integers(0, 9),
)


@functools.cache
def sound() -> list[dict[str, Any]]:
    """Files without fault: those that are shipped, and one in which everything occurs."""
    texts = [EVERYTHING, *(path.read_text() for _, path, _ in files.shipped())]
    return [yaml.parse(text, yaml.Source("", ""), Faults()).data or {} for text in texts]


WRITTEN = {
    "target": st.just("own.py:Own"),
    "root": st.just("images"),
    "pretrained": st.none() | st.just("own.py"),
    "name": st.sampled_from(["resnet18", "wide_resnet50_2"]),
    "options": st.dictionaries(st.text(max_size=4), VALUES, max_size=3),
}


def allowed(part: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a JSON Schema allows."""
    if "anyOf" in part:
        return st.one_of([allowed(branch) for branch in part["anyOf"]])
    if "enum" in part or "const" in part:
        return st.sampled_from(part.get("enum", [part.get("const")]))
    low, above = part.get("minimum"), part.get("exclusiveMinimum")
    high, below = part.get("maximum"), part.get("exclusiveMaximum")
    match part.get("type"):
        case "boolean":
            return st.booleans()
        case "integer":
            least = 1 + above if above is not None else low or 0
            return st.integers(least, high or 2**63 - 1) | st.integers(least, least + 8)
        case "number":
            return st.floats(
                above if low is None else low,
                below if high is None else high,
                exclude_min=above is not None,
                exclude_max=below is not None,
                allow_nan=False,
                allow_infinity=False,
            )
        case "array" if "prefixItems" in part:
            return st.tuples(*(allowed(item) for item in part["prefixItems"])).map(list)
        case "array":
            return st.lists(allowed(part["items"]), min_size=1, max_size=3)
        case "string" if "pattern" in part:
            return st.from_regex(part["pattern"], fullmatch=True)
        case "string":
            return st.text(max_size=6)
        case _:
            return st.just({})


@st.composite
def drawn(draw: st.DrawFn) -> dict[str, Any]:
    """Blocks of any kind, with what it requires and some of what it may have."""
    tree: dict[str, Any] = {}
    for name in sorted(
        draw(st.sets(st.sampled_from(sorted(schema.BLOCKS)), min_size=1, max_size=3))
    ):
        block = schema.BLOCKS[name]
        kind = draw(st.sampled_from(list(block.models)))
        described = block.models[kind].model_json_schema()
        chosen = set(described.get("required", ()))
        chosen |= draw(st.sets(st.sampled_from(sorted(described["properties"])), max_size=3))
        tree[name] = {
            key: kind
            if key == block.tag
            else draw(WRITTEN[key] if key in WRITTEN else allowed(part))
            for key, part in described["properties"].items()
            if key in chosen
        }
    return tree


@st.composite
def mutants(draw: st.DrawFn) -> str:
    """A sound file with some keys deleted, renamed, given another value, or added."""
    start = draw(st.just(sound()[0]) | st.sampled_from(sound()) | drawn())
    tree: dict[str, Any] = copy.deepcopy(start)
    for _ in range(draw(st.integers(0, 3))):
        part = tree
        while draw(st.booleans()) and part:
            inner = part[draw(st.sampled_from(sorted(part)))]
            if not isinstance(inner, dict):
                break
            part = inner
        key = draw(st.sampled_from(sorted(part))) if part else "x"
        match draw(st.sampled_from(["delete", "rename", "retype", "nest", "add", "name"])):
            case "delete":
                part.pop(key, None)
            case "rename":
                part[draw(KEYS)] = part.pop(key, None)
            case "retype":
                part[key] = draw(VALUES)
            case "nest":
                part[key] = {key: part.get(key)}
            case "name":
                name, others = draw(st.sampled_from(ODD_NAMES)), tree.get("setups")
                others = others if isinstance(others, dict) else {}
                tree["setups"] = {**others, name: {"optim": {"lr": 0.07}}}
            case _:
                part[draw(KEYS | st.sampled_from(DOTTED))] = draw(VALUES)
    # JSON is YAML, but for characters beyond the basic plane, which it writes as two.
    return json.dumps(tree, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Case:
    """A file and a command line."""

    data: bytes
    overrides: loading.Overrides


def cases() -> st.SearchStrategy[Case]:
    """Mostly damaged files, some text that is hardly YAML, some bytes that are hardly text."""
    texts = (mutants() | mutants() | mutants() | TEXTS).map(
        lambda text: text.encode("utf-8", "surrogatepass")
    )
    return st.builds(Case, texts | texts | texts | st.binary(max_size=40), OVERRIDES)


# --- what must hold -----------------------------------------------------------------------


Check: TypeAlias = Callable[[Sequence[schema.RunConfig]], list[Any]]
"""`assemble.check`, which needs torch."""


def judge(
    case: Case, check: Check = lambda _: [], took: Callable[[float], None] = lambda _: None
) -> str:
    """`valid` or `refused`; AssertionError for anything else.

    `check`: of the plan's runs. `took`: gets the answer's seconds of this process.
    """
    _, here, _ = workspace()
    path = here / "x.yaml"
    path.write_bytes(case.data)
    begun = time.process_time()
    try:
        experiment = loading.load_experiment(path, case.overrides)
        plan = plans.expand(experiment)
        if refused := check(plan.runs):
            raise ConfigError(plan.faults(refused))
    except BnbenchError as error:
        took(time.process_time() - begun)
        require_sentences(error, path, case.data)
        return "refused"
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}") from error
    took(time.process_time() - begun)
    try:
        require_kept(experiment, plan)
    except BnbenchError as error:
        raise AssertionError(f"what was kept is refused: {error}") from error
    return "valid"


def must(condition: bool, otherwise: str) -> None:
    """Raises AssertionError; unlike `assert`, under `python -O` as well."""
    if not condition:
        raise AssertionError(otherwise)


def require_sentences(error: BnbenchError, path: Path, data: bytes) -> None:
    """A refusal names its places, in lines that a person can read."""
    must(isinstance(error, ConfigError), f"{type(error).__name__} instead of ConfigError: {error}")
    assert isinstance(error, ConfigError)
    must(bool(error.faults), "no faults")
    lines = 1 + sum(data.count(mark) for mark in (b"\n", b"\r", b"\xc2\x85", b"\xe2\x80"))
    place = re.compile(re.escape(str(path)) + r"(?::(\d+):(\d+))?|--(set|over|seeds?)( .+)?")
    for fault in error.faults:
        at = place.fullmatch(fault.where)
        must(at is not None, f"no place: {fault}")
        assert at is not None
        if at[1]:
            must(1 <= int(at[1]) <= lines and int(at[2]) >= 1, f"not in the file: {fault}")
        for text, limit in ((fault.message, LINE_LENGTH), (fault.hint or "x", 2 * LINE_LENGTH)):
            must(bool(text.strip()), f"nothing said: {fault!r}")
            must(len(text) <= limit, f"{len(text)} characters: {text}")
            must(text.isprintable(), f"not printable: {text!r}")
        must(not FOREIGN.search(fault.message), f"not our words: {fault}")


def require_kept(experiment: experiments.ExperimentConfig, plan: plans.Plan) -> None:
    """What is accepted keeps its meaning when it is written and read again."""
    must(1 <= len(plan.runs) <= plans.MAX_RUNS, f"{len(plan.runs)} runs")
    for run in plan.runs[:: len(plan.runs) // 3 + 1]:
        name, text = identity.run_id(run), files.dump(run)
        must(re.fullmatch(r"[a-z0-9._-]{1,64}", name) is not None, f"id {name}")
        again = plans.expand(loaded(text)).only()
        must(again == run, f"not read back: {text}")
        must(identity.identity(again) == identity.identity(run), f"another identity: {text}")
    for line in (*plan.notes, *plan.warnings):
        must(len(line) <= LINE_LENGTH and line.isprintable(), f"note {line!r}")
    if len(plan.runs) <= 300:
        kept = plans.expand(loaded(files.dump_experiment(experiment)))
        must(kept.runs == plan.runs, "the experiment's file holds other runs")


def loaded(text: str) -> experiments.ExperimentConfig:
    """The text as a file of another folder, read."""
    _, _, elsewhere = workspace()
    path = elsewhere / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return loading.load_experiment(path)
