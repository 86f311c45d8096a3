"""Configurations as a paper writes them: kinds, keys and values of a setup or a block in words.

A key that several values were trained with is said with all of them: `0.01 or 0.1`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain
from typing import TypeAlias

from bnbench.config import schema
from bnbench.wording import RAISED, in_words, listing

Row: TypeAlias = Mapping[str, bool | int | float | str]
"""What decides the numbers of a configuration, by dotted key."""

NAMES = {"lr": "learning rate", "lr_rule": "learning rate rule", "init": "initialization"}
SAID = {
    "norm.placement": "{} the activation",
    "norm.eps": "ε = {}",
    "model.activation": "{} activation",
    "model.features": "head on {} features",
    "model.init": "{} initialization",
    "optim.eps": "ε = {}",
    "optim.schedule": "{} schedule",
    "optim.warmup": "warm-up over {} of the steps",
}
"""Keys whose values are words of a phrase."""
SPELT = {
    **{"relu": "ReLU", "leaky-relu": "leaky ReLU", "gelu": "GELU", "silu": "SiLU", "selu": "SELU"},
    **{"he": "He", "xavier": "Xavier", "lecun": "LeCun", "small-gaussian": "small Gaussian"},
    **{"sgd": "SGD", "adamw": "AdamW", "timm": "a network of timm", "resnet": "a ResNet"},
    **{"plain": "a plain convolutional network", "mlp": "a multilayer perceptron"},
    **{"torchvision": "a network of torchvision", "ghost": "ghost batch"},
    **{"rms": "RMS", "frn": "filter response", "evonorm-s0": "EvoNorm-S0"},
}
"""Kinds, activations and initializations as papers write them."""


def setup(rows: Sequence[Row], apart: Collection[str]) -> str:
    """The normalization of a setup, and what else sets it apart from other setups."""
    kinds = _kind("norm", rows)
    if any(row["norm.kind"] != "custom" for row in rows):
        kinds = f"{kinds} normalization".replace("none", "no")
    unsaid = "norm.kind", "norm.target"
    keys = _listed(rows, lambda key: key.startswith("norm.") and key not in unsaid)
    said = ", ".join(filter(None, (kinds, keys)))
    return "; ".join(filter(None, (said, _listed(rows, apart.__contains__, str))))


def block(name: str, rows: Sequence[Row]) -> str:
    """A block's kind and keys, last those that ask for nothing: `without dropout`."""
    every = dict.fromkeys(chain(*rows))
    keys = [key for key in every if key.startswith(f"{name}.") and key != f"{name}.target"]
    off = [key for key in keys if _is_off(key, rows)]
    said = [_listed(rows, lambda key: key in keys and key not in off)]
    if unused := [called(key) for key in off if not key.endswith(".kind")]:
        said.append(f"without {listing(unused)}")
    said = list(filter(None, said))
    return _kind(name, rows) + f" ({'; '.join(said)})" * bool(said)


def _is_off(key: str, rows: Sequence[Row]) -> bool:
    """Whether a key says its kind, or is everywhere a default that turns something off."""
    block, _, name = key.partition(".")
    kinds = schema.BLOCKS[block].models
    fields = [kinds[str(row[f"{block}.kind"])].model_fields for row in rows if key in row]
    defaults = [each[name].default if name in each else None for each in fields]
    values = [row[key] for row in rows if key in row]
    return name == "kind" or (defaults == values and set(values) <= {0, "none"})  # False is 0


def called(key: str) -> str:
    """A key by its last part, in words."""
    end = key.rpartition(".")[2]
    return NAMES.get(end, end.replace("_", " "))


def _kind(block: str, rows: Sequence[Row]) -> str:
    """`batch`; of custom code the name of its class."""
    return listing(
        dict.fromkeys(
            str(row[f"{block}.target"]).rpartition(":")[2]
            if row[f"{block}.kind"] == "custom"
            else _spelt(f"{block}.kind", row[f"{block}.kind"])
            for row in rows
        )
    )


def _spelt(key: str, value: float | str) -> str:
    """A value as a paper writes it: `5 %`, `10⁻⁵`, `ReLU`."""
    if key == "optim.warmup":
        return f"{100 * float(value):g} %"
    said = in_words(value)
    if key.endswith(".eps") and "e-" in said:
        lead, _, power = said.partition("e-")
        return f"{lead}·".removeprefix("1·") + "10" + f"-{power.lstrip('0')}".translate(RAISED)
    return SPELT.get(said, said) if key.endswith((".kind", ".activation", ".init")) else said


def _listed(
    rows: Sequence[Row], wanted: Callable[[str], bool], named: Callable[[str], str] = called
) -> str:
    """`widths 8-16-32, no bias`: the keys with all of their values."""
    parts = []
    for key in dict.fromkeys(key for row in rows for key in row if wanted(key)):
        values = list(dict.fromkeys(row[key] for row in rows if key in row))
        if len(values) == 1 and isinstance(values[0], bool):
            parts.append(named(key) if values[0] else f"no {named(key)}")
        elif any(map(in_words, values)):  # not of an empty list alone
            said = listing(_spelt(key, value) for value in values)
            parts.append(SAID[key].format(said) if key in SAID else f"{named(key)} {said}")
    return ", ".join(parts)
