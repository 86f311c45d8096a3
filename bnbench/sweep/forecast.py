"""What a sweep would do, and what that would cost: the answer to `--dry-run`."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bnbench import config as configuration
from bnbench.config import run_id, schema
from bnbench.errors import RunError, StorageError
from bnbench.runner import Cost, duration
from bnbench.store import ExperimentFolder, Record, RunFolder
from bnbench.sweep.costs import Costs, cell_of, makespan
from bnbench.sweep.jobs import WAIT_SECONDS, Executor, Failed, Job, Lost, Measure, Measured

WORKER_SECONDS = 4.0
"""What a worker needs to start: most of it is torch."""

DAY = 24 * 3600


@dataclass(frozen=True, slots=True)
class Planned:
    """A run of a sweep. `state` as on disk, or "damaged"; `trains`: whether the sweep will work on
    it; `cost`: what that will take; `measured`: from a few steps just now, not from finished runs.
    """

    config: schema.RunConfig
    name: str
    state: str
    trains: bool
    cost: Cost
    measured: bool


@dataclass(frozen=True, slots=True)
class Forecast:
    """Every run of a sweep, and the cost of all: seconds by the clock with all workers."""

    runs: list[Planned]
    workers: int

    @property
    def cost(self) -> Cost:
        """What is still to pay."""
        costs = [run.cost for run in self.runs if run.trains]
        seconds = WORKER_SECONDS + makespan((cost.seconds for cost in costs), self.workers)
        return Cost(seconds if costs else 0.0, sum(cost.bytes for cost in costs))


def forecast(
    runs: Sequence[schema.RunConfig],
    experiment: ExperimentFolder,
    executor: Executor,
    *,
    restart: bool = False,
    retry_failed: bool = False,
) -> Forecast:
    """Look at every run, and learn what the missing ones cost: from finished runs of their cell,
    else from a few steps. Writes nothing.

    Raises what `sweep` would raise before its first run.
    """
    costs = Costs()
    looked_at = []
    for config in runs:
        folder = experiment.run(run_id(config))
        state = _state(folder)
        trains = restart or not (
            state in ("completed", "diverged") or (state == "failed" and not retry_failed)
        )
        if state in ("completed", "diverged"):
            seconds = (folder.result() or {})["wall_seconds"]
            costs.learn(cell_of(config), 0, Cost(seconds, folder.size()))
        looked_at.append((config, folder, state, trains))

    unknown = {
        _work(config): config
        for config, _, _, trains in reversed(looked_at)
        if trains and costs.of(cell_of(config)) is None
    }
    measured = _measured(unknown, executor)
    planned = []
    for config, folder, state, trains in looked_at:
        known = costs.of(cell_of(config))
        cost = Cost(0.0, 0)
        if trains:
            cost = known if known is not None else measured[_work(config)]
            if state == "interrupted" and not restart:
                cost = Cost(cost.seconds * (1 - _fraction(config, folder)), cost.bytes)
        planned.append(Planned(config, folder.name, state, trains, cost, known is None and trains))
    return Forecast(planned, executor.size)


def _state(folder: RunFolder) -> str:
    try:
        return folder.state()
    except StorageError:
        return "damaged"


def _work(config: schema.RunConfig) -> str:
    """What decides how long a run takes: neither its seed nor its learning rate does."""
    facts = config.model_dump(mode="json", exclude={"seed", "setup", "swept", "experiment"})
    facts["optim"] = {"kind": facts["optim"]["kind"], "only": facts["optim"]["train_only"]}
    return repr(facts)


def _fraction(config: schema.RunConfig, folder: RunFolder) -> float:
    """How much of an interrupted run is done, by its last event."""
    step = 0
    for record in folder.records():
        step = record["step"]
    return min(1.0, step / configuration.planned_steps(config))


def _measured(unknown: dict[str, schema.RunConfig], executor: Executor) -> dict[str, Cost]:
    waiting = list(unknown.items())
    works: dict[Job, str] = {}
    costs: dict[str, Cost] = {}
    while len(costs) < len(unknown):
        while waiting and executor.busy < executor.size:
            work, config = waiting.pop(0)
            job = Measure(config)
            works[job] = work
            executor.give(job)
        for done, answer in executor.answers(WAIT_SECONDS):
            match answer:
                case Measured(cost):
                    costs[works[done]] = cost
                case Failed(error, _):
                    raise error
                case Lost(_, True):
                    waiting.append((works[done], done.config))  # not its fault
                case Lost(how, _):
                    raise RunError(f"{run_id(done.config)} cannot be measured: its worker {how}")
                case _:
                    pass
    return costs


def as_record(forecast: Forecast, experiment: ExperimentFolder) -> Record:
    """A forecast for programs; times in seconds, sizes in bytes."""
    return {
        "experiment": experiment.name,
        "path": str(experiment.path),
        "workers": forecast.workers,
        "seconds": forecast.cost.seconds,
        "bytes": forecast.cost.bytes,
        "finish": _finish(forecast).astimezone(UTC).isoformat(timespec="seconds"),
        "runs": [
            {
                "run": run.name,
                "setup": run.config.setup,
                "point": configuration.point(run.config),
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
        lines.append(f"{run.state:12}{cost if run.trains else ' ' * 19}  {run.name}")
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
    """Bytes free where `path` is, or will be."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
