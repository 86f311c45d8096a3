"""`bnbench sweep`: every run of an experiment."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bnbench.cli.options import AcceptChanges, Debug, Device, Json, Quiet, Restart, RunsDir, Set
from bnbench.cli.screen import output, progress_console, say, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnbench.store import Record
    from bnbench.sweep.experiments import PlannedExperiment
    from bnbench.sweep.jobs import SweepOptions

Configs = Annotated[
    str, typer.Argument(help="A YAML file, the name of a shipped experiment, or a folder of them.")
]
Over = Annotated[
    list[str] | None,
    typer.Option("--over", metavar="KEY=V1,V2,…", help="Add or replace an axis; may be repeated."),
]
Seeds = Annotated[int | None, typer.Option(min=1, help="Use the seeds 0 … N−1.")]
MaxRuns = Annotated[int, typer.Option(min=1, help="Refuse an experiment of more runs than this.")]
Workers = Annotated[
    str, typer.Option(metavar="N|auto", help="Runs to train at the same time; auto: one per core.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only list the runs, with their estimated cost.")
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try failed runs again.")]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failed run.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV: a line per run.")]


def sweep(
    config: Configs = "batch-size",
    set_: Set = None,
    over: Over = None,
    seeds: Seeds = None,
    max_runs: MaxRuns = 10_000,
    workers: Workers = "auto",
    runs_dir: RunsDir = Path("runs"),
    device: Device = None,
    dry_run: DryRun = False,
    retry_failed: RetryFailed = False,
    fail_fast: FailFast = False,
    restart: Restart = False,
    accept_changes: AcceptChanges = False,
    quiet: Quiet = False,
    as_json: Json = False,
    csv: Csv = False,
    debug: Debug = False,
) -> None:
    """Train what is missing of an experiment.

    An experiment is setups × axes × seeds. Of a folder of experiments, each is trained in turn;
    runs that are the same are trained once.
    """
    from bnbench.config import loading
    from bnbench.sweep import experiments
    from bnbench.sweep.jobs import SweepOptions

    overrides = loading.Overrides(set=tuple(set_ or ()), over=tuple(over or ()), seeds=seeds)
    planned = experiments.plan_all(config, overrides, max_runs=max_runs, runs_dir=runs_dir, say=say)
    options = SweepOptions(
        workers=workers,
        device=device,
        restart=restart,
        accept_changes=accept_changes,
        retry_failed=retry_failed,
        fail_fast=fail_fast,
    )
    if dry_run:
        _forecast(planned, options, as_json=as_json)
    else:
        _train(planned, options, quiet=quiet, as_json=as_json, csv=csv)


def _forecast(
    planned: Sequence[PlannedExperiment], options: SweepOptions, *, as_json: bool
) -> None:
    from bnbench.sweep import experiments, forecast

    records = []
    for found in experiments.forecast_all(planned, options, say):
        records.append(asdict(found))
        for line in () if as_json else forecast.as_lines(found):
            show(line)
    if as_json:
        print(json.dumps(records[0] if len(planned) == 1 else records, indent=2))


def _train(
    planned: Sequence[PlannedExperiment],
    options: SweepOptions,
    *,
    quiet: bool,
    as_json: bool,
    csv: bool,
) -> None:
    from bnbench.report import rows, tables
    from bnbench.report.reading import results_of
    from bnbench.sweep import experiments

    shown: list[Record] = []
    failures: list[tuple[str, str]] = []
    for each, outcome in experiments.train_all(planned, options, progress_console(quiet), say):
        failures += outcome.failures
        study = results_of(each.experiment, each.plan.runs, each.folder)
        if as_json or csv:
            which = {"experiment": each.experiment.name} if len(planned) > 1 else {}
            shown += [which | rows.flat_row(run) for run in study.runs]
        else:
            for table in tables.closing_tables(study):
                output.print(table)
            show(f"curves: bnbench tensorboard {each.folder.path}")
            show(f"report: bnbench report {each.folder.path}")
    if as_json:
        print(json.dumps(shown, indent=2))
    elif csv:
        print(rows.as_csv(shown), end="")
    if failures:
        say(f"{len(failures)} of {sum(len(each.plan.runs) for each in planned)} runs failed:")
        for name, message in failures[:10]:
            say(f"  {name}: {message}")
        say("try them again with --retry-failed")
        raise typer.Exit(1)
