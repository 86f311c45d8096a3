"""Whatever the file says: a plan, or a list of faults; never another exception."""

from __future__ import annotations

import copy
import importlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnbench.config import Overrides, expand, load_experiment, run_id
from bnbench.config.keys import BLOCKS, TOP_KEYS, every_key
from bnbench.errors import BnbenchError
from tests.config.fuzz_cases import drawn
from tests.config.fuzzing import outcome as outcome_of

WORDS = ["norm", "kind", "batch", "none", "off", "1e999", ".nan", "- ", ": ", "&a ", "*a", "{", "}"]
WORDS += [
    "[",
    "]",
    "\n",
    "\n  ",
    "\t",
    "'",
    '"',
    "!!int ",
    "<<",
    "#",
    "|",
    "? ",
    "---\n",
    "lr",
    "0",
]
WORDS += ["setups", "axes", "seeds", "optim.lr", "log", "\0", "\ud7ff", "\x85", "%", "@", ","]
TEXTS = st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=25).map("".join)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 70)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["after", "synthetic", "30s", "cifar100", "resnet18", "own.py:Own", "a.py:B"])
    | st.sampled_from([*BLOCKS["norm"].kinds, *BLOCKS["model"].kinds])
    | st.text(max_size=6)
)
KEYS = st.sampled_from(sorted({key.split(".")[1] for key in every_key()})) | st.text(max_size=6)
VALUES = (
    SCALARS
    | st.lists(SCALARS, max_size=3)
    | st.dictionaries(KEYS, SCALARS, max_size=2)
    | st.fixed_dictionaries({"log": st.lists(SCALARS, max_size=4)})
)
SOUND: dict[str, Any] = {
    "experiment": "a",
    "question": "b?",
    "data": {"dataset": "synthetic", "batch_size": 8, "validation_size": 100, "drop_last": False},
    "model": {"kind": "plain", "widths": [4, 8], "dropout": 0.1},
    "norm": {"kind": "batch", "batch_size": 4, "momentum": None},
    "optim": {"kind": "sgd", "schedule": "step", "milestones": [0.2]},
    "train": {"steps": 9},
    "compute": {"device": "cpu"},
    "setups": {
        "a": {"norm": {"kind": "none"}},
        "b": {"norm": {"kind": "group"}, "axes": {"optim.lr": [0.1, 2]}},
        "c": None,
        "d": {"model": {"kind": "resnet", "depth": 8}, "norm": {"kind": "ghost", "batch_size": 2}},
        "e": {
            "norm": {"kind": "frn"},
            "axes": {"norm.placement": ["before"], "optim.lr": {"linear": [1, 2, 2]}},
        },
        "f": {"norm": {"kind": "batch-renorm", "correct_from": 0.1, "momentum": 0.1}},
        "g": {"norm": {"kind": "custom", "target": "own.py:Own", "options": {"a": {"b": [1]}}}},
        "h": {
            "model": {"kind": "torchvision", "name": "resnet18"},
            "norm": {"kind": "frozen", "freeze_after": 0.2},
            "axes": {"norm.placement": ["before"]},
        },
    },
    "axes": {"optim.lr": {"log": [0.1, 1, 3]}, "norm.placement": ["before", "after"]},
    "seeds": 2,
    "tune": {"axis": "optim.lr", "by": "val/loss"},
}


@st.composite
def mutants(draw: st.DrawFn) -> dict[str, Any]:
    """A sound file with one to three keys deleted, renamed, given another value, or added."""
    tree: dict[str, Any] = copy.deepcopy(SOUND)
    for _ in range(draw(st.integers(1, 3))):
        part = tree
        while draw(st.booleans()) and part:
            inner = part[draw(st.sampled_from(sorted(part)))]
            if not isinstance(inner, dict):
                break
            part = inner
        key = draw(st.sampled_from(sorted(part))) if part else "x"
        match draw(st.sampled_from(["delete", "rename", "retype", "nest", "add"])):
            case "delete":
                part.pop(key, None)
            case "rename":
                part[draw(KEYS)] = part.pop(key, None)
            case "retype":
                part[key] = draw(VALUES)
            case "nest":
                part[key] = {key: part.get(key)}
            case _:
                part[draw(KEYS | st.sampled_from([*TOP_KEYS, *every_key()]))] = draw(VALUES)
    return tree


