"""What a sweep would do, and what that would cost: the answer to `--dry-run`."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bnbench import store
from bnbench.config import feasible, identity, schema
from bnbench.errors import RunError
from bnbench.runner import Cost, Stop, duration
from bnbench.store import ExperimentFolder, Record, RunFolder
from bnbench.sweep import jobs, preflight
from bnbench.sweep.costs import Costs, cell_of, makespan
from bnbench.sweep.dispatch import Dispatcher
from bnbench.sweep.schedule import SweepOptions

WORKER_SECONDS = 4.0
"""What a worker needs to start: most of it is torch."""

DAY = 24 * 3600


@dataclass(slots=True)
class ForecastRun:
    """A run of a sweep. `state` as on disk, or "damaged"; `trains`: whether the sweep will work on
    it; `cost`: what that will take; `measured`: from a few steps just now, not from finished runs.
    """

    config: schema.RunConfig
    folder: RunFolder
    state: str
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


def forecast(
    runs: Sequence[schema.RunConfig],
    experiment: ExperimentFolder,
    executor: jobs.Executor[jobs.Job, jobs.Answer],
    options: SweepOptions,
    refuse: preflight.Refuse,
) -> Forecast:
    """Look at every run, and learn what the missing ones cost: from finished runs of their cell,
    else from a few steps. Writes nothing.

    Raises what `sweep` would raise before its first run.
    """
    costs = Costs()
    found = []
    for config in runs:
        folder = experiment.run(identity.run_id(config))
        record = store.read(folder)
        finished = record.result is not None
        failed = record.state == "failed" and not options.retry_failed
        trains = options.restart or not (finished or failed)
        if record.result is not None:
            costs.learn(cell_of(config), 0, Cost(record.result.wall_seconds, folder.size()))
        found.append(ForecastRun(config, folder, record.state, trains, Cost(0.0, 0)))

    missing = [run for run in found if run.trains]
    dispatcher = Dispatcher(executor, lambda _: None, Stop())
    new = [run.config for run in missing if not run.folder.path.exists()]
    preflight.check_networks(new, dispatcher, refuse)
    unknown = [run.config for run in missing if costs.of(cell_of(run.config)) is None]
    measured = _measure(unknown, dispatcher)
    for run in missing:
        known = costs.of(cell_of(run.config))
        run.measured = known is None
        run.cost = measured[_work(run.config)] if known is None else known
        if run.state == "interrupted" and not options.restart:
            run.cost = Cost(run.cost.seconds * (1 - _fraction(run)), run.cost.bytes)
    return Forecast(found, executor.size)


def _work(config: schema.RunConfig) -> str:
    """What decides how long a run takes: neither its seed nor its learning rate does."""
    facts = config.model_dump(mode="json", exclude={"seed", "setup", "swept", "experiment"})
    facts["optim"] = {"kind": facts["optim"]["kind"], "only": facts["optim"]["train_only"]}
    return repr(facts)


def _fraction(run: ForecastRun) -> float:
    """How much of an interrupted run is done, by its last event."""
    step = 0
    for record in run.folder.records():
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
        "finish": _finish(forecast).astimezone(UTC).isoformat(timespec="seconds"),
        "runs": [
            {
                "run": run.folder.name,
                "setup": run.config.setup,
                "point": identity.point(run.config),
                "seed": run.config.seed,
                "state": run.state,
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
        cost = f"{duration(run.cost.seconds):>10} {_size(run.cost.bytes):>8}"
        lines.append(f"{run.state:12}{cost if run.trains else ' ' * 19}  {run.folder.name}")
    states = Counter(run.state for run in forecast.runs)
    counted = ", ".join(f"{number} {state}" for state, number in states.items())
    runs = "1 run" if len(forecast.runs) == 1 else f"{len(forecast.runs)} runs"
    lines.append(f"{runs}: {counted}")
    training = sum(run.trains for run in forecast.runs)
    if not training:
        return [*lines, "nothing to train"]
    total = forecast.cost
    workers = "1 worker" if forecast.workers == 1 else f"{forecast.workers} workers"
    finish = _finish(forecast)
    at = f"{finish:%H:%M}" if total.seconds < DAY else f"{finish:%Y-%m-%d %H:%M}"
    lines.append(
        f"to train: {training}, about {duration(total.seconds)} with {workers}, done at {at}; "
        f"{_size(total.bytes)} of {_size(_free(experiment.path))} free"
    )
    return lines


def _finish(forecast: Forecast) -> datetime:
    return datetime.now().astimezone() + timedelta(seconds=forecast.cost.seconds)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _free(path: Path) -> int:
    """Bytes free at `path`, or where it will be."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
