"""A sweep of one experiment or of a folder of them: from files to results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bnbench import config as configuration
from bnbench.errors import ConfigError, Fault, UsageError
from bnbench.runner import Screen, Stop
from bnbench.store import ExperimentFolder
from bnbench.sweep import cores, schedule, workers
from bnbench.sweep.forecast import Forecast, forecast
from bnbench.sweep.jobs import Answer, Executor, Job, WorkerOptions

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PlannedExperiment:
    """An experiment, its runs, and where they are stored."""

    experiment: configuration.ExperimentConfig
    plan: configuration.Plan
    folder: ExperimentFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """The command line's options. `workers`: a number, or auto for every core."""

    workers: str = "auto"
    device: str | None = None
    restart: bool = False
    accept_changes: bool = False
    retry_failed: bool = False
    fail_fast: bool = False


def plan_all(
    name: str, overrides: configuration.Overrides, *, max_runs: int, runs_dir: Path, say: Say
) -> list[PlannedExperiment]:
    """The experiment of a file, or all of a folder's, checked before the first is trained.

    Raises ConfigError with the faults of all of them, UsageError for two of the same name.
    """
    found: dict[str, PlannedExperiment] = {}
    faults: list[Fault] = []
    for path in configuration.find_configs(name):
        try:
            experiment = configuration.load_experiment(path, overrides)
            plan = configuration.expand(experiment, max_runs=max_runs)
        except ConfigError as error:
            faults += error.faults
            continue
        if experiment.name in found:
            raise UsageError(
                f"{path} and {found[experiment.name].plan.path} are both called {experiment.name}",
                do="give one of them another name with experiment:",
            )
        folder = ExperimentFolder(runs_dir / experiment.name)
        found[experiment.name] = PlannedExperiment(experiment, plan, folder)
    if faults:
        raise ConfigError(dict.fromkeys(faults))  # the command line's own arise in every file
    for each in found.values():
        for line in (*each.plan.notes, *each.plan.warnings):
            say(f"{each.experiment.name}: {line}" if len(found) > 1 else line)
    return list(found.values())


def executor_for(
    planned: PlannedExperiment, options: SweepOptions, siblings: Sequence[ExperimentFolder]
) -> Executor[Job, Answer]:
    """Who trains the runs of an experiment: the one place where an executor is chosen.

    `siblings`: experiments of the same sweep, whose finished runs need not be trained again.
    """
    size = cores.workers_for(options.workers, planned.plan.runs)
    shared = WorkerOptions(device=options.device, accept_changes=options.accept_changes)
    return workers.Workers(size, shared, planned.folder, siblings)


def forecast_all(
    planned: Sequence[PlannedExperiment], options: SweepOptions, say: Say
) -> Iterator[tuple[PlannedExperiment, Forecast]]:
    """What the sweep would do and cost, one experiment after the other."""
    for each in planned:
        siblings = _begin(each, planned, say)
        with closing(executor_for(each, options, siblings)) as executor:
            found = forecast(
                each.plan.runs,
                each.folder,
                executor,
                restart=options.restart,
                retry_failed=options.retry_failed,
            )
        yield each, found


def train_all(
    planned: Sequence[PlannedExperiment], options: SweepOptions, console: Console, say: Say
) -> Iterator[tuple[PlannedExperiment, schedule.SweepOutcome]]:
    """Train what is missing, one experiment after the other; progress goes to `console`."""
    from bnbench.board.bands import keep_up  # slow to import: SciPy and TensorBoard

    stop = Stop(say)
    for each in planned:
        siblings = _begin(each, planned, say)
        runs, folder = each.plan.runs, each.folder
        with closing(executor_for(each, options, siblings)) as executor:
            folder.begin(configuration.dump_experiment(each.experiment))
            keep_up(folder, say)
            with stop.listening(), Screen(console, runs=len(runs)) as screen:
                outcome = schedule.sweep(
                    runs,
                    folder,
                    executor,
                    screen,
                    stop,
                    restart=options.restart,
                    retry_failed=options.retry_failed,
                    fail_fast=options.fail_fast,
                    fit_gpu=options.workers == "auto" and cores.may_use_gpu(options.device, runs),
                )
        keep_up(folder, say)
        yield each, outcome
        if outcome.failures and options.fail_fast:
            return


def _begin(
    each: PlannedExperiment, planned: Sequence[PlannedExperiment], say: Say
) -> list[ExperimentFolder]:
    """Say which of several experiments comes now; the folders of the others."""
    if len(planned) > 1:
        say(f"{each.experiment.name}: {len(each.plan.runs):,} runs ({each.plan.grid})")
    return [other.folder for other in planned if other is not each]
