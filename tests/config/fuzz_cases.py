"""Configurations drawn from integers: sound ones, damaged ones and garbage.

A case is a function of its seed and of nothing else, so that a seed that failed can be drawn
again. It starts from a shipped experiment, from README's example, or from the schema itself.
"""

from __future__ import annotations

import functools
import math
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bnbench.config import Overrides, shipped
from bnbench.config.keys import BLOCKS, TOP_KEYS, every_key
from tests.config.fuzz_damage import ODD_RAW, ODD_TEXT, damage, mangled, odd, word
from tests.config.fuzz_trees import Pairs, Tree, as_tree, flow, mappings, written

README = Path(__file__).resolve().parents[2] / "configs/README.md"


@dataclass(frozen=True, slots=True)
class Case:
    """A file, a command line and, where the file says what a whole tree says, that tree."""

    data: bytes
    overrides: Overrides
    tree: Pairs | None


# --- where cases start --------------------------------------------------------------------


@functools.cache
def starting_texts() -> tuple[str, ...]:
    """The shipped experiments, README's example, and a file in which everything occurs."""
    (example,) = re.findall(r"```yaml\n(experiment: .*?)```", README.read_text(), re.DOTALL)
    return (*(path.read_text() for _, path, _ in shipped()), example, EVERYTHING)


EVERYTHING = """\
experiment: all
data: {dataset: synthetic, batch_size: 8, validation_size: 100, drop_last: false}
model: {kind: plain, widths: [4, 8], dropout: 0.1}
norm: {kind: batch, batch_size: 4, momentum: null}
optim: {schedule: step, milestones: [0.2]}
train: {steps: 9, checkpoint_every: 4}
setups:
  a: {norm: {kind: none}}
  b: {norm: {kind: group}, axes: {optim.lr: [0.1, 2]}}
  c:
  d: {model: {kind: resnet, depth: 8}, norm: {kind: ghost, batch_size: 2}}
  e: {norm: {kind: frn}, axes: {norm.placement: [before], optim.lr: {linear: [1, 2, 2]}}}
  g: {norm: {kind: custom, target: own.py:Own, options: {a: {b: [1]}}}}
  h: {data: {dataset: image-folder, root: images, image_size: 8, validation_size: 2, batch_size: 4}}
axes: {optim.lr: {log: [0.1, 1, 3]}, norm.placement: [before, after]}
seeds: 2
tune: {axis: optim.lr, by: val/loss}
"""


def drawn_from_schema(rng: random.Random) -> Pairs:
    """Some keys of some blocks, with values that the schema allows."""
    tree = Pairs()
    for name in rng.sample(sorted(BLOCKS), rng.randint(1, 4)):
        block = BLOCKS[name]
        kind = rng.choice(list(block.models))
        entries = Pairs()
        if block.tag and (kind != block.default or rng.random() < 0.5):
            entries.append((block.tag, kind))
        schema = _schema(name, kind)
        required = set(schema.get("required", ()))
        budget = rng.choice(["epochs", "steps", "examples"])
        for key in schema["properties"]:
            if key == block.tag or (key in ("epochs", "steps", "examples") and key != budget):
                continue
            if key in required or rng.random() < 0.25:
                entries.append((key, plausible(rng, name, kind, key)))
        tree.append((name, entries))
    if rng.random() < 0.3:
        keys = rng.sample(every_key(), 2)
        tree.append(("axes", Pairs((key, [allowed(rng, key) for _ in "ab"]) for key in keys)))
    if rng.random() < 0.3:
        tree.append(("seeds", rng.choice([1, 2, 5, [0, 3], 300])))
    return tree


@functools.cache
def _schema(block: str, kind: str | None) -> dict[str, Any]:
    return BLOCKS[block].models[kind].model_json_schema()


def allowed(rng: random.Random, key: str) -> Tree:
    """A value that some kind allows for a dotted key."""
    block, _, name = key.partition(".")
    kinds = [kind for kind in BLOCKS[block].models if BLOCKS[block].has(kind, name)]
    if name == BLOCKS[block].tag:
        return rng.choice(kinds)
    return plausible(rng, block, rng.choice(kinds), name)


