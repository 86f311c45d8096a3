"""A sweep of one experiment or of a folder of them: what is planned, and who trains it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from bnbench.config import custom, files, identity, loading, loggers, plans
from bnbench.config.trust import Trust
from bnbench.errors import ConfigError, Fault, UsageError
from bnbench.runner.settings import Stop, workers_for
from bnbench.sinks.terminal import Screen
from bnbench.store import ExperimentFolder
from bnbench.sweeps import jobs, looks, schedule, studies, workers
from bnbench.sweeps.planned import PlannedExperiment

Say = Callable[[str], None]


def plan_all(
    name: str,
    overrides: loading.Overrides,
    *,
    max_runs: int,
    runs_dir: Path,
    say: Say,
    no_custom: bool = False,
    into: bool = False,
    until: str | None = None,
    max_seeds: int | None = None,
) -> list[PlannedExperiment]:
    """The experiment of a file, or all of a folder's, checked before the first is trained.

    Images of the user's own are prepared: what they are decides whether runs can train.
    `no_custom`: refuse code of the user's own. `into`: keep another study of the same name in its
    folder. `until`: "decided" has seeds added until the claims are, `max_seeds` at most.
    Raises ConfigError with the faults of all of them, UsageError for two of the same name, and for
    another study unless `into`.
    """
    _require_until(until, max_seeds, overrides)
    planned: dict[str, PlannedExperiment] = {}
    faults: list[Fault] = []
    for path in files.find_configs(name):
        try:
            experiment = loading.load_experiment(path, overrides)
            if until is not None:
                experiment = looks.until_decided(experiment, max_seeds)
            plan = plans.expand(experiment, max_runs=max_runs)
            loggers.require(experiment)
        except ConfigError as error:
            faults += error.faults
            continue
        if experiment.name in planned:
            other = planned[experiment.name].plan.path
            raise UsageError(
                f"{path} and {other} are both called {experiment.name}",
                do="give one of them another name with experiment:",
            )
        folder = ExperimentFolder(runs_dir / experiment.name)
        planned[experiment.name] = PlannedExperiment(experiment, plan, folder)
    if faults:
        raise ConfigError(dict.fromkeys(faults))  # the command line's own arise in every file
    runs = [run for each in planned.values() for run in each.plan.runs]
    Trust(say, no_custom).allow(runs)
    if custom.own_images(runs):
        from bnbench.assemble.own_images import prepare  # it imports torch

        prepare(runs, say)
        for name, each in planned.items():
            plan = plans.expand(each.experiment, max_runs=max_runs)
            planned[name] = replace(each, plan=plan)
    for name, each in planned.items():
        folder = studies.folder_for(each, into=into)
        siblings = tuple(runs_dir / other for other in planned if other != name)
        planned[name] = replace(each, folder=replace(folder, siblings=siblings))
    for name, each in planned.items():
        for line in _notes(each):
            say(f"{name}: {line}" if len(planned) > 1 else line)
    return list(planned.values())


def _notes(each: PlannedExperiment) -> Iterator[str]:
    """What is worth saying of a plan."""
    yield from (*each.plan.notes, *each.plan.warnings, *each.plan.unjudged)
    if each.experiment.claims:
        from bnbench.report.promise import too_few_seeds  # SciPy takes a while

        for what, do in too_few_seeds(each.experiment, each.plan):
            yield f"{what}; {do}"


def _require_until(until: str | None, max_seeds: int | None, overrides: loading.Overrides) -> None:
    if until not in (None, "decided"):
        raise UsageError(f"--until {until}: there is decided", do="write --until decided")
    if until is None and max_seeds is not None:
        raise UsageError("--max-seeds is of --until decided", do="give both, or --seeds")
    if until is not None and overrides.seeds is not None:
        raise UsageError("--seeds and --until are both given", do="write --max-seeds for --seeds")


def train(
    each: PlannedExperiment,
    executor: jobs.Executor[jobs.Job, jobs.Answer],
    options: jobs.SweepOptions,
    screens: Callable[..., Screen],
    say: Say,
) -> jobs.SweepOutcome:
    """Train what an experiment lacks, and bring its TensorBoard up to date before the first run.

    `screens`: what shows so many runs. Raises Interrupted, what is trained being stored.
    """
    runs, folder = each.plan.runs, each.folder
    own = [run for run in runs if custom.targets(run) or custom.weights(run)]
    names = list(map(identity.run_id, own))

    def begin() -> None:
        from bnbench.board.bands import update_tensorboard  # it imports TensorBoard

        studies.begin(each.experiment, folder, say)
        update_tensorboard(folder, say)

    stop = Stop(say, saved=partial(schedule.is_saved, runs, folder))
    outcome = jobs.SweepOutcome(0)
    with stop.listening():
        if options.restart:
            with stop.deferred():
                studies.throw_away(runs, folder, say)
        for some in looks.in_turn(each, say):
            with screens(runs=len(some)) as screen:
                outcome = schedule.sweep(
                    some, folder, executor, screen, stop, options, each.plan.faults, begin
                )
            if outcome.failures and options.fail_fast:
                break
            options = replace(options, retry_failed=False)
    if names != list(map(identity.run_id, own)):
        say(
            "warning: files of your own changed during the sweep: runs that were trained before "
            "are in no report; the same command trains all with the files as they are"
        )
    return outcome


def executors(
    planned: Sequence[PlannedExperiment], options: jobs.SweepOptions, say: Say
) -> Generator[tuple[PlannedExperiment, jobs.Executor[jobs.Job, jobs.Answer]], None, None]:
    """Each experiment with who trains its runs: the one place where an executor is chosen.

    Close the iterator (`contextlib.closing`) when done. A run that several experiments have is
    trained once. Workers of this machine, which take seconds to start, are kept for the next.
    """
    if options.on != "slurm" and (options.slurm or options.detach):
        flag = "--slurm" if options.slurm else "--detach"
        raise UsageError(f"{flag} says how to train on SLURM", do="add --on slurm")
    if options.on != "ray" and options.address:
        raise UsageError("--address is of a Ray cluster", do="add --on ray")
    with closing(workers.Workers(options)) as local:
        for each in planned:
            if len(planned) > 1:
                say(f"{each.experiment.name}: {len(each.plan.runs):,} runs ({each.plan.grid})")
            if any(run.compute.threads == "auto" for run in each.plan.runs):
                say("compute.threads: auto is 1 in a sweep, whose workers fill the cores")
            if options.on != "local":
                with closing(_cluster_for(each, options, say)) as cluster:
                    yield each, cluster
                continue
            size = workers_for(options.workers, each.plan.runs)
            local.turn_to(size, each.folder)
            yield each, local


def _cluster_for(
    each: PlannedExperiment, options: jobs.SweepOptions, say: Say
) -> jobs.Executor[jobs.Job, jobs.Answer]:
    match options.on:
        case "ray":
            from bnbench.sweeps.ray.executor import Ray
            from bnbench.sweeps.shipping import Shipping

            ray = Ray(options, each.plan.runs, each.folder, say)
            return Shipping(ray, each.folder, ray.sees)
        case "slurm":
            from bnbench.sweeps.slurm.cluster import connect
            from bnbench.sweeps.slurm.executor import Slurm

            workers_for(options.workers, each.plan.runs)  # raises where it is no number
            cluster = connect(options.slurm, each.plan.runs, options.device)
            return Slurm(cluster, options, each.folder, say)
        case unknown:
            raise UsageError(f"there is no executor {unknown!r}", do="take local, ray or slurm")
