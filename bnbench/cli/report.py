"""`bnbench report`: what came out of an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bnbench.cli.options import Debug, Json, RunsDir
from bnbench.cli.screen import output


def report(
    experiment: Annotated[str, typer.Argument(help="Its name below --runs-dir, or its folder.")],
    runs_dir: RunsDir = Path("runs"),
    as_json: Json = False,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    debug: Debug = False,
) -> None:
    """Show tables and verdicts; write report.html, report.json and report.csv."""
    from bnbench.report.reading import read_study
    from bnbench.report.record import as_json as in_json
    from bnbench.report.terminal import terminal
    from bnbench.report.writing import PAGE, make, write
    from bnbench.store import find_experiment

    study = read_study(find_experiment(runs_dir, experiment))
    made = make(study)
    write(study, made)
    if as_json:
        print(in_json(made.record), end="")
    else:
        for part in terminal(made.record):
            output.print(part)
    if open_:
        typer.launch(str((study.folder.path / PAGE).resolve()))
