"""`bnbench compare`: runs side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bnbench.cli.options import Debug, Json, RunsDir
from bnbench.cli.screen import output


def compare(
    runs: Annotated[list[str], typer.Argument(help="Folders of runs, ids, or their beginnings.")],
    runs_dir: RunsDir = Path("runs"),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare runs: what differs, and the results."""
    from bnbench.report.compare import compared, side_by_side

    record = compared(runs, runs_dir)
    if as_json:
        print(json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False))
    else:
        for part in side_by_side(record):
            output.print(part)
