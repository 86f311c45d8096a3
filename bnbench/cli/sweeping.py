"""`bnbench sweep`: every run of an experiment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bnbench import garbage
from bnbench.cli import completion, root

if TYPE_CHECKING:
    from bnbench.store import Record
    from bnbench.sweeps.jobs import SweepOptions
    from bnbench.sweeps.planned import PlannedExperiment

Configs = Annotated[
    str, root.config("A YAML file, the name of a shipped experiment, or a folder of them.")
]
SCHEMA = 1
"""Of `--json`, as runs/README.md describes it; a key that changes its meaning raises it."""

Over = Annotated[
    list[str] | None,
    typer.Option(
        "--over",
        metavar="KEY=V1,V2,…",
        autocompletion=completion.keys,
        help="Add or replace an axis: optim.lr=0.01,0.1; may be repeated.",
    ),
]
Seeds = Annotated[
    int | None, root.number("--seeds", "Use the seeds 0 … N−1.", least=1, most=1_000_000)
]
Claim = Annotated[
    list[str] | None,
    typer.Option("--claim", metavar="ID,ID", help="Only these claims, and the runs they need."),
]
MaxRuns = Annotated[
    int,
    root.number(
        "--max-runs", "Refuse an experiment of more runs than this.", least=1, most=1_000_000
    ),
]
Workers = Annotated[
    str, typer.Option(metavar="N|auto", help="Runs to train at the same time; auto: one per core.")
]
On = Annotated[
    str,
    root.one_of(
        "--on",
        ("local", "ray", "slurm"),
        "Where runs are trained: in processes of this machine, on a Ray or a SLURM cluster.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Of the Ray cluster, by default RAY_ADDRESS; auto: the one of this machine. Without "
        "one, Ray is started here.",
    ),
]
Slurm = Annotated[
    list[str] | None,
    typer.Option(
        "--slurm",
        metavar="KEY=VALUE",
        help="An option of sbatch for --on slurm: partition=short, time=60; may be repeated.",
    ),
]
Detach = Annotated[
    bool, typer.Option("--detach", help="Leave when the jobs of --on slurm are submitted.")
]
Until = Annotated[
    str | None,
    typer.Option(metavar="decided", help="Add seeds while a claim is undecided."),
]
MaxSeeds = Annotated[
    int | None,
    root.number("--max-seeds", "The most that --until adds (24).", least=6, most=1_000_000),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only list what would be trained, with its cost.")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try failed and damaged runs again.")
]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failed run.")]
Into = Annotated[
    bool,
    typer.Option(
        "--into",
        help="Keep another study of this name in the same folder; report --study N shows it.",
    ),
]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV: a line per run.")]


def sweep(
    config: Configs = "batch-size",
    set_: root.Set = None,
    over: Over = None,
    seeds: Seeds = None,
    claim: Claim = None,
    max_runs: MaxRuns = 10_000,
    workers: Workers = "auto",
    on: On = "local",
    address: Address = None,
    slurm: Slurm = None,
    detach: Detach = False,
    runs_dir: root.RunsDir = Path("runs"),
    device: root.Device = None,
    dry_run: DryRun = False,
    retry_failed: RetryFailed = False,
    fail_fast: FailFast = False,
    into: Into = False,
    until: Until = None,
    max_seeds: MaxSeeds = None,
    restart: root.Restart = False,
    accept_changes: root.AcceptChanges = False,
    no_custom: root.NoCustom = False,
    quiet: root.Quiet = False,
    as_json: root.Json = False,
    csv: Csv = False,
) -> None:
    """Train every run of an experiment that is missing.

    An experiment is setups × axes × seeds. Of a folder of experiments, each is trained in turn;
    runs that are the same are trained once. The same command again continues it.
    """
    from bnbench.config import loading
    from bnbench.sweeps import experiments
    from bnbench.sweeps.jobs import SweepOptions

    claims = tuple(each.strip() for some in claim or () for each in some.split(","))
    overrides = loading.Overrides(
        set=tuple(set_ or ()), over=tuple(over or ()), seeds=seeds, claims=claims
    )
    with root.doing(f"reading {config}", quiet or as_json or csv):
        planned = experiments.plan_all(
            config, overrides, max_runs=max_runs, runs_dir=runs_dir, say=root.say,
            no_custom=no_custom, into=into, until=until, max_seeds=max_seeds,
        )  # fmt: skip
    options = SweepOptions(
        workers=workers, on=on, address=address, slurm=tuple(slurm or ()), detach=detach,
        device=device, restart=restart, accept_changes=accept_changes, retry_failed=retry_failed,
        fail_fast=fail_fast,
    )  # fmt: skip
    garbage.resume()
    if dry_run:
        _forecast(planned, options, quiet=quiet, as_json=as_json)
    else:
        _train(planned, options, quiet=quiet, as_json=as_json, csv=csv)


def _forecast(
    planned: Sequence[PlannedExperiment], options: SweepOptions, *, quiet: bool, as_json: bool
) -> None:
    from bnbench.sweeps import experiments, forecast, looks

    records = []
    doing = "loading PyTorch, and trying a few steps of each kind of run"
    with closing(experiments.executors(planned, options, root.say)) as executors:
        for each, executor in executors:
            with root.doing(doing, quiet or as_json):
                runs = looks.possible(each)
                found = forecast.forecast(
                    runs, each.folder, executor, options, each.plan.faults, root.say
                )
            records.append({"schema": SCHEMA} | asdict(found))
            numbers: tuple[tuple[int, ...], ...] = ()
            if each.experiment.stages:
                from bnbench.report.looks import stops  # SciPy takes a while

                numbers = each.experiment.looks, stops(each.experiment)
            for line in () if as_json else forecast.as_lines(found, *numbers):
                root.show(line)
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
    with root.doing("reading what is stored", quiet or as_json or csv):
        from bnbench.board.bands import update_tensorboard
        from bnbench.config import loggers
        from bnbench.report import record, terminal
        from bnbench.report.looks import asked
        from bnbench.report.reading import results_of
        from bnbench.sinks.terminal import Screen
        from bnbench.sweeps import experiments

    shown: list[Record] = []
    screens, failures, number = partial(Screen, root.progress_console(quiet)), [], 0
    with closing(experiments.executors(planned, options, root.say)) as executors:
        for each, executor in executors:
            outcome = experiments.train(each, executor, options, screens, root.say)
            folder = each.folder
            number += outcome.runs
            if options.detach and outcome.done < outcome.runs:
                root.say(f"how they stand: bnbench status {folder.path}")
                continue
            with root.doing("reading the results", quiet or as_json or csv):
                update_tensorboard(folder, root.say)
                told = each.experiment.stages or (each.experiment.claims and not (as_json or csv))
                study = results_of(each.experiment, each.plan.runs, folder, events=bool(told))
                study = asked(study)
            failures += outcome.failures
            if as_json or csv:
                which: Record = {"schema": SCHEMA} if as_json else {}
                which |= {"experiment": each.experiment.name} if len(planned) > 1 else {}
                shown += [which | record.flat_row(run) for run in study.runs]
            else:
                for parts in (terminal.closing_tables, terminal.closing_verdicts):
                    for part in parts(study, columns=root.output.width):
                        root.output.print(part)
                for place in loggers.curves(each.experiment, folder.path):
                    root.show(f"curves: {place}")
                option = f" --study {folder.study}" if len(folder.studies()) > 1 else ""
                root.show(f"report: bnbench report {folder.path}{option}")
            if failures and options.fail_fast:
                break
    if as_json:
        print(json.dumps(shown, indent=2))
    elif csv:
        print(record.as_csv(shown), end="")
    if failures:
        root.say(f"{len(failures)} of {number} runs failed:")
        for name, message in failures[:10]:
            root.say(f"  {name}: {message}")
        kept = any(message.startswith("damaged") for _, message in failures)
        more = ", which renames damaged files to FILE.damaged-1" if kept else ""
        root.say(f"try them again with --retry-failed{more}")
        raise typer.Exit(1)
