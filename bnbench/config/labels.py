"""Names of folders, and the short names of what an experiment varies."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

from bnbench.config import schema

SLUG_LENGTH = 64
SHORT_NAMES = {
    "data.batch_size": "bs",
    "norm.batch_size": "nbs",
    "optim.lr": "lr",
    "norm.momentum": "mom",
}
# Zero padding sorts folders by value. It is fixed, so that no id depends on the other values of
# a grid.
DIGITS = {"data.batch_size": 3, "norm.batch_size": 3}


def slug(text: str, length: int = SLUG_LENGTH) -> str:
    """The text as a file name of a-z 0-9 . _ -, empty where nothing of it can stay."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    words = re.sub(r"[^a-z0-9._-]+", "-", ascii_text.lower())
    return words.strip("._-")[:length].rstrip("._-")


def in_words(value: Any) -> str:
    """A value as tables and folders show it: numbers short, lists joined by dashes."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.6g}".replace("e+", "e")
        case tuple():
            return "-".join(in_words(item) for item in value)
        case _:
            return str(value)


def folder_part(key: str, value: Any) -> str:
    """One axis value in a run's id, e.g. `bs064`, `lr0.1`, `placement-before`."""
    name = SHORT_NAMES.get(key) or slug(key.rsplit(".", 1)[-1].replace("_", ""))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{name}{value:0{DIGITS.get(key, 1)}d}"
    words = in_words(value)
    return f"{name}{words}" if isinstance(value, float) else f"{name}-{slug(words, 24)}"


def default_setup(norm: schema.NormConfig) -> str:
    """The label of a run that belongs to no named setup: `none`, `frn`, `batch-before`."""
    if isinstance(norm, schema.NoNorm | schema.ScaledWSConfig | schema.InsteadOfActivation):
        return norm.kind  # there is no placement, or only one
    return f"{norm.kind}-{norm.placement}"


def default_experiment(path: str) -> str:
    """An experiment is called as its file is."""
    return slug(Path(path).stem) or "experiment"
