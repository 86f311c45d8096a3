"""The command line: thin verbs, errors without tracebacks, exit codes.

Heavy rooms are imported inside the verbs, after the configuration has been checked: `--help`,
`--version` and a misspelled key need no torch.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from bnbench import __version__
from bnbench.errors import BnbenchError, Interrupted, UsageError

errors = Console(stderr=True)
output = Console()
_debug = False


class Verbs(TyperGroup):
    """Turns errors into lines and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; see README, "Exit codes"."""
        try:
            return super().invoke(ctx)
        except BnbenchError as error:
            if _debug:
                raise
            say(str(error))
            raise typer.Exit(error.exit_code) from None
        except Interrupted as interrupted:
            say(str(interrupted))
            raise typer.Exit(interrupted.exit_code) from None
        except KeyboardInterrupt:
            say("stopped")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # Who reads us has gone: not an error, but nothing more can be said either.
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
            raise typer.Exit(0) from None
        except Exception as error:
            # What Typer raises for wrong usage and for exits, it shows itself.
            if _debug or type(error).__module__.partition(".")[0] in ("typer", "click"):
                raise
            say(f"unexpected {type(error).__name__}: {error}\n  --debug shows where")
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=Verbs,
    help="Compare normalization setups in convolutional networks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
configs = typer.Typer(
    help="The shipped experiments: list, show, copy; check a file; schema.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(configs, name="configs")


def say(line: str) -> None:
    """Print to standard error, as it is."""
    errors.print(line, markup=False, highlight=False, soft_wrap=True)


def progress_console(quiet: bool) -> Console:
    """Where progress goes: the console that `say` uses, so that its lines stand above live ones."""
    return Console(stderr=True, quiet=True) if quiet else errors


def show(line: str) -> None:
    """Print to standard output, as it is."""
    output.print(line, markup=False, highlight=False, soft_wrap=True)


def _set_debug(value: bool) -> bool:
    global _debug
    _debug = _debug or value
    return value


def _print_version(value: bool) -> None:
    if value:
        show(f"bnbench {__version__}")
        raise typer.Exit


Config = Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped experiment.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key; may be repeated."),
]
RunsDir = Annotated[
    Path, typer.Option(envvar="BNBENCH_RUNS_DIR", help="Where the experiments' folders lie.")
]
Device = Annotated[
    str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1 or mps.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, only results and errors.")]
Restart = Annotated[bool, typer.Option("--restart", help="Throw earlier attempts away.")]
AcceptChanges = Annotated[
    bool,
    typer.Option(
        "--accept-changes",
        help="Go on with a run that was begun under another torch, CPU or thread count.",
    ),
]
Debug = Annotated[
    bool, typer.Option("--debug", callback=_set_debug, help="Show the traceback of an error.")
]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.callback()
def bnbench(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Version.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Compare normalization setups in convolutional networks."""


@app.command()
def train(
    config: Config,
    set_: Set = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The run's seed.")] = None,
    runs_dir: RunsDir = Path("runs"),
    device: Device = None,
    restart: Restart = False,
    accept_changes: AcceptChanges = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train one run; the same command again goes on where it stopped."""
    from bnbench import config as configuration

    overrides = configuration.Overrides(set=tuple(set_ or ()), seed=seed)
    experiment = configuration.load_experiment(configuration.find_config(config), overrides)
    plan = configuration.expand(experiment)
    run = plan.only()
    for line in (*experiment.notes, *plan.warnings):
        say(line)

    from bnbench.report.run_table import run_table, summary
    from bnbench.runner import Screen, Settings, Stop, execute
    from bnbench.store import ExperimentFolder
    from bnbench.sweep import usable_cores

    folder = ExperimentFolder(runs_dir / run.experiment)
    stop = Stop(say)
    with stop.listening(), Screen(progress_console(quiet)) as screen:
        settings = Settings(
            device=device,
            threads=usable_cores(),
            restart=restart,
            accept_changes=accept_changes,
            view=screen.view,
            announce=say,
            stop=stop,
        )
        result = execute(run, folder, settings)
    done = "was already there: " if result.found else ""
    show(f"{result.folder.path}: {done}{summary(result.record)}")
    if not result.diverged:
        output.print(run_table(result.record))
    show(f"curves: bnbench tensorboard {folder.path}")


@app.command()
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


@app.command()
def status(
    experiment: Annotated[str | None, typer.Argument(help="Default: all experiments.")] = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Every run and its state, from the evidence on disk."""
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


@app.command()
def tensorboard(
    experiment: Annotated[str | None, typer.Argument(help="Default: all experiments.")] = None,
    runs_dir: RunsDir = Path("runs"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Busy: the next free one.")] = 6006,
    open_: Annotated[bool, typer.Option("--open", help="Open the browser, too.")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Only write its files anew.")] = False,
    debug: Debug = False,
) -> None:
    """TensorBoard on this machine, with a link that opens a curated view; Ctrl-C ends it."""
    from bnbench.store import choose_experiments

    chosen = choose_experiments(runs_dir, experiment)

    from bnbench.board.serve import rebuild_all, serve

    if rebuild:
        raise typer.Exit(0 if rebuild_all(chosen, show=show, warn=say) else 1)
    serve(chosen, runs_dir, port=port, browser=open_, show=show, warn=say)


@configs.command("list")
def configs_list() -> None:
    """The shipped experiments, a line each."""
    from rich.table import Table

    from bnbench.config import shipped

    table = Table.grid(padding=(0, 2))
    for name, _, description in shipped():
        table.add_row(name, description)
    output.print(table)


@configs.command("show")
def configs_show(
    name: Config,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Every key with its value (one run only).")
    ] = False,
) -> None:
    """Print an experiment's file."""
    from bnbench.config import dump, expand_one, find_config, load_experiment

    path = find_config(name)
    print(dump(expand_one(load_experiment(path))) if resolved else path.read_text(), end="")


@configs.command("copy")
def configs_copy(
    name: Config,
    target: Annotated[Path | None, typer.Argument(help="Default: the same name, here.")] = None,
) -> None:
    """Copy a shipped experiment, to change it."""
    from bnbench.config import find_config

    source = find_config(name)
    target = target or Path(source.name)
    if target.is_dir():
        target = target / source.name
    if target.exists():
        raise UsageError(f"{target} is there already", do="name another file to copy to")
    try:
        target.write_text(source.read_text())
    except OSError as error:
        raise UsageError(f"{target}: {error.strerror}", do="name another file to copy to") from None
    show(f"copied to {target}: bnbench sweep {target}")


@configs.command("check")
def configs_check(config: Config, set_: Set = None) -> None:
    """Check a file as train and sweep would, and say what it describes."""
    from bnbench.config import Overrides, expand, find_config, load_experiment

    path = find_config(config)
    plan = expand(load_experiment(path, Overrides(set=tuple(set_ or ()))))
    for line in (*plan.notes, *plan.warnings):
        say(line)
    runs = "1 run" if len(plan.runs) == 1 else f"{len(plan.runs)} runs ({plan.grid})"
    show(f"{path}: {runs}, no faults")


@configs.command("schema")
def configs_schema() -> None:
    """Print the JSON Schema of an experiment's file, for editors."""
    from bnbench.config import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
