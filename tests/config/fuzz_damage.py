"""What is done to a sound configuration: values that no key wants, keys and text in disorder."""

from __future__ import annotations

import random

from bnbench.config.keys import ALSO_CALLED, BLOCKS, TOP_KEYS, every_key
from tests.config.fuzz_trees import Pairs, Raw, Tree, mappings

ODD_TEXT = (
    *("", " ", "off", "yes", "NULL", "~", "1e-3"),
    *("0x10", "1_000", "007", "1:30", "12s", "é", "e\u0301"),
    *("\u202eabc", "שלום", "🙂", "\u0000", "\x85", "\u2028", "\ufeff", "\ud800"),
    *("\x1b[31m", "a\nb"),
    *("../..", "/", "C:\\x", "~nobody/x", "own.py"),
    *("own.py:", "own.py:Other", "none.py:Own", "a" * 300),
    *("bad.py:Own", "images", "nowhere", "a" * 5000, "%s", "{0}"),
    *("<b>", "$(id)", "'", '"', "é" * 70),
    *("group", "batch", "adamw", "cifar10", "after", "0s", "1s", "999999999s", "cuda:1", "x" * 64),
)  # fmt: skip
TEXT_KEYS = ("data.root", "model.target", "norm.target", "model.name", "compute.device")
ODD_NUMBERS = (
    *("0", "-0", "-0.0", "1", "2", "3", "-1"),
    *("1e308", "1e309", "-1e308", "5e-324", "1e-400", "1e-3"),
    *("9223372036854775807", "9223372036854775808", "1" + "0" * 30, "1" * 5000, "1e5000", "0.1e1"),
    *(".5", "5.", "+3", "1.0", "64.0", "10000", "10001", "1000000000", "100", "1e6", "0.999999999"),
)  # fmt: skip
ODD_RAW = (
    *(".nan", ".inf", "-.inf", "NaN", "1:30", "0x1F"),
    *("0o17", "1_000", "2026-11-22", "!!int 3", "!!str 3"),
    *("!!python/object:os.system x", "&a 1", "*a", "*none", "&b [*b]", "? x"),
    *("<<", "- 1", "|", ">", "@x"),
    *("`", "%TAG", "{", "}", "[", "]", "[1, 2"),
    *("{a: 1", "'open", '"open', "# gone", "a: b", "\t", "---"),
    *("{<<: {a: 1}}", "{a: 1, a: 2}", "{1: 2}", "{null: 2}"),
    *("{[1]: 2}", '"\\x07"', '"\\ud83d"', "'\x07'"),
)  # fmt: skip


def odd(rng: random.Random, depth: int = 0) -> Tree:
    """A value that hardly any key wants."""
    match rng.randrange(9 if depth < 2 else 4):
        case 0:
            return rng.choice(ODD_TEXT)
        case 1:
            return Raw(rng.choice(ODD_NUMBERS))
        case 2:
            return Raw(rng.choice(ODD_RAW))
        case 3:
            return rng.choice([None, True, False, 0, 1, -1, 2, 1.5, 2**63 - 1])
        case 4:
            return [odd(rng, depth + 1) for _ in range(rng.randrange(4))]
        case 5:
            return Pairs((word(rng), odd(rng, depth + 1)) for _ in range(rng.randrange(3)))
        case 6:
            spread = rng.choice(["log", "linear", "Log", "lin"])
            numbers = [Raw(rng.choice(ODD_NUMBERS)) for _ in range(rng.choice([3, 3, 3, 2, 4]))]
            return Pairs([(spread, numbers)])
        case 7:
            return nested_deeply(rng)
        case _:
            return large(rng)


def nested_deeply(rng: random.Random) -> Raw:
    """A list or a mapping, as deep as a joke."""
    levels = [rng.choice(["[]", "{}"]) for _ in range(rng.choice([3, 35, 39, 40, 60, 400, 20_000]))]
    start = "".join("[" if level == "[]" else "{a: " for level in levels)
    return Raw(start + "1" + "".join(level[1] for level in reversed(levels)))


