"""`bnbench status`: what there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bnbench.cli.options import Debug, Json, RunsDir
from bnbench.cli.screen import output, show


def status(
    experiment: Annotated[str | None, typer.Argument(help="Default: all experiments.")] = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List every run and its state."""
    from bnbench.report.status import as_record, experiments_table, runs_text
    from bnbench.store import experiments, find_experiment

    if experiment is not None:
        found = find_experiment(runs_dir, experiment)
        if as_json:
            print(json.dumps(as_record(found), indent=2))
        else:
            print(runs_text(found, columns=output.width))
        return
    there = experiments(runs_dir)
    if as_json:
        print(json.dumps([as_record(each) for each in there], indent=2))
    elif there:
        output.print(experiments_table(there))
    else:
        show(f"no experiments in {runs_dir} yet: bnbench train default trains a first run")
