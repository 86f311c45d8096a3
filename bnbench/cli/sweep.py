"""`bnbench sweep`: every run of an experiment."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from bnbench.cli.options import AcceptChanges, Debug, Device, Json, Quiet, Restart, RunsDir, Set
from bnbench.cli.screen import output, progress_console, say, show


def sweep(
    config: Annotated[
        str, typer.Argument(help="A YAML file, or the name of a shipped experiment.")
    ] = "batch-size",
    set_: Set = None,
    over: Annotated[
        list[str] | None,
        typer.Option(
            "--over", metavar="KEY=V1,V2,…", help="Add or replace an axis; may be repeated."
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Use the seeds 0 … N−1.")] = None,
    max_runs: Annotated[
        int, typer.Option(min=1, help="Refuse an experiment of more runs than this.")
    ] = 10_000,
    workers: Annotated[
        str, typer.Option(metavar="N|auto", help="Runs to train side by side; auto: every core.")
    ] = "auto",
    runs_dir: RunsDir = Path("runs"),
    device: Device = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the runs, with their estimated cost.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try failed runs again.")
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first failed run.")
    ] = False,
    restart: Restart = False,
    accept_changes: AcceptChanges = False,
    quiet: Quiet = False,
    as_json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets: a line per run.")] = False,
    debug: Debug = False,
) -> None:
    """Train every run of an experiment: setups × axes × seeds; only what is missing."""
    from bnbench import config as configuration

    overrides = configuration.Overrides(set=tuple(set_ or ()), over=tuple(over or ()), seeds=seeds)
    experiment = configuration.load_experiment(configuration.find_config(config), overrides)
    plan = configuration.expand(experiment, max_runs=max_runs)
    for line in (*plan.notes, *plan.warnings):
        say(line)

    from bnbench.board.bands import keep_up
    from bnbench.report.closing import closing_tables
    from bnbench.report.run_rows import as_csv, run_rows
    from bnbench.runner import Screen, Stop
    from bnbench.store import ExperimentFolder
    from bnbench.sweep import (
        Terms,
        Workers,
        as_lines,
        as_record,
        forecast,
        may_use_gpu,
        workers_for,
    )
    from bnbench.sweep import sweep as train_missing

    folder = ExperimentFolder(runs_dir / experiment.name)
    terms = Terms(folder.path, device=device, accept_changes=accept_changes)
    with closing(Workers(workers_for(workers, plan.runs), terms)) as executor:
        if dry_run:
            found = forecast(
                plan.runs, folder, executor, restart=restart, retry_failed=retry_failed
            )
            if as_json:
                print(json.dumps(as_record(found, folder), indent=2))
            else:
                for line in as_lines(found, folder):
                    show(line)
            return
        folder.begin(configuration.dump_experiment(experiment))
        keep_up(folder, say)
        stop = Stop(say)
        with stop.listening(), Screen(progress_console(quiet), runs=len(plan.runs)) as screen:
            outcome = train_missing(
                plan.runs,
                folder,
                executor,
                screen,
                stop,
                restart=restart,
                retry_failed=retry_failed,
                fail_fast=fail_fast,
                fit_gpu=workers == "auto" and may_use_gpu(device, plan.runs),
            )
    keep_up(folder, say)
    if as_json:
        print(json.dumps(run_rows(plan.runs, folder), indent=2))
    elif csv:
        print(as_csv(run_rows(plan.runs, folder)), end="")
    else:
        for table in closing_tables(experiment, plan.runs, folder):
            output.print(table)
        show(f"curves: bnbench tensorboard {folder.path}")
    if outcome.failures:
        say(f"{len(outcome.failures)} of {outcome.runs} runs failed:")
        for name, message in outcome.failures[:10]:
            say(f"  {name}: {message}")
        say("try them again with --retry-failed")
        raise typer.Exit(1)
