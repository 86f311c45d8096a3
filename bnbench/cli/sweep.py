"""`bnbench sweep`: every run of an experiment."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bnbench.cli.options import AcceptChanges, Debug, Device, Json, Quiet, Restart, RunsDir, Set
from bnbench.cli.screen import output, progress_console, say, show
from bnbench.errors import ConfigError, Fault, UsageError

if TYPE_CHECKING:
    from bnbench.config import ExperimentConfig, Overrides, Plan


def sweep(
    config: Annotated[
        str,
        typer.Argument(help="A YAML file, the name of a shipped experiment, or a folder of them."),
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
    """Train every run of an experiment: setups × axes × seeds; only what is missing.

    A folder of experiments: one after the other; runs that are the same are trained once.
    """
    from bnbench import config as configuration

    overrides = configuration.Overrides(set=tuple(set_ or ()), over=tuple(over or ()), seeds=seeds)
    plans = planned(config, overrides, max_runs)

    from bnbench.board.bands import keep_up
    from bnbench.report.closing import closing_tables
    from bnbench.report.run_rows import Row, as_csv, run_rows
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

    folders = [ExperimentFolder(runs_dir / experiment.name) for experiment, _ in plans]
    stop = Stop(say)
    forecasts: list[dict[str, Any]] = []
    rows: list[Row] = []
    failures: list[tuple[str, str]] = []
    for (experiment, plan), folder in zip(plans, folders, strict=True):
        if len(plans) > 1:
            say(f"{experiment.name}: {len(plan.runs):,} runs ({plan.grid})")
        terms = Terms(
            folder.path,
            device=device,
            accept_changes=accept_changes,
            siblings=tuple(other.path for other in folders if other is not folder),
        )
        with closing(Workers(workers_for(workers, plan.runs), terms)) as executor:
            if dry_run:
                found = forecast(
                    plan.runs, folder, executor, restart=restart, retry_failed=retry_failed
                )
                forecasts.append(as_record(found, folder))
                for line in () if as_json else as_lines(found, folder):
                    show(line)
                continue
            folder.begin(configuration.dump_experiment(experiment))
            keep_up(folder, say)
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
        failures += outcome.failures
        if as_json or csv:
            which = {"experiment": experiment.name} if len(plans) > 1 else {}
            rows += [which | row for row in run_rows(plan.runs, folder)]
        else:
            for table in closing_tables(experiment, plan.runs, folder):
                output.print(table)
            show(f"curves: bnbench tensorboard {folder.path}")
            show(f"report: bnbench report {folder.path}")
        if failures and fail_fast:
            break
    if dry_run:
        if as_json:
            print(json.dumps(forecasts[0] if len(plans) == 1 else forecasts, indent=2))
        return
    if as_json:
        print(json.dumps(rows, indent=2))
    elif csv:
        print(as_csv(rows), end="")
    if failures:
        say(f"{len(failures)} of {sum(len(plan.runs) for _, plan in plans)} runs failed:")
        for name, message in failures[:10]:
            say(f"  {name}: {message}")
        say("try them again with --retry-failed")
        raise typer.Exit(1)


def planned(name: str, overrides: Overrides, max_runs: int) -> list[tuple[ExperimentConfig, Plan]]:
    """The experiment of a file, or all of a folder's, checked before the first is trained.

    Raises ConfigError with the faults of all of them, UsageError for two of the same name.
    """
    from bnbench import config as configuration

    plans: dict[str, tuple[ExperimentConfig, Plan]] = {}
    faults: list[Fault] = []
    for path in configuration.find_configs(name):
        try:
            experiment = configuration.load_experiment(path, overrides)
            plan = configuration.expand(experiment, max_runs=max_runs)
        except ConfigError as error:
            faults += error.faults
            continue
        if experiment.name in plans:
            raise UsageError(
                f"{path} and {plans[experiment.name][0].path} are both called {experiment.name}",
                do="give one of them another name with experiment:",
            )
        plans[experiment.name] = experiment, plan
    if faults:
        raise ConfigError(dict.fromkeys(faults))  # the command line's own arise in every file
    for experiment, plan in plans.values():
        for line in (*plan.notes, *plan.warnings):
            say(f"{experiment.name}: {line}" if len(plans) > 1 else line)
    return list(plans.values())
