"""What has led to a call: the user's line, and functions of torch that call the user's."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import TypeAlias

from torch.nn.modules import module
from torch.optim import optimizer

from bnbench.guard import is_users

Place: TypeAlias = tuple[str, int]
"""File and line."""


def users_line() -> Place | None:
    """The line of the user's that led here; where a network is called, that which calls it. None
    where there is none."""
    found = None
    for frame in _frames():
        file = frame.f_code.co_filename
        if file == module.__file__:
            found = None
        elif found is None and is_users(file):
            found = file, frame.f_lineno
    return found


def warn(text: str, place: Place | None = None) -> None:
    """A warning at a line of the user's: that which led here, unless it is given."""
    place = place or users_line()
    if place is None:
        warnings.warn(text, stacklevel=2)
    else:
        warnings.warn_explicit(text, UserWarning, *place)


def in_function() -> bool:
    """Whether an autograd function is being applied, for which torch switches gradients off: a
    checkpoint or a reversible block, which passes the batch again."""
    codes = (frame.f_code for frame in _frames())
    return any(code.co_name == "forward" and "ctx" in code.co_varnames[:1] for code in codes)


def in_optimizer() -> bool:
    """Whether an optimizer is making a step, which calls a closure of the user's."""
    return any(frame.f_code.co_filename == optimizer.__file__ for frame in _frames())


def _frames() -> Iterator[FrameType]:
    """Innermost first. Their variables are left alone: Python would keep what it shows."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