def plausible(rng: random.Random, block: str, kind: str | None, key: str) -> Tree:
    """A value that the schema allows for a key."""
    part = _schema(block, kind)["properties"][key]
    if "default" in part and rng.random() < 0.4:
        return part["default"]
    words = {"target": "own.py:Own", "root": "images", "name": "resnet18", "device": "cpu"}
    return words.get(key) or _value(rng, part)


def _value(rng: random.Random, part: dict[str, Any]) -> Tree:
    part = rng.choice(part.get("anyOf", [part]))
    if "const" in part or "enum" in part:
        return rng.choice(part.get("enum", [part.get("const")]))
    low = part.get("minimum", part.get("exclusiveMinimum", 0))
    high = min(part.get("maximum", math.inf), part.get("exclusiveMaximum", math.inf))
    match part.get("type"):
        case "boolean":
            return rng.random() < 0.5
        case "integer":
            least = low + ("exclusiveMinimum" in part)
            return min(max(rng.choice([0, 1, 2, 3, 4, 8, 16, 32, 100]), least), high)
        case "number":
            value = round(low + rng.choice([0.01, 0.05, 0.1, 0.3, 0.5, 0.9]), 6)
            return value if value <= high else (low + high) / 2
        case "array" if "prefixItems" in part:
            return [_value(rng, item) for item in part["prefixItems"]]
        case "array":
            return [_value(rng, part["items"]) for _ in range(rng.randint(1, 3))]
        case "string":
            return rng.choice(["30s", "0.5s", "12s"])
        case "object":
            return rng.choice([Pairs(), Pairs([("a", 1)]), Pairs([("a", Pairs([("b", [1])]))])])
        case _:
            return None


def edit(rng: random.Random, tree: Pairs) -> None:
    """Give one key a value that the schema allows, in place."""
    places = [(path, part) for path, part in mappings(tree) if path.split(".")[-1] in BLOCKS]
    if not places:
        return
    path, part = rng.choice(places)
    name = path.split(".")[-1]
    block, given = BLOCKS[name], dict(part)
    kind = given.get(block.tag, block.default) if block.tag else None
    if kind not in block.models:
        return
    others = [key for key in _schema(name, kind)["properties"] if key != block.tag]
    if not others:
        return
    key = rng.choice(others)
    value = plausible(rng, name, kind, key)
    part[:] = [(k, v) for k, v in part if k != key] + [(key, value)]


SOUND_TEXT = (
    *("no", "off", "null", "true", "1e-3", "0x10", "1:30"),
    *("12", "a: b", "a #b", "- a", "{a}", "[a", "'a'"),
    *('"a"', "a\\b", "C:\\x", "@x", "%x", "!x", "&x"),
    *("*x", "é ü", "e\u0301", "🙂 x", "שלום a", "a" * 90),
    *("a\u2028b", "a\x85b", "\u202ea", "a\tb", " a ", "a\nb"),
    *("=a", "../a", "a/b", "..a", "A_B-C.d"),
)  # fmt: skip


def rename(rng: random.Random, tree: Pairs) -> None:
    """Give a setup, the experiment, its question or an option a text that is odd but allowed."""
    text = rng.choice(SOUND_TEXT)
    match rng.randrange(4):
        case 0:
            tree[:] = [("experiment", text), *((k, v) for k, v in tree if k != "experiment")]
        case 1:
            tree[:] = [("question", text), *((k, v) for k, v in tree if k != "question")]
        case 2:
            inner = Pairs([("norm", Pairs([("kind", "none")]))])
            for key, value in tree:
                if key == "setups" and isinstance(value, Pairs) and text not in dict(value):
                    value.append((text, inner))
                    return
            tree.append(("setups", Pairs([(text, inner)])))
        case _:
            options = Pairs([("a", text), (text, [text, 1e-7])])
            norm = Pairs([("kind", "custom"), ("target", "own.py:Own"), ("options", options)])
            tree[:] = [*((k, v) for k, v in tree if k != "norm"), ("norm", norm)]


