"""`bnbench train`: one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bnbench.cli.options import AcceptChanges, Config, Debug, Device, Quiet, Restart, RunsDir, Set
from bnbench.cli.screen import output, progress_console, say, show
from bnbench.errors import ConfigError


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
    """Train one run; the same command again continues it."""
    from bnbench.config import files, loading, plans

    overrides = loading.Overrides(set=tuple(set_ or ()), seed=seed)
    experiment = loading.load_experiment(files.find_config(config), overrides)
    plan = plans.expand(experiment)
    run = plan.only()
    for line in (*experiment.notes, *plan.warnings):
        say(line)

    from bnbench.assemble.check import check
    from bnbench.report import tables
    from bnbench.runner.execution import execute
    from bnbench.runner.settings import Settings, Stop
    from bnbench.sinks.terminal import Screen
    from bnbench.store import ExperimentFolder
    from bnbench.sweep.cores import usable_cores

    refused = check([run])
    if refused:
        raise ConfigError(plan.faults(refused))
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
        done = execute(run, folder, settings)
    before = "was already there: " if done.found else ""
    show(f"{done.folder.path}: {before}{tables.run_summary(done.result)}")
    if done.result.state == "completed":
        output.print(tables.run_table(done.result))
    show(f"curves: bnbench tensorboard {folder.path}")
