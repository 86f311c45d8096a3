"""What decides the numbers of a run, as one hash; ids, labels and table rows made from it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from bnbench.config import schema
from bnbench.config.custom import content_hash, custom_target, targets, weights, weights_hash
from bnbench.config.datasets import facts, files_hash
from bnbench.wording import SLUG_LENGTH, flat, in_words, slug

# Raise it when the same configuration begins to mean other numbers.
IDENTITY_VERSION = 1

# A block or a key.
NOT_IDENTITY = {
    *("experiment", "setup", "swept", "probes", "log", "data.root", "data.download"),
    *("train.evaluations", "train.evaluation_images", "train.log_every", "train.checkpoint_every"),
    *("compute.device", "compute.threads"),
}
# Keys of `train` that decide when a run is measured, as its probes do, and not what is trained.
RECORDED = ("evaluations", "evaluation_images", "log_every")
# Keys that came later: at their default a run is the one that it was before.
LATER = {
    *("norm.normalize", "norm.mean_range", "norm.std_range"),
    *("norm.mean_jitter", "norm.std_jitter"),
    *("data.inputs", "model.kernel", "model.halving", "model.features", "model.hidden"),
    "model.norm_inputs",
    "data.files",
}
SHORT_NAMES = {
    "data.batch_size": "bs",
    "norm.batch_size": "nbs",
    "optim.lr": "lr",
    "norm.momentum": "mom",
}
# Zero padding sorts folders by value. It is fixed, so that no id depends on the other values of
# a grid.
DIGITS = {"data.batch_size": 3, "norm.batch_size": 3}


def identity(config: schema.RunConfig) -> str:
    """The sha256, in hex, of everything that decides the numbers and of nothing else.

    Raises DataError for an image folder or a custom file that is not there: its content is part of
    the identity.
    """
    return _digest(_facts(config))


def cell_key(config: schema.RunConfig) -> str:
    """What replicates share, whatever they are called: the hash of the identity without the seed.

    Raises DataError, as `identity` does.
    """
    return _digest(_facts(config) | {"seed": 0})[:8]


def _digest(facts: dict[str, Any]) -> str:
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _facts(config: schema.RunConfig) -> dict[str, Any]:
    blocks: dict[str, Any] = {"version": IDENTITY_VERSION}
    for name in schema.RunConfig.model_fields:
        value = getattr(config, name)
        if name in NOT_IDENTITY:
            continue
        if not isinstance(value, BaseModel):
            blocks[name] = value
            continue
        # What is not set is left out, so that a new optional key changes no identity.
        blocks[name] = {
            key: _even(part)
            for key, part in value.model_dump(exclude_none=True).items()
            if f"{name}.{key}" not in NOT_IDENTITY
            and not (f"{name}.{key}" in LATER and part == type(value).model_fields[key].default)
        }
    for key in _without_effect(config):
        block, _, name = key.partition(".")
        del blocks[block][name]
    if isinstance(config.data, schema.ImageFolderData):
        blocks["data"]["content"] = facts(config.data).fingerprint
    for key, (path, class_name) in targets(config).items():
        blocks[key.partition(".")[0]] |= {"target": class_name, "content": content_hash(path)}
    for path in weights(config):
        blocks["model"]["pretrained"] = weights_hash(path)
    if isinstance(config.data, schema.CustomData) and config.data.files:
        blocks["data"]["files"] = files_hash(config.data.files)
    return blocks


def _without_effect(config: schema.RunConfig) -> Iterator[str]:
    """Keys that the run has, and that decide nothing, given its other keys."""
    optim = config.optim
    if optim.schedule != "step":
        yield from ("optim.milestones", "optim.decay")
    if optim.lr_rule == "none":
        yield "optim.base_batch_size"
    if optim.weight_decay == 0:
        yield "optim.decay_norm_and_bias"
    if isinstance(config.norm, schema.NoisyNormConfig) and not config.norm.normalize:
        yield from ("norm.momentum", "norm.eps", "norm.affine")
    if weights(config):
        yield "model.init"
    if isinstance(config.model, schema.ResNetModel):
        without = isinstance(config.norm, schema.NoNorm | schema.ScaledWSConfig)
        yield "model.zero_init_last_norm" if without else "model.fixup"


def _even(value: Any) -> Any:
    """The same number in the same form: −0.0 is 0.0."""
    if isinstance(value, float):
        return value + 0.0
    if isinstance(value, tuple | list):
        return [_even(item) for item in value]
    if isinstance(value, dict):
        return {key: _even(item) for key, item in value.items()}
    return value


ANY = object()  # what a run does not have


def value_at(config: schema.RunConfig, key: str, missing: Any = None) -> Any:
    """The value at a dotted key; `missing` where the run's kinds do not have it."""
    value: Any = config
    for part in key.split("."):
        inside = isinstance(value, dict)
        value = value.get(part, missing) if inside else getattr(value, part, missing)
    return value


