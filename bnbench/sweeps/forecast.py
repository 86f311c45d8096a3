"""What a sweep would do, and what that would cost: the answer to `--dry-run`."""

from __future__ import annotations

import heapq
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

from rich.filesize import decimal

from bnbench import store
from bnbench.config import feasible, identity, schema
from bnbench.config.identity import cell_key
from bnbench.errors import BnbenchError, RunError, StorageError
from bnbench.machine import BUSY
from bnbench.runner.belonging import require_same_identity
from bnbench.runner.settings import Cost, Stop, recorded_bytes
from bnbench.sinks.terminal import SLOWED, duration
from bnbench.sweeps import jobs
from bnbench.sweeps.dispatch import Dispatcher
from bnbench.wording import counted, listing, point_words

LATEST = 1e11
"""Seconds, three thousand years: dates end with the year 9999."""

TASK_SECONDS = 600.0
"""Work of a task of a queue: waiting in it and loading torch are small against that."""

MOST_TASKS = 1000
"""Of an array: SLURM's MaxArraySize is 1001 unless it is configured."""

WORKER_SECONDS = 4.0
"""What a worker needs to start: most of it is torch."""


def stored(
    runs: Sequence[schema.RunConfig], experiment: store.ExperimentFolder
) -> Iterator[tuple[schema.RunConfig, store.RunRecord, Sequence[str]]]:
    """How each run of a sweep stands; damaged as well where it has a result, and a configuration
    that is not the one its folder is named after. Where it has none, training it says so. And what
    it records otherwise, a line for each key."""
    folders = experiment.folders_of(map(identity.run_id, runs))
    for config, folder in zip(runs, folders, strict=True):
        found, otherwise = store.read(folder), list[str]()
        try:
            if found.result is not None:
                otherwise = require_same_identity(folder, config)
        except BnbenchError as error:
            found = store.RunRecord(folder, "damaged", problem=error.what)
        yield config, found, otherwise


def is_missing(found: store.RunRecord, options: jobs.SweepOptions) -> bool:
    """Whether a sweep works on a run: it has no result, and has not failed by its own fault.

    Missing data or a full disk say nothing about a run.
    """
    if found.state == "damaged":
        return options.retry_failed
    error = found.error
    if found.result is not None or error is None:
        return found.result is None
    return options.retry_failed or bool(error.get("of_the_machine"))


def free_bytes(place: Path) -> int:
    """Of the disk that a folder is on, or will be."""
    place = place.absolute()
    there = next(path for path in (place, *place.parents) if path.exists())
    return shutil.disk_usage(there).free


def require_space(
    runs: Sequence[tuple[str, schema.RunConfig]], sizes: Mapping[str, int], place: Path
) -> None:
    """Refuse runs, each with its cell, that do not fit on the disk. Raises StorageError.

    `sizes`: bytes of a finished run, by cell. For other cells the smallest of them counts; where
    there is none, what runs record at least.
    """
    smallest = min(sizes.values(), default=0)
    need = sum(sizes.get(cell) or smallest or recorded_bytes(run) for cell, run in runs)
    if need > (free := free_bytes(place)):
        raise StorageError(
            f"{place}: {counted(len(runs), 'run')} will take {decimal(need)} or more, and the disk "
            f"has {decimal(free)} free",
            do="free some space and run the same command again, or choose another place with "
            "--runs-dir",
        )


def turns(runs: Iterable[schema.RunConfig | ForecastRun]) -> dict[int, int]:
    """When each seed of these runs is trained: 0 for the first of them, and so on."""
    return {seed: turn for turn, seed in enumerate(dict.fromkeys(run.seed for run in runs))}


def makespan(work: Iterable[tuple[int, float]], workers: int) -> float:
    """Seconds that this many workers take for runs with these turns and seconds, if each free one
    gets the longest run that is left of the first turn.

    Within a turn that is the rule of Graham 1969 (https://doi.org/10.1137/0117039), within 4/3 of
    the best order; all in all it is within twice.
    """
    ends = [0.0] * workers
    for _, seconds in sorted((turn, -seconds) for turn, seconds in work):
        heapq.heapreplace(ends, ends[0] - seconds)
    return max(ends)