# --- a case -------------------------------------------------------------------------------


def drawn(seed: int) -> Case:
    """The case of a seed."""
    rng = random.Random(seed)
    overrides = drawn_overrides(rng)
    sort, texts = rng.random(), starting_texts()
    if sort < 0.03:
        return Case(rng.randbytes(rng.randrange(60)), overrides, None)
    if sort < 0.06:
        soup = [*ODD_RAW, *ODD_TEXT, "\n", "\n  ", ": ", ", ", *TOP_KEYS, *every_key()]
        text = "".join(rng.choice(soup) for _ in range(rng.randrange(25)))
        return Case(encoded(rng, text), overrides, None)
    if sort < 0.22:
        text = rng.choice(texts)
        if rng.random() < 0.2:
            other = rng.choice(texts)
            text = text[: rng.randrange(len(text))] + other[rng.randrange(len(other)) :]
        for _ in range(rng.randint(1, 4)):
            text = mangled(rng, text)
        return Case(encoded(rng, text), overrides, None)
    if rng.random() < 0.3:
        tree = drawn_from_schema(rng)
    else:
        tree = as_tree(yaml.compose(rng.choice(texts), Loader=yaml.SafeLoader))
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        edit(rng, tree)
    if rng.random() < 0.3:
        rename(rng, tree)
    sound = sort < 0.66
    if not sound:
        for _ in range(rng.choice([1, 1, 2, 3])):
            damage(rng, tree)
    text = written(rng, tree)
    data = encoded(rng, text)
    # An encoding that lost characters says something else.
    same = data.decode("utf-8-sig", "replace").replace("\r\n", "\n") == text
    return Case(data, overrides, tree if sound and same else None)


def encoded(rng: random.Random, text: str) -> bytes:
    """Mostly UTF-8, as editors write it; sometimes as other editors do."""
    match rng.randrange(30):
        case 0:
            return b"\xef\xbb\xbf" + text.encode("utf-8", "surrogatepass")
        case 1:
            return text.replace("\n", "\r\n").encode("utf-8", "surrogatepass")
        case 2 if rng.random() < 0.5:
            return text.encode("utf-16", "surrogatepass")
        case 2:
            return text.encode("latin-1", "replace")
        case _:
            return text.encode("utf-8", "surrogatepass")


def drawn_overrides(rng: random.Random) -> Overrides:
    """A command line; mostly an empty one."""
    if rng.random() < 0.7:
        return Overrides()
    if rng.random() < 0.5:
        several = rng.random() < 0.5
        argument = (_sound_argument(rng, several=several),)
        return (
            Overrides((), argument) if several else Overrides(argument, (), rng.choice([None, 2]))
        )
    sets = tuple(_argument(rng) for _ in range(rng.choice([0, 1, 1, 2])))
    overs = tuple(_argument(rng, several=True) for _ in range(rng.choice([0, 0, 1, 2])))
    counts = [None, None, None, 1, 2, 3, 0, -1, 10**4, 10**20]
    seeds, seed = rng.choice(counts), rng.choice([None, None, None, None, 0, 7, -1, 2**63])
    return Overrides(sets, overs, seeds, seed)


def _sound_argument(rng: random.Random, *, several: bool) -> str:
    key = rng.choice(every_key())
    return f"{key}={','.join(flow(allowed(rng, key)) for _ in range(1 + several))}"


def _argument(rng: random.Random, *, several: bool = False) -> str:
    if rng.random() < 0.5:
        return _sound_argument(rng, several=several)
    if rng.random() < 0.2:
        return rng.choice(
            [*ODD_TEXT, "=", "a=", "=b", "norm", "norm=none", "seeds=3", "train={steps: 4}"]
        )
    return f"{word(rng)}={rng.choice([flow(odd(rng)), rng.choice(ODD_RAW)])}"
