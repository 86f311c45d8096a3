"""Commands as they are typed, run in this process."""

from __future__ import annotations

from typing import NamedTuple

from typer.testing import CliRunner

from bnbench import cli


class Said(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


def bnbench(*arguments: str) -> Said:
    """Run a command."""
    result = CliRunner().invoke(cli.app, arguments)
    return Said(result.exit_code, result.stdout, result.stderr)