def same_value(one: Any, other: Any) -> bool:
    """Whether two values of an axis are meant to be the same: 0.0316 is 0.0316228."""
    numbers = all(isinstance(each, int | float) for each in (one, other))
    if numbers and not isinstance(one, bool) and not isinstance(other, bool):
        return math.isclose(one, other, rel_tol=2e-3)
    return bool(one == other)


def fits(config: schema.RunConfig, point: Mapping[str, Any]) -> bool:
    """Whether a run has these values by dotted key; a key that its kinds do not have fits all."""
    found = ((value_at(config, key, ANY), value) for key, value in point.items())
    return all(given is ANY or same_value(given, value) for given, value in found)


def point(config: schema.RunConfig) -> dict[str, Any]:
    """The values of what the experiment varies, by dotted key; None where one has no meaning."""
    return {key: value_at(config, key) for key in config.swept}


def run_id(config: schema.RunConfig) -> str:
    """The run's folder, e.g. `bn-before_bs064_lr0.1_s00_1f3a9c2e`; at most 64 characters.

    Where the axes are many, the middle is cut; the hash keeps ids apart.
    """
    parts = [slug(config.setup, 32) or "run"]
    parts += [folder_part(key, value) for key, value in point(config).items() if value is not None]
    tail = f"_s{config.seed:02d}_{identity(config)[:8]}"
    return "_".join(parts)[: SLUG_LENGTH - len(tail)].rstrip("._-") + tail


def decisive(config: schema.RunConfig) -> dict[str, Any]:
    """Everything that decides the numbers, by dotted key. Raises DataError, as `identity` does."""
    return dict(flat(_facts(config), "."))


def differences(kept: schema.RunConfig, given: schema.RunConfig) -> list[str]:
    """What decides the numbers and is not the same in both, a line each."""
    return _unequal(decisive(kept), decisive(given))


def recorded_differences(kept: schema.RunConfig, given: schema.RunConfig) -> list[str]:
    """What decides which readings there are, and when, and is not the same in both: as above."""
    there, wanted = (
        {f"train.{key}": getattr(config.train, key) for key in RECORDED}
        | {
            f"probes.{name}": probe if isinstance(probe, bool) else json.dumps(probe)
            for name, probe in config.probes.model_dump(mode="json").items()
        }
        for config in (kept, given)
    )
    return _unequal(there, wanted)


def _unequal(there: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    return [
        f"{key}: {in_words(there.get(key))} in the folder, {in_words(wanted.get(key))} given"
        for key in sorted(there.keys() | wanted.keys())
        if there.get(key) != wanted.get(key)
    ]


# --- names ---------------------------------------------------------------------------------


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


# --- rows of tables ------------------------------------------------------------------------


def hparams(config: schema.RunConfig) -> dict[str, bool | int | float | str]:
    """What decides the numbers, but for the seed, by dotted key, and the setup's name.

    Keys that are not set are left out. Lists become text.
    """
    found: dict[str, bool | int | float | str] = {"setup": config.setup}
    for key, value in flat(config.model_dump(exclude_none=True, exclude={"seed"}), "."):
        if key in NOT_IDENTITY or key.partition(".")[0] in NOT_IDENTITY:
            continue
        if key in ("data.target", "model.target", "norm.target"):
            path, name = custom_target(value)
            value = f"{path.name}:{name}"
        plain = isinstance(value, bool | int | float | str)
        found[key] = value if plain else in_words(value)
    return found


def in_force(config: schema.RunConfig) -> dict[str, bool | int | float | str]:
    """Those of `hparams` that have an effect in this run, without the setup's name."""
    idle = {"setup", *_without_effect(config)}
    return {key: value for key, value in hparams(config).items() if key not in idle}


def cell(config: schema.RunConfig) -> str:
    """The run's id without its seed: `cell_key` with a name for people."""
    return f"{run_id(config).rsplit('_', 2)[0]}_{cell_key(config)}"
