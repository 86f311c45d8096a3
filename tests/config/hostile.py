"""Configurations that someone writes to do harm: huge, nested, odd characters, unlike any schema.

Many a second, from Python's own random numbers; `fuzzing` draws fewer, and shrinks what it finds.
"""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from bnbench.config import loading
from tests.config.fuzzing import DOTTED, KINDS, ODD_NAMES, WORDS, Case, sound

LONGEST = 20_000
"""Characters of the longest text; items of the longest list are a tenth of that."""

CHARACTERS = (
    "\x00\x07\x1b\x85\xa0\xad\u0301\u200b\u202e\u2028\ufeff\ufffd😀\U000e0001{}[]&*!|>%@`'\"\\"
)
NUMBERS = (0, -1, 1, 2**31, 2**63 - 1, -(2**63), 2**64, 10**400, 1e-323, 1.8e308, 0.1 + 0.2, -0.0)
RAW = (
    *("!!python/object/apply:os.system [ls]", "!!binary aGk=", "<<: *a", "&a [*a]", "? {a: b}"),
    *(
        "1e999",
        ".inf",
        ".nan",
        "0x7f",
        "0o17",
        "1_000",
        "2026-11-27",
        "12:30:45",
        "~",
        "yes",
        "=",
        "|\n",
    ),
    *(
        "{a: 1, a: 2}",
        "[1, 2",
        "}",
        "'",
        '"\\x1b[2J"',
        '"\\ud800"',
        "\t- a",
        "--- a\n--- b",
        "%TAG ! a",
    ),
)


def _text(draw: random.Random) -> str:
    match draw.randrange(5):
        case 0:
            return draw.choice([*KINDS, *DOTTED, *ODD_NAMES])
        case 1:
            return draw.choice("aΩ😀\x1b ") * draw.choice([1, 64, 300, LONGEST])
        case 2:
            return "".join(draw.choice(CHARACTERS) for _ in range(draw.randrange(1, 9)))
        case 3:
            return "../" * draw.randrange(1, 40) + draw.choice(["etc/passwd", "dev/zero", "x.py:A"])
        case _:
            return "".join(
                chr(draw.choice([draw.randrange(128), draw.randrange(0xD800)])) for _ in range(9)
            )


def _value(draw: random.Random, depth: int = 0) -> Any:
    match draw.randrange(9 if depth < 3 else 5):
        case 0 | 1:
            return draw.choice(NUMBERS)
        case 2 | 3:
            return _text(draw)
        case 4:
            return draw.choice([None, True, False, [], {}])
        case 5:
            return [_value(draw, depth + 1) for _ in range(draw.randrange(4))]
        case 6:
            return [draw.choice(NUMBERS)] * draw.choice([10, 100, LONGEST // 10])
        case 7:
            return {_text(draw): _value(draw, depth + 1) for _ in range(draw.randrange(4))}
        case _:
            nested: Any = draw.choice(NUMBERS)
            for _ in range(draw.choice([5, 30, 200, 900])):
                nested = [nested] if draw.random() < 0.5 else {"a": nested}
            return nested


def _harm(draw: random.Random, tree: dict[Any, Any]) -> None:
    """Change one place of it."""
    part: dict[Any, Any] = tree
    while part and draw.random() < 0.6:
        inner = part[draw.choice(list(part))]
        if not isinstance(inner, dict) or not inner:
            break
        part = inner
    key = draw.choice(list(part)) if part else "x"
    match draw.randrange(4):
        case 0:
            part[draw.choice([_text(draw), draw.choice(DOTTED)])] = _value(draw)
        case 1:
            part[_text(draw)] = part.pop(key, None)
        case 2:
            part[key] = {key: part.get(key)}
        case _:
            part[key] = _value(draw)


def hostile(draw: random.Random) -> Case:
    """A file and a command line."""
    tree: dict[Any, Any] = copy.deepcopy(draw.choice([sound()[0], draw.choice(sound()), {}]))
    for _ in range(draw.randrange(1, 4)):
        _harm(draw, tree)
    text = json.dumps(tree, ensure_ascii=draw.random() < 0.2)
    if draw.random() < 0.3:  # something that JSON cannot say
        at = draw.randrange(len(text) + 1)
        end = at + draw.choice([0, 0, 1, 20])
        text = text[:at] + draw.choice([*RAW, *WORDS]) + text[end:]
    data = text.encode("utf-8", "surrogatepass")
    if draw.random() < 0.1:
        at = draw.randrange(len(data) + 1)
        data = data[:at] + draw.randbytes(draw.randrange(4)) + data[at + draw.randrange(3) :]
    return Case(data, _overrides(draw))


def _overrides(draw: random.Random) -> loading.Overrides:
    if draw.random() < 0.8:
        return loading.Overrides()

    def argument() -> str:
        value = draw.choice([json.dumps(_value(draw), ensure_ascii=False), *RAW])
        return f"{draw.choice([draw.choice(DOTTED), _text(draw)])}={value}"

    arguments = [tuple(argument() for _ in range(draw.randrange(2))) for _ in range(2)]
    seeds = draw.choice([None, 1, 3, 0, -1, 10**9])
    return loading.Overrides(arguments[0], arguments[1], seeds, draw.choice([None, 0, 2**70]))
