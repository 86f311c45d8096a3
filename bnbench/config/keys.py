"""Which keys there are: read from the schema, so that a new key or kind needs no second entry."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any, get_args

from bnbench.config import schema
from bnbench.config.faults import listing, nearest
from bnbench.config.nodes import Key, Mapping, Scalar


@dataclass(frozen=True)
class BlockKeys:
    """One top-level block: its models by kind, or a single model under the kind None."""

    name: str
    tag: str | None  # the key that chooses among the kinds
    models: dict[str | None, type[schema.Block]]
    default: str | None

    def kind(self, mapping: Mapping) -> str | None:
        """The kind that a mapping chooses, known or not; the default where it is silent."""
        entry = mapping.entries.get(self.tag) if self.tag else None
        if entry is None:
            return self.default
        node = entry.node
        return node.value if isinstance(node, Scalar) and isinstance(node.value, str) else "?"

    def has(self, kind: str | None, key: str) -> bool:
        """Whether a kind has a key; an unknown kind may have any."""
        return kind not in self.models or key in self.models[kind].model_fields

    def kinds_with(self, key: str) -> list[str]:
        """The kinds that have a key."""
        return [kind for kind, model in self.models.items() if kind and key in model.model_fields]

    @property
    def kinds(self) -> list[str]:
        """Every kind, in the order of the schema."""
        return [kind for kind in self.models if kind is not None]

    @functools.cached_property
    def all_keys(self) -> list[str]:
        """The keys of all kinds, each once."""
        return list(
            dict.fromkeys(key for model in self.models.values() for key in model.model_fields)
        )


def _union(name: str, tag: str, alias: Any) -> BlockKeys:
    members = get_args(get_args(alias)[0]) or (get_args(alias)[0],)
    models: dict[str | None, type[schema.Block]] = {}
    default: str | None = None
    for member in members:
        field = member.model_fields[tag]
        models |= dict.fromkeys(get_args(field.annotation), member)
        if not field.is_required():
            default = field.default
    return BlockKeys(name, tag, models, default)


BLOCKS: dict[str, BlockKeys] = {
    "data": _union("data", "dataset", schema.DataConfig),
    "model": _union("model", "kind", schema.ModelConfig),
    "norm": _union("norm", "kind", schema.NormConfig),
    "optim": _union("optim", "kind", schema.OptimConfig),
    "train": BlockKeys("train", None, {None: schema.TrainConfig}, None),
    "probes": BlockKeys("probes", None, {None: schema.ProbesConfig}, None),
    "compute": BlockKeys("compute", None, {None: schema.ComputeConfig}, None),
}
OWN_KEYS = ("experiment", "question", "profile", "seed", "seeds", "tune")  # `--set` may name these
SETUP_KEYS = (*BLOCKS, "axes")
PROFILE_KEYS = (*BLOCKS, "axes", "seeds")
TOP_KEYS = (
    *("experiment", "question", "setup", "swept", *BLOCKS, "seed"),
    *("profile", "profiles", "setups", "axes", "seeds", "tune", "claims", "set"),
)

# What other programs call it, or what it is called for short.
ALSO_CALLED = {
    "learning_rate": "optim.lr",
    "base_lr": "optim.lr",
    "optimizer": "optim.kind",
    "wd": "optim.weight_decay",
    "warmup_steps": "optim.warmup",
    "scheduler": "optim.schedule",
    "bs": "data.batch_size",
    "batch": "data.batch_size",
    "batchsize": "data.batch_size",
    "val_size": "data.validation_size",
    "shuffle": "data.order",
    "augmentation": "data.augment",
    "channels": "model.widths",
    "layers": "model.widths",
    "network": "model.kind",
    "architecture": "model.kind",
    "normalization": "norm.kind",
    "num_groups": "norm.groups",
    "virtual_batch_size": "norm.batch_size",
    "epoch": "train.epochs",
    "num_epochs": "train.epochs",
    "max_epochs": "train.epochs",
    "max_steps": "train.steps",
    "iterations": "train.steps",
    "gpu": "compute.device",
    "num_workers": "compute.threads",
    "workers": "compute.threads",
    "dtype": "compute.precision",
    "name": "experiment",
    "arms": "setups",
    "grid": "axes",
    "sweep": "axes",
}

# What a kind is called elsewhere, without -, _, a final 1d or 2d and a final "norm".
KINDS_ALSO_CALLED = {
    "norm": {
        "bn": "batch",
        "gbn": "ghost",
        "ghostbatch": "ghost",
        "brn": "batch-renorm",
        "re": "batch-renorm",
        "gn": "group",
        "ln": "layer",
        "in": "instance",
        "filterresponse": "frn",
        "evo": "evonorm-s0",
        "evos0": "evonorm-s0",
        "ws": "group-ws",
        "gnws": "group-ws",
        "weightstandardization": "group-ws",
        "nf": "scaled-ws",
        "sws": "scaled-ws",
        "frozenbatch": "frozen",
        "noisybatch": "noisy",
    },
    "model": {"cnn": "plain", "conv": "plain", "vgg": "plain"},
    "optim": {"adam": "adamw"},
}


def known(key: Key) -> bool:
    """Whether some kind of the block has the key; what lies deeper is the block's affair."""
    return len(key) >= 2 and key[0] in BLOCKS and key[1] in BLOCKS[key[0]].all_keys