def large(rng: random.Random) -> Tree:
    """A long list, many keys, or aliases that expand."""
    number = rng.choice([20, 300, 3000, 30_000])
    match rng.randrange(4):
        case 0:
            return list(range(1, number))
        case 1:
            return Pairs((f"k{i}", rng.choice([1, Pairs(), None])) for i in range(number))
        case 2:
            return [0.5] * number
        case _:
            aliases = ", ".join(f"&a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, number // 10))
            return Raw(f"[&a0 [1], {aliases}]")


def word(rng: random.Random) -> str:
    """A key: one that there is, another block's, a foreign one, or none at all."""
    match rng.randrange(5):
        case 0:
            return rng.choice(every_key()).split(".")[1]
        case 1:
            return rng.choice([*every_key(), *TOP_KEYS])
        case 2:
            return rng.choice(sorted(ALSO_CALLED))
        case 3:
            return misspelled(rng, rng.choice(every_key()).split(".")[1])
        case _:
            return rng.choice(
                [*ODD_TEXT, "seed", "seeds", "kind", "axes", "a.b.c", ".", "..", "<<"]
            )


def misspelled(rng: random.Random, text: str) -> str:
    """The word with a letter lost, doubled, swapped or changed."""
    if not text:
        return "x"
    at = rng.randrange(len(text))
    return rng.choice(
        [
            text[:at] + text[at + 1 :],
            text[: at + 1] + text[at:],
            text[:at] + text[at:][:2][::-1] + text[at + 2 :],
            text[:at] + rng.choice("aeiou_-. éA") + text[at + 1 :],
            text.upper(),
            text.replace("_", "-"),
        ]
    )


def damage(rng: random.Random, tree: Pairs) -> None:
    """Delete, rename, misspell, retype, nest, double or add one thing, in place."""
    _, part = rng.choice(mappings(tree))
    if not part:
        part.append((word(rng), odd(rng)))
        return
    at = rng.randrange(len(part))
    key, value = part[at]
    match rng.randrange(11):
        case 0:
            del part[at]
        case 1:
            part[at] = (word(rng), value)
        case 2:
            part[at] = (misspelled(rng, key), value)
        case 3 | 4:
            part[at] = (key, odd(rng))
        case 5:
            part[at] = (key, Pairs([(key, value)]))
        case 6:
            part.append((key, value if rng.random() < 0.5 else odd(rng)))
        case 7:
            part[at] = (key, [value])
        case 8 | 9:
            name = rng.choice([rng.choice(every_key()), rng.choice(TEXT_KEYS)])
            text = rng.choice(ODD_TEXT)
            scalar = rng.choice([text, text + ".py:Own", Raw(rng.choice(ODD_NUMBERS))])
            assign(rng, tree, name, scalar)
        case _:
            part.append((word(rng), odd(rng)))


def assign(rng: random.Random, tree: Pairs, name: str, value: Tree) -> None:
    """Give a key of the top's blocks a value, and the block a kind that has the key."""
    block, _, key = name.partition(".")
    kinds = BLOCKS[block].kinds_with(key)
    inner = Pairs([(str(BLOCKS[block].tag), rng.choice(kinds))] if kinds else [])
    inner = Pairs([*((k, v) for k, v in inner if k != key), (key, value)])
    tree[:] = [*((k, v) for k, v in tree if k != block), (block, inner)]


def mangled(rng: random.Random, text: str) -> str:
    """The text with one piece cut, moved, doubled, indented or replaced."""
    low, high = sorted(rng.randrange(len(text) + 1) for _ in "ab")
    high = min(high, low + rng.choice([1, 2, 10, 1000]))
    lines = text.splitlines(keepends=True) or [""]
    at = rng.randrange(len(lines))
    match rng.randrange(7):
        case 0:
            return text[:low] + text[high:]
        case 1:
            return text[:low] + text[low:high] + text[low:]
        case 2:
            return text[:low] + text[low:high][::-1] + text[high:]
        case 3:
            return text[:low] + rng.choice([*ODD_RAW, *ODD_TEXT, *ODD_NUMBERS]) + text[high:]
        case 4:
            lines[at] = rng.choice([" ", "  ", "\t", "   "]) + lines[at]
        case 5:
            lines[at] = lines[at].lstrip()
        case _:
            other = rng.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
    return "".join(lines)
