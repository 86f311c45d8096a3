"""The blocks of a configuration and the kinds that some of them come in."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args

from bnbench.config.schema.base import Block
from bnbench.config.schema.data import DataConfig
from bnbench.config.schema.model import ModelConfig
from bnbench.config.schema.norm import NormConfig
from bnbench.config.schema.optim import OptimConfig
from bnbench.config.schema.probes import ProbesConfig
from bnbench.config.schema.run import ComputeConfig, TrainConfig

Key: TypeAlias = tuple[str, ...]
"""A dotted key, split: `("optim", "lr")`."""


@dataclass(frozen=True)
class Family:
    """One top-level block: its models by kind, or a single model under the kind None."""

    name: str
    tag: str | None  # the key that chooses among the kinds
    models: dict[str | None, type[Block]]
    default: str | None = None

    def kind(self, values: Mapping[str, Any]) -> str | None:
        """The kind that values choose, known or not; the default if they do not choose."""
        if self.tag is None or self.tag not in values:
            return self.default
        kind = values[self.tag]
        return kind if isinstance(kind, str) else "?"

    def fits(self, kind: str | None, key: str) -> bool:
        """Whether a kind may be given a key. An unknown kind may have any.

        A key that no kind has is a misspelling: it fits, and is reported later.
        """
        known = kind not in self.models or key in self.models[kind].model_fields
        return known or not self.kinds_with(key)

    def kinds_with(self, key: str) -> list[str]:
        """The kinds that have a key."""
        return [kind for kind, model in self.models.items() if kind and key in model.model_fields]

    @property
    def kinds(self) -> list[str]:
        """Every kind, in the order of the schema."""
        return [kind for kind in self.models if kind is not None]

    @functools.cached_property
    def keys(self) -> list[str]:
        """The keys of all kinds, each once."""
        return list(
            dict.fromkeys(key for each in self.models.values() for key in each.model_fields)
        )


def _union(name: str, tag: str, alias: Any) -> Family:
    members = get_args(get_args(alias)[0]) or (get_args(alias)[0],)
    models: dict[str | None, type[Block]] = {}
    default: str | None = None
    for member in members:
        field = member.model_fields[tag]
        models |= dict.fromkeys(get_args(field.annotation), member)
        if not field.is_required():
            default = field.default
    return Family(name, tag, models, default)


BLOCKS: dict[str, Family] = {
    "data": _union("data", "dataset", DataConfig),
    "model": _union("model", "kind", ModelConfig),
    "norm": _union("norm", "kind", NormConfig),
    "optim": _union("optim", "kind", OptimConfig),
    "train": Family("train", None, {None: TrainConfig}),
    "probes": Family("probes", None, {None: ProbesConfig}),
    "compute": Family("compute", None, {None: ComputeConfig}),
}


def known(key: Key) -> bool:
    """Whether some kind of the block has the key; what is deeper is the block's affair."""
    return len(key) >= 2 and key[0] in BLOCKS and key[1] in BLOCKS[key[0]].keys


def every_key() -> list[str]:
    """Each `block.key` of the schema."""
    return [f"{block.name}.{key}" for block in BLOCKS.values() for key in block.keys]