def every_key() -> list[str]:
    """Each `block.key` of the schema."""
    return [f"{block.name}.{key}" for block in BLOCKS.values() for key in block.all_keys]


def nearest_kind(block: BlockKeys, word: str) -> str | None:
    """The kind that a word which is none probably means."""

    def bare(text: str) -> str:
        return re.sub("(norm)?([12]d)?$", "", re.sub("[-_ ]", "", text.lower()))

    names = {bare(kind): kind for kind in block.kinds} | KINDS_ALSO_CALLED.get(block.name, {})
    return names.get(bare(word)) or nearest(word, block.kinds, 0.6)


def no_key(block: BlockKeys, kind: str | None, key: str) -> tuple[str, str | None]:
    """Message and hint for a key that a block's kind does not have."""
    where = f'{block.tag} "{kind}"' if block.tag else block.name
    message = f"{block.name}.{key} is not a key of {where}"
    if "." in key:
        head, _, tail = key.partition(".")
        return message, f"only --set, --over and axes take dotted keys: write {head}: {{{tail}: …}}"
    others = block.kinds_with(key)
    if others:
        return message, f"{key} is a key of {block.tag} {listing(others)}"
    own = block.models[kind].model_fields if kind in block.models else block.all_keys
    close = nearest(key, own)
    if close:
        return message, f"did you mean {block.name}.{close}?"
    return message, elsewhere(key, nearest(key, block.all_keys), block.name)


def elsewhere(key: str, close: str | None = None, block: str | None = None) -> str | None:
    """A hint for a key that stands in the wrong block or has another name here."""
    lowered = key.lower().replace("-", "_")
    if lowered in ALSO_CALLED:
        return f"did you mean {ALSO_CALLED[lowered]}?"
    if close and block:
        return f"did you mean {block}.{close}, a key of {listing(BLOCKS[block].kinds_with(close))}?"
    for other in BLOCKS.values():
        if lowered in other.all_keys and lowered != other.tag:
            return f"did you mean {other.name}.{lowered}?"
    if lowered in TOP_KEYS:
        return f"did you mean {lowered}, at the top of the file?"
    return None


def no_top_key(key: str, allowed: tuple[str, ...] | list[str], what: str) -> tuple[str, str | None]:
    """Message and hint for a top-level key that is not there."""
    message = f"{key} is not a key of {what}"
    if "." in key:
        head, _, tail = key.partition(".")
        return message, f"only --set, --over and axes take dotted keys: write {head}: {{{tail}: …}}"
    close = nearest(key, allowed, 0.75)
    if close:
        return message, f"did you mean {close}?"
    return message, elsewhere(key) or f"allowed: {listing(allowed, 'and')}"


def no_dotted_key(key: Key) -> tuple[str, str | None]:
    """Message and hint for a dotted key (of an axis, `--set` or `--over`) that is not there."""
    dotted = ".".join(key)
    message = f"{dotted} is not a key"
    if len(key) == 1 and key[0] in BLOCKS:
        keys = listing(f"{key[0]}.{each}" for each in BLOCKS[key[0]].all_keys or ["…"])
        return f"{dotted} is a block, not a key", f"name one key of it: {keys}"
    close = nearest(dotted, every_key(), 0.75)
    if close:
        return message, f"did you mean {close}?"
    return message, elsewhere(key[-1]) or (
        None if key[0] in BLOCKS else f"blocks: {listing(BLOCKS, 'and')}"
    )
