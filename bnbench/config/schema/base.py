"""What the blocks share: closed mappings, and the types of their values."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

TARGET = r"(.*[\\/])?[^\\/]+\.py:[A-Za-z_][A-Za-z0-9_]*"


def fault(message: str, hint: str | None = None, at: Any = None) -> PydanticCustomError:
    """What a validator raises: a sentence of ours, about a key or an item of what it validates.

    In the message, {name} and {around} stand for the dotted names, {value} for the value.
    """
    context = {"hint": hint, "at": at}
    return PydanticCustomError("fault", message, context)


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """A validator: lists name nothing twice."""
    for i, value in enumerate(values):
        if value in values[:i]:
            raise fault("{around} lists {value} twice", at=i)
    return values


Text = Annotated[str, Field(min_length=1)]
Target = Annotated[
    str,
    Field(pattern=f"^({TARGET})$", json_schema_extra={"x-allowed": "path/to/file.py:ClassName"}),
]
FunctionTarget = Annotated[
    str,
    Field(pattern=f"^({TARGET})$", json_schema_extra={"x-allowed": "path/to/file.py:function"}),
]
# Every number has a maximum, far above what anybody trains: what is larger is a slip of the hand,
# and would be computed without end. Whether numbers within them fit a machine `assemble` estimates.
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]  # of images, of steps
Size = Annotated[int, Field(ge=1, le=65_536)]  # channels, units, groups, pixels of a side
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Positive = Annotated[float, Field(gt=0.0, le=1e20)]
NonNegative = Annotated[float, Field(ge=0.0, le=1e20)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
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

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # also with options, which are a dict
