"""What the blocks share: closed mappings, and the types of their values."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

TARGET = r"(.*[\\/])?[^\\/]+\.py:[A-Za-z_][A-Za-z0-9_]*"


def _is_target(text: str) -> str:
    if not re.fullmatch(TARGET, text):
        raise ValueError("not a class in a file")
    return text


Target = Annotated[
    str,
    AfterValidator(_is_target),
    Field(json_schema_extra={"pattern": f"^({TARGET})$", "x-allowed": "path/to/file.py:ClassName"}),
]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
HalfOpen = Annotated[float, Field(ge=0.0, lt=1.0)]


class Block(BaseModel):
    """A mapping whose keys are closed, whose types are meant, whose numbers are finite."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        defer_build=True,  # a validator is built when it is first needed: importing stays quick
    )