ARGUMENTS = st.lists(
    st.tuples(st.sampled_from([*every_key(), *TOP_KEYS]) | st.text(max_size=4), TEXTS).map("=".join)
    | TEXTS,
    max_size=2,
).map(tuple)


def outcome(path: Path, data: bytes, overrides: Overrides) -> None:
    path.write_bytes(data)
    (path.parent / "own.py").write_text("class Own: ...")
    try:
        plan = expand(load_experiment(path, overrides), max_runs=500)
    except BnbenchError:
        return
    for run in plan.runs[:3]:
        assert len(run_id(run)) <= 64


@settings(max_examples=150, deadline=None)
@given(text=TEXTS, sets=ARGUMENTS, over=ARGUMENTS, seeds=st.none() | st.integers())
def test_raw_text(
    tmp_path_factory: Any, text: str, sets: Any, over: Any, seeds: int | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "raw.yaml"
    outcome(path, text.encode("utf-8", "surrogatepass"), Overrides(sets, over, seeds))


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=40))
def test_bytes(tmp_path_factory: Any, data: bytes) -> None:
    outcome(tmp_path_factory.getbasetemp() / "bytes.yaml", data, Overrides())


def test_the_sound_file_is_sound(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(json.dumps(SOUND))
    (tmp_path / "own.py").write_text("class Own: ...")
    runs = {"a": 3 * 1, "b": 2 * 2, "c": 3 * 2, "d": 3 * 2, "e": 2 * 1, "f": 3 * 2, "g": 3 * 2}
    runs["h"] = 3 * 1
    plan = expand(load_experiment(tmp_path / "x.yaml"))
    assert Counter(run.setup for run in plan.runs if run.seed == 0) == runs
    assert len(plan.runs) == 2 * sum(runs.values())


@settings(max_examples=200, deadline=None)
@given(tree=mutants(), sets=ARGUMENTS)
def test_structures(tmp_path_factory: Any, tree: dict[str, Any], sets: Any) -> None:
    # JSON is YAML, but for characters beyond the basic plane, which it writes as two.
    text = json.dumps(tree, ensure_ascii=False)
    path = tmp_path_factory.getbasetemp() / "tree.yaml"
    outcome(path, text.encode("utf-8", "surrogatepass"), Overrides(sets))


# --- drawn from seeds; `scripts/torture fuzz` draws as many as asked ----------------------


def outcomes(seeds: range) -> Counter[str]:
    """How many are valid and how many are refused."""
    return Counter(outcome_of(seed) for seed in seeds)


def test_a_seed_is_a_case() -> None:
    assert drawn(7) == drawn(7)
    assert len({drawn(seed).data for seed in range(100)}) > 90


def test_drawn_configurations_are_valid_or_refused() -> None:
    counts = outcomes(range(250))
    assert min(counts["valid"], counts["refused"]) > 50


@pytest.mark.slow
def test_many_drawn_configurations_are_valid_or_refused() -> None:
    counts = outcomes(range(1_000, 3_000))
    assert counts.total() == 2_000
    assert min(counts["valid"], counts["refused"]) > 500


@pytest.mark.parametrize(
    ("module", "name", "bug"),
    [
        ("dump", "_text", lambda value: value),  # text that is read back as something else
        ("identity", "slug", lambda text, *_: text),  # folders that are called anything
        ("load", "nearest", lambda *_: [][0]),  # an exception that is not ours
        ("faults", "printable", lambda text: text),  # a terminal's escapes
        pytest.param("grid", "_seeds", lambda _: 1, marks=pytest.mark.slow),  # grids without a cap
    ],
)
def test_negative_control_a_planted_bug_is_found(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str, bug: Any
) -> None:
    monkeypatch.setattr(importlib.import_module(f"bnbench.config.{module}"), name, bug)
    with pytest.raises(AssertionError, match=r"^seed \d+: "):
        outcomes(range(600))
