"""What a run is compared by: its values as a flat table row, and the cell that its seeds share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bnbench.config import schema
from bnbench.config.custom import custom_target
from bnbench.config.identity import NOT_IDENTITY, identity, run_id
from bnbench.config.labels import in_words


def hparams(config: schema.RunConfig) -> dict[str, bool | int | float | str]:
    """What decides the numbers, but for the seed, by dotted key, and the setup's name.

    Keys that are not set are left out. Lists become text.
    """
    found: dict[str, bool | int | float | str] = {}
    for name in schema.RunConfig.model_fields:
        block = getattr(config, name)
        if name not in NOT_IDENTITY and isinstance(block, BaseModel):
            found |= _leaves(block.model_dump(exclude_none=True), f"{name}.")
    deciding = {key: value for key, value in found.items() if key not in NOT_IDENTITY}
    return {"setup": config.setup} | deciding


def _leaves(block: dict[str, Any], prefix: str) -> dict[str, bool | int | float | str]:
    found: dict[str, bool | int | float | str] = {}
    for key, value in block.items():
        match value:
            case dict():
                found |= _leaves(value, f"{prefix}{key}.")
            case str() if key == "target":
                path, name = custom_target(value)
                found[f"{prefix}{key}"] = f"{Path(path).name}:{name}"
            case bool() | int() | float() | str():
                found[f"{prefix}{key}"] = value
            case _:
                found[f"{prefix}{key}"] = in_words(value)
    return found


def cell(config: schema.RunConfig) -> str:
    """The run's id without its seed: the same in all replicates, and only in them."""
    named = run_id(config).rsplit("_", 2)[0]
    return f"{named}_{identity(config.model_copy(update={'seed': 0}))[:8]}"


def probes(config: schema.RunConfig) -> list[str]:
    """The names of the probes that the run asks for, sorted."""
    return sorted(config.probes.chosen())
