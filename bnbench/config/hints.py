"""Names that there are not, and which ones were probably meant."""

from __future__ import annotations

import re
from typing import Any

from bnbench.config import schema
from bnbench.config.schema import BLOCKS, Family, Key
from bnbench.wording import did_you_mean, listing, nearest, shortened

# What other programs call a key, or what it is called for short.
ALSO_CALLED = {
    "optim.lr": "learning_rate base_lr",
    "optim.kind": "optimizer",
    "optim.weight_decay": "wd",
    "optim.warmup": "warmup_steps",
    "optim.schedule": "scheduler",
    "data.batch_size": "bs batch batchsize",
    "data.validation_size": "val_size",
    "data.order": "shuffle",
    "data.augment": "augmentation",
    "model.widths": "channels layers",
    "model.kind": "network architecture",
    "norm.kind": "normalization",
    "norm.groups": "num_groups",
    "norm.batch_size": "virtual_batch_size",
    "train.epochs": "epoch num_epochs max_epochs",
    "train.steps": "max_steps iterations",
    "compute.device": "gpu",
    "compute.threads": "num_workers workers",
    "compute.precision": "dtype",
    "experiment": "name",
    "setups": "arms",
    "axes": "grid sweep",
}
# What a kind is called elsewhere, without -, _, a final 1d or 2d and a final "norm".
KINDS_ALSO_CALLED = {
    "norm": {
        "none": "off no false null nothing identity",
        "batch": "bn",
        "ghost": "gbn ghostbatch",
        "batch-renorm": "brn re",
        "group": "gn",
        "layer": "ln",
        "instance": "in",
        "frn": "filterresponse",
        "evonorm-s0": "evo evos0",
        "group-ws": "ws gnws weightstandardization",
        "scaled-ws": "nf sws",
        "frozen": "frozenbatch",
        "noisy": "noisybatch",
    },
    "model": {"plain": "cnn conv vgg"},
    "optim": {"adamw": "adam"},
}


def plain(key: str) -> str:
    return key.lower().replace("-", "_")


def called(word: str, names: dict[str, str] = ALSO_CALLED) -> str | None:
    """The name whose other names include a word."""
    return next((name for name, words in names.items() if word in words.split()), None)


def nearest_kind(family: Family, word: str) -> str | None:
    """The kind that a word which is none probably means."""

    def bare(text: str) -> str:
        return re.sub("(norm)?([12]d)?$", "", re.sub("[-_ ]", "", text.lower()))

    names = {bare(kind): kind for kind in family.kinds}
    also = called(bare(word), KINDS_ALSO_CALLED.get(family.name, {}))
    return names.get(bare(word)) or also or nearest(word, family.kinds, 0.6)


def elsewhere(key: str) -> str | None:
    """A hint for a key that belongs in another block or has another name here."""
    name = called(plain(key))
    for other in BLOCKS.values():
        if name is None and plain(key) in other.keys and plain(key) != other.tag:
            name = f"{other.name}.{plain(key)}"
    if not name and plain(key) in schema.ExperimentFile.model_fields:
        return f"did you mean {plain(key)}, at the top of the file?"
    return did_you_mean(name)


def no_dotted_key(key: Key, axis: Any = None) -> tuple[str, str | None]:
    """Message and hint for a dotted key that is not there; `axis`: its values as an axis."""
    dotted, block = ".".join(key), BLOCKS.get(key[0])
    if dotted in ("seed", "seeds"):
        return f"{dotted} is not an axis", "seeds: lists the seeds"
    if block and len(key) == 1 and isinstance(axis, dict):
        write = f"axes take dotted keys: write {dotted}.{next(iter(axis), '…')}: …"
        return f"{dotted} is a block, not a key", write
    if block and len(key) == 1:
        keys = listing(f"{dotted}.{each}" for each in block.keys)
        return f"{dotted} is a block, not a key", f"name one key of it: {keys}"
    hint = did_you_mean(nearest(dotted, schema.every_key(), 0.75)) or elsewhere(key[-1])
    if not hint and not block:
        hint = f"blocks: {listing(BLOCKS, 'and')}"
    return f"{shortened(dotted)} is not a key", hint
