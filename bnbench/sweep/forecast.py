"""What a sweep would do, and what that would cost: the answer to `--dry-run`."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rich.filesize import decimal

from bnbench import store
from bnbench.config import feasible, identity, schema
from bnbench.errors import RunError
from bnbench.runner.settings import Cost, Stop
from bnbench.sinks.terminal import duration
from bnbench.store import ExperimentFolder, Record
from bnbench.sweep import jobs
from bnbench.sweep.costs import Costs, cell_of, makespan
from bnbench.sweep.dispatch import Dispatcher

WORKER_SECONDS = 4.0
"""What a worker needs to start: most of it is torch."""


@dataclass(slots=True)
class ForecastRun:
    """A run of a sweep, as it is on disk. `trains`: whether the sweep will work on it; `cost`: what
    that will take; `measured`: from a few steps just now, not from finished runs."""

    config: schema.RunConfig
    found: store.RunRecord
    trains: bool
    cost: Cost
    measured: bool = False


@dataclass(frozen=True, slots=True)
class Forecast:
    """Every run of a sweep, and the cost of all: seconds by the clock with all workers."""

    runs: list[ForecastRun]
    workers: int

    @property
    def cost(self) -> Cost:
        """What is left to spend."""
        costs = [run.cost for run in self.runs if run.trains]
        seconds = WORKER_SECONDS + makespan((cost.seconds for cost in costs), self.workers)
        return Cost(seconds if costs else 0.0, sum(cost.bytes for cost in costs))

    @property
    def finish(self) -> datetime:
        """When the sweep would be done."""
        return datetime.now().astimezone() + timedelta(seconds=self.cost.seconds)


def forecast(
    runs: Sequence[schema.RunConfig],
    experiment: ExperimentFolder,
    executor: jobs.Executor[jobs.Job, jobs.Answer],
    options: jobs.SweepOptions,
    faults_of: jobs.FaultsOf,
) -> Forecast:
    """Look at every run, and learn what the missing ones cost: from finished runs of their cell,
    else from a few steps. Writes nothing.

    Raises what `sweep` would raise before its first run.
    """
    costs = Costs()
    forecasts = []
    for config in runs:
        found = store.read(experiment.run(identity.run_id(config)))
        if found.result is not None:
            spent = Cost(found.result.wall_seconds, found.folder.size())
            costs.learn(cell_of(config), 0, spent)
        failed = found.state == "failed" and not options.retry_failed
        trains = options.restart or not (failed or found.result is not None)
        forecasts.append(ForecastRun(config, found, trains, Cost(0.0, 0)))

    missing = [run for run in forecasts if run.trains]
    dispatcher = Dispatcher(executor, lambda _: None, Stop())
    new = [run.config for run in missing if not run.found.folder.path.exists()]
    dispatcher.check_networks(new, faults_of)
    unknown = [run.config for run in missing if costs.of(cell_of(run.config)) is None]
    measured = _measure(unknown, dispatcher)
    for run in missing:
        known = costs.of(cell_of(run.config))
        run.measured = known is None
        run.cost = measured[_work(run.config)] if known is None else known
        if run.found.state == "interrupted" and not options.restart:
            run.cost = Cost(run.cost.seconds * (1 - _fraction(run)), run.cost.bytes)
    return Forecast(forecasts, executor.size)


def _work(config: schema.RunConfig) -> str:
    """What decides how long a run takes: neither its seed nor its learning rate does."""
    facts = config.model_dump(mode="json", exclude={"seed", "setup", "swept", "experiment"})
    facts["optim"] = {"kind": facts["optim"]["kind"], "only": facts["optim"]["train_only"]}
    return repr(facts)


def _fraction(run: ForecastRun) -> float:
    """How much of an interrupted run is done, by its last event."""
    step = 0
    for record in run.found.events():
        step = record["step"]
    return min(1.0, step / feasible.planned_steps(run.config))


def _measure(configs: Sequence[schema.RunConfig], dispatcher: Dispatcher) -> dict[str, Cost]:
    """The cost of each distinct work among these runs."""
    distinct = {_work(config): config for config in reversed(configs)}
    works: dict[jobs.Job, str] = {jobs.Measure(each): work for work, each in distinct.items()}
    costs: dict[str, Cost] = {}
    dispatcher.add(works)
    for job, answer in dispatcher.answers():
        match job, answer:
            case _, jobs.Found(Cost() as cost):
                costs[works[job]] = cost
            case _, jobs.Failed(error):
                raise error
            case jobs.Measure(config), jobs.Lost(how):
                raise RunError(f"{identity.run_id(config)} cannot be measured: its worker {how}")
            case _:
                pass
    return costs


def as_record(forecast: Forecast, experiment: ExperimentFolder) -> Record:
    """A forecast as JSON; times in seconds, sizes in bytes."""
    return {
        "experiment": experiment.name,
        "path": str(experiment.path),
        "workers": forecast.workers,
        "seconds": forecast.cost.seconds,
        "bytes": forecast.cost.bytes,
        "finish": forecast.finish.astimezone(UTC).isoformat(timespec="seconds"),
        "runs": [
            {
                "run": run.found.folder.name,
                "setup": run.config.setup,
                "point": identity.point(run.config),
                "seed": run.config.seed,
                "state": run.found.state,
                "trains": run.trains,
                "seconds": run.cost.seconds,
                "bytes": run.cost.bytes,
                "measured": run.measured,
            }
            for run in forecast.runs
        ],
    }


def as_lines(forecast: Forecast, experiment: ExperimentFolder) -> list[str]:
    """A forecast for people: a line per run, then the total."""
    lines = []
    for run in forecast.runs:
        cost = f"{duration(run.cost.seconds):>10} {decimal(run.cost.bytes):>8}"
        name = run.found.folder.name
        lines.append(f"{run.found.state:12}{cost if run.trains else ' ' * 19}  {name}")
    states = Counter(run.found.state for run in forecast.runs)
    counted = ", ".join(f"{number} {state}" for state, number in states.items())
    runs = "1 run" if len(forecast.runs) == 1 else f"{len(forecast.runs)} runs"
    lines.append(f"{runs}: {counted}")
    training = sum(run.trains for run in forecast.runs)
    if not training:
        return [*lines, "nothing to train"]
    workers = "1 worker" if forecast.workers == 1 else f"{forecast.workers} workers"
    today = forecast.cost.seconds < 24 * 3600
    place = experiment.path.absolute()
    there = next(path for path in (place, *place.parents) if path.exists())
    return [
        *lines,
        f"to train: {training}, about {duration(forecast.cost.seconds)} with {workers}, done at "
        f"{forecast.finish:{'%H:%M' if today else '%Y-%m-%d %H:%M'}}; "
        f"{decimal(forecast.cost.bytes)} of {decimal(shutil.disk_usage(there).free)} free",
    ]