def tasks(seconds: Sequence[float], each: int, workers: str) -> int:
    """How many tasks runs are divided into that train `each` at a time: as `--workers` says, else
    as many as have `TASK_SECONDS` of work."""
    wanted = sum(seconds) / each / TASK_SECONDS if workers == "auto" else float(workers)
    return max(1, min(round(wanted), -(-len(seconds) // each), MOST_TASKS))


@dataclass(slots=True, kw_only=True)
class ForecastRun:
    """A run of a sweep, as it is on disk. `trains`: whether the sweep will work on it; `seconds`,
    `bytes`: what that will take, on cores without other work; `measured`: from a few steps just
    now, not from finished runs; `rough`: by arithmetic, since even a few steps take long; `basis`:
    the same in words."""

    run: str
    setup: str
    point: dict[str, Any]
    seed: int
    state: store.State
    trains: bool
    seconds: float = 0.0
    bytes: int = 0
    measured: bool = False
    rough: bool = False
    basis: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Every run of a sweep, and what is left to spend: seconds by the clock with all workers.

    The fields are those of `--json`; `finish` is a time in ISO format. `pace`: how many times as
    long it takes while the machine is as busy with other work as now.
    """

    experiment: str
    path: str
    workers: int
    seconds: float
    bytes: int
    finish: str
    pace: float
    runs: list[ForecastRun]


def forecast(
    runs: Sequence[schema.RunConfig],
    experiment: store.ExperimentFolder,
    executor: jobs.Executor[jobs.Job, jobs.Answer],
    options: jobs.SweepOptions,
    faults_of: jobs.FaultsOf,
    say: Callable[[str], None] = lambda _: None,
) -> Forecast:
    """Look at every run, and learn what the missing ones cost: from finished runs of their cell,
    else from a few steps. Writes nothing.

    Raises what `sweep` would raise before its first run.
    """
    costs: dict[str, Cost] = {}  # by cell
    forecasts = []
    missing: list[tuple[schema.RunConfig, store.RunRecord, ForecastRun]] = []
    for config, found, _ in stored(runs, experiment):
        if found.result is not None:
            # The most expensive seed counts: one that diverged early says little about the others.
            seconds, size = found.result.wall_seconds, found.folder.size()
            known = costs.get(cell_key(config), Cost(0.0, 0))
            costs[cell_key(config)] = Cost(max(seconds, known.seconds), max(size, known.bytes))
        run = ForecastRun(
            run=found.folder.name,
            setup=config.setup,
            point=identity.point(config),
            seed=config.seed,
            state=found.state,
            trains=options.restart or is_missing(found, options),
        )
        forecasts.append(run)
        if run.trains:
            missing.append((config, found, run))

    dispatcher = Dispatcher(executor, say, Stop())
    new = [config for config, found, _ in missing if not found.folder.path.exists()]
    dispatcher.check_networks(new, faults_of)
    measured = _measure([each for each, *_ in missing if cell_key(each) not in costs], dispatcher)
    for config, found, run in missing:
        unseen = cell_key(config) not in costs
        cost = measured[_work(config)] if unseen else costs[cell_key(config)]
        run.seconds, run.bytes, run.basis = cost.seconds, cost.bytes, cost.basis
        run.rough, run.measured = cost.rough, unseen and not cost.rough
        if run.state == "interrupted" and not options.restart:
            run.seconds *= _left(config, found.folder)
    trained, workers = [run for *_, run in missing], executor.size
    if executor.queues:
        workers *= tasks([run.seconds for run in trained], workers, options.workers)
    seconds = _clock(trained, turns(runs), workers) if trained else 0.0
    finish = datetime.now(UTC) + timedelta(seconds=min(seconds, LATEST))
    return Forecast(
        experiment=experiment.name,
        path=str(experiment.path),
        workers=workers,
        seconds=seconds,
        bytes=sum(run.bytes for run in trained),
        finish=finish.isoformat(timespec="seconds"),
        pace=median([cost.pace for cost in measured.values()]) if measured else 1.0,
        runs=forecasts,
    )


def _clock(runs: Iterable[ForecastRun], turn: Mapping[int, int], workers: int) -> float:
    """Seconds that this many workers take for runs, from their start on."""
    return makespan(((turn[run.seed], run.seconds) for run in runs), workers) + WORKER_SECONDS


def _left(config: schema.RunConfig, folder: store.RunFolder) -> float:
    """The share of an interrupted run that is still to be trained."""
    step = 0
    with suppress(StorageError):  # training it will say so
        step = max((event["step"] for event in folder.records()), default=0)
    return max(0.0, 1 - step / feasible.planned_steps(config))


def _work(config: schema.RunConfig) -> str:
    """What decides how long a run takes: neither its seed nor its learning rate does."""
    facts = config.model_dump(mode="json", exclude={"seed", "setup", "swept", "experiment"})
    facts["optim"] = {"kind": facts["optim"]["kind"], "only": facts["optim"]["train_only"]}
    return repr(facts)


def _measure(configs: Sequence[schema.RunConfig], dispatcher: Dispatcher) -> dict[str, Cost]:
    """The cost of each distinct work among these runs."""
    distinct = {_work(config): jobs.Measure(config) for config in reversed(configs)}
    found = dispatcher.found(distinct.values())
    costs: dict[str, Cost] = {}
    for work, job in distinct.items():
        match found.get(job):
            case jobs.Found(Cost() as cost):
                costs[work] = cost
            case jobs.Lost(how):
                name = identity.run_id(job.config)
                raise RunError(f"{name} cannot be measured: its worker {how}")
            case _:
                pass
    return costs


def seconds_of(configs: Sequence[schema.RunConfig], dispatcher: Dispatcher) -> list[float]:
    """How long each of these runs takes, from a few steps; 0 where the sweep is stopped."""
    costs = _measure(configs, dispatcher)
    return [costs.get(_work(config), Cost(0.0, 0)).seconds for config in configs]


def _states(runs: Iterable[ForecastRun]) -> str:
    """`2 completed, 4 new`."""
    states = Counter(run.state for run in runs)
    return ", ".join(f"{number:,} {state}" for state, number in states.items())


def as_lines(forecast: Forecast, looks: Sequence[int] = (), stops: Sequence[int] = ()) -> list[str]:
    """A forecast for people: a line per cell with what its seeds cost together, then the total.
    `looks`: numbers of seeds at which claims are judged, where that is not once; `stops`: those at
    which it is decided what is trained next."""
    cells: dict[str, list[ForecastRun]] = {}
    for run in forecast.runs:
        cells.setdefault(repr((run.setup, run.point)), []).append(run)
    points = [runs[0].point for runs in cells.values()]
    varying = [
        key for key in dict.fromkeys(chain(*points))
        if len({repr(point[key]) for point in points if point.get(key) is not None}) > 1
    ]  # fmt: skip
    pace = forecast.pace if forecast.pace >= BUSY else 1.0
    rows = [("seeds", "training", "disk", "cell")]
    for runs in cells.values():
        trained = [run for run in runs if run.trains]
        rough = "≈ " if any(run.rough for run in trained) else ""
        cost = rough + duration(pace * sum(run.seconds for run in trained)) if trained else ""
        size = decimal(sum(run.bytes for run in trained)) if trained else ""
        point = point_words({key: runs[0].point.get(key) for key in varying})
        rows.append((_states(runs), cost, size, runs[0].setup + f" at {point}" * bool(point)))
    wide, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [f"{seeds:{wide}}  {cost:>{widths[0]}}  {size:>{widths[1]}}  {cell}"
             for seeds, cost, size, cell in rows]  # fmt: skip
    total = f"{counted(len(forecast.runs), 'run')} in {counted(len(cells), 'cell')}"
    lines.append(f"{total}: {_states(forecast.runs)}")
    training = sum(run.trains for run in forecast.runs)
    if not training:
        return [*lines, "nothing to train"]
    idle = f", without that about {duration(forecast.seconds)}"
    busy = f", {SLOWED}{idle}" if pace >= BUSY else ""
    seconds = pace * forecast.seconds
    later = timedelta(seconds=min(seconds - forecast.seconds, LATEST))
    finish = datetime.fromisoformat(forecast.finish).astimezone() + later
    today = seconds < 24 * 3600
    free = free_bytes(Path(forecast.path))
    short = ", which is not enough" if forecast.bytes > free else ""
    return [
        *lines,
        f"to train: {training}, about {duration(seconds)} with "
        f"{counted(forecast.workers, 'worker')}, done at "
        f"{finish:{'%H:%M' if today else '%Y-%m-%d %H:%M'}}; "
        f"{decimal(forecast.bytes)} of {decimal(free)} free{short}",
        f"estimated from {_bases(forecast.runs)}{busy}",
        *([_at_least(forecast, pace, looks, stops)] if stops else []),
    ]


def _bases(runs: Iterable[ForecastRun]) -> str:
    """What the costs rest on: `finished runs and steps of 8 images (evaluations: reckoned)`."""
    return listing(dict.fromkeys(run.basis for run in runs if run.trains), "and")


def _at_least(forecast: Forecast, pace: float, looks: Sequence[int], stops: Sequence[int]) -> str:
    """What the next look of a study takes; the forecast itself is of all that may follow."""
    turn = turns(forecast.runs)
    waiting = [run for run in forecast.runs if run.trains]
    seeds = next(n for n in looks or stops if any(turn[run.seed] < n for run in waiting))
    some = [run for run in waiting if turn[run.seed] < seeds]
    least = duration(pace * _clock(some, turn, forecast.workers))
    raced = f"values are given up in tuning from {counted(stops[0], 'seed')} on" * (
        len(stops) > len(looks)
    )
    judged = f"claims are judged at {listing(map(str, looks), 'and')} seeds" if looks else ""
    return (
        f"that is the most: {', '.join(filter(None, (raced, judged)))}; the next look, at {seeds}, "
        f"takes {'at most ' * bool(raced)}{len(some)} of these runs, about {least}, later ones "
        "what is needed then"
    )
