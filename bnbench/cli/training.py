"""`bnbench train`: one run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bnbench import garbage
from bnbench.cli import completion, root
from bnbench.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from bnbench.config.schema import RunConfig
    from bnbench.runner.settings import Executed
    from bnbench.store import Result

Setup = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=completion.setups,
        help="Of the file's setups this one alone.",
    ),
]
Seed = Annotated[int | None, root.number("--seed", "The run's seed.", least=0)]


def train(
    config: root.Config,
    set_: root.Set = None,
    setup: Setup = None,
    seed: Seed = None,
    runs_dir: root.RunsDir = Path("runs"),
    device: root.Device = None,
    restart: root.Restart = False,
    accept_changes: root.AcceptChanges = False,
    no_custom: root.NoCustom = False,
    quiet: root.Quiet = False,
) -> None:
    """Train one run; the same command again continues it."""
    from bnbench.config import custom, files, identity, loading, loggers, plans
    from bnbench.config.trust import Trust
    from bnbench.runner.settings import Settings, Stop, thread_limit
    from bnbench.store import ExperimentFolder, RunFolder

    overrides = loading.Overrides(set=tuple(set_ or ()), seed=seed, setup=setup)
    path = files.find_config(config)
    experiment = loading.load_experiment(path, overrides)
    plan = plans.expand(experiment)
    run = plan.only()
    loggers.require(experiment)
    trust = Trust(root.say, no_custom, accept_changes)
    trust.allow([run])
    if custom.own_images([run]):
        with root.doing("loading PyTorch", quiet):
            from bnbench.assemble.own_images import prepare
        prepare([run], root.say)
        plan = plans.expand(experiment)  # what the images are decides whether it can train
    stored = RunFolder(path.parent).manifest_or_none() if overrides == loading.Overrides() else None
    if stored is not None and custom.targets(run):
        trust.require_same(path.parent, run, stored.get("identity", ""))
    for line in (*experiment.notes, *plan.warnings):
        root.say(line)

    folder = ExperimentFolder(runs_dir / run.experiment)
    stop = Stop(root.say, saved=folder.run(identity.run_id(run)).is_saved)
    with stop.listening(), root.doing("loading PyTorch", quiet):
        from bnbench.assemble.check import check
        from bnbench.runner.execution import execute
        from bnbench.sinks.terminal import Screen

        refused = check([run])
    garbage.resume()
    if refused:
        raise ConfigError(plan.faults(refused))
    with stop.listening(), Screen(root.progress_console(quiet)) as screen:
        settings = Settings(
            device=device,
            threads=thread_limit(),
            restart=restart,
            accept_changes=accept_changes,
            view=screen.view,
            announce=root.say,
            stop=stop,
        )
        done = execute(run, folder, settings)
    _show(done, run, loggers.curves(experiment, folder.path))


def _show(done: Executed, run: RunConfig, curves: Iterable[str]) -> None:
    """How a run ended, its scores, or what it may have diverged for, and where its curves are."""
    from bnbench.config.feasible import planned_steps, short_warmup

    before = "was already there: " if done.found else ""
    root.show(f"{done.folder.path}: {before}{_run_summary(done.result)}")
    if done.otherwise:
        root.say(f"note: it was trained with other settings: {'; '.join(done.otherwise)}")
        root.say("  they decide no result; --restart trains it again with those that are given")
    if done.result.state == "completed":
        root.output.print(_run_table(done.result))
    elif hint := short_warmup(run, planned_steps(run)):
        root.say(f"note: {hint}")
    for place in curves:
        root.show(f"curves: {place}")


def _run_table(result: Result) -> Table:
    """Loss and accuracy of a completed run, by split and kind of statistics."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from bnbench.config.metrics import SPLITS, STATISTICS

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for kind in STATISTICS:
        table.add_column(f"{kind} statistics", justify="right", no_wrap=True)
    for split in SPLITS:
        row = ["–"] * len(STATISTICS)
        for place, kind in enumerate(STATISTICS):
            if (score := result.score(split, kind)) is not None:
                loss = "–" if score.loss is None else f"{score.loss:.3f}"
                row[place] = f"{score.accuracy:.1%}  loss {loss}"
        table.add_row(split, *row)
    return table


def _run_summary(result: Result) -> str:
    """One line: how the run ended and what it cost."""
    cost = (
        f"{result.steps:,} steps, {result.examples:,} images in "
        f"{result.train_seconds:.1f} s of training ({result.images_per_second:,.0f} images/s), "
        f"{result.evaluation_seconds:.1f} s of evaluation"
    )
    if result.probe_seconds:
        cost += f", {result.probe_seconds:.1f} s of probes"
    if result.divergence is not None:
        return f"diverged at {result.divergence}; {cost}"
    return f"completed: {cost}"
