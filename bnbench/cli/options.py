"""The options and arguments that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_debug = False


def set_debug(value: bool) -> bool:
    """Show tracebacks from now on, wherever `--debug` is on the command line."""
    global _debug
    _debug = _debug or value
    return value


def debug_asked() -> bool:
    """Whether errors show their traceback."""
    return _debug


Config = Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped experiment.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key; may be repeated."),
]
RunsDir = Annotated[
    Path, typer.Option(envvar="BNBENCH_RUNS_DIR", help="Where experiments are stored.")
]
Device = Annotated[
    str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1 or mps.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress: only results and errors.")]
Restart = Annotated[bool, typer.Option("--restart", help="Throw earlier attempts away.")]
AcceptChanges = Annotated[
    bool,
    typer.Option(
        "--accept-changes",
        help="Continue a run that was started with another torch, CPU or number of threads.",
    ),
]
Debug = Annotated[
    bool, typer.Option("--debug", callback=set_debug, help="Show the traceback of an error.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
