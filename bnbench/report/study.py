"""A whole experiment as it lies on disk: which runs were meant, and what each of them has stated.

No verdicts here: `quantities` reduces runs to numbers, `verdicts` compares them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, isfinite, nan
from typing import Any

from bnbench import config as configuration
from bnbench.config import ExperimentConfig, Plan, run_id, schema
from bnbench.errors import BnbenchError, StorageError, UsageError
from bnbench.store import ExperimentFolder, Record, RunFolder, read


@dataclass(slots=True)
class Curve:
    """One split under one kind of statistics over training, a point an evaluation.

    `examples`: images seen; `seconds`: of training work. A loss that was not finite is inf.
    """

    examples: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)


@dataclass(slots=True)
class History:
    """What a run has stated beside the losses of its steps.

    `gaps`: the last gap of each split. `probes`: of each probe, layer and name the values by images
    seen, layers in the order of the network; what was not finite is NaN.
    """

    curves: dict[tuple[str, str], Curve] = field(default_factory=dict)
    gaps: dict[str, dict[str, float]] = field(default_factory=dict)
    probes: dict[str, dict[str, dict[str, dict[int, float]]]] = field(default_factory=dict)
    diverged_at: int | None = None  # images seen


@dataclass(frozen=True, slots=True)
class StudiedRun:
    """One run that was meant, and how it stands.

    `state`: as in `bnbench status`. `result`: where it has one. `problem`: why it failed, or what
    of it cannot be read.
    """

    config: schema.RunConfig
    folder: RunFolder
    point: dict[str, Any]
    state: str
    result: Record | None
    manifest: Record | None
    history: History
    problem: str | None = None

    @property
    def setup(self) -> str:
        """The arm of the comparison."""
        return self.config.setup

    @property
    def seed(self) -> int:
        """Which repetition it is."""
        return self.config.seed

    @property
    def done(self) -> bool:
        """Whether it reached a result: completed or diverged."""
        return self.result is not None


@dataclass(frozen=True, slots=True)
class Cell:
    """One setup at one value of every axis, with its seeds."""

    setup: str
    point: dict[str, Any]
    runs: tuple[StudiedRun, ...]

    @property
    def completed(self) -> list[StudiedRun]:
        """The runs with final readings."""
        return [run for run in self.runs if run.state == "completed"]

    def count(self, *states: str) -> int:
        """How many of its runs are in these states."""
        return sum(run.state in states for run in self.runs)


@dataclass(frozen=True)
class Study:
    """An experiment, its runs in the order in which they were meant.

    `others`: how many runs lie in the folder that the experiment's file does not describe.
    """

    experiment: ExperimentConfig
    folder: ExperimentFolder
    runs: tuple[StudiedRun, ...]
    others: int = 0

    @cached_property
    def setups(self) -> list[str]:
        """Names of the setups, in the order of the file."""
        return list(dict.fromkeys(run.setup for run in self.runs))

    @cached_property
    def axes(self) -> dict[str, list[Any]]:
        """What varies beside setup and seed, with its values, sorted where they can be."""
        found: dict[str, list[Any]] = {}
        for run in self.runs:
            for key, value in run.point.items():
                values = found.setdefault(key, [])
                if value is not None and value not in values:
                    values.append(value)
        return {key: _sorted(values) for key, values in found.items() if values}

    @cached_property
    def cells(self) -> list[Cell]:
        """The runs grouped by setup and point, setups together."""
        grouped: dict[tuple[str, str], list[StudiedRun]] = {}
        for run in self.runs:
            grouped.setdefault((run.setup, repr(sorted(run.point.items()))), []).append(run)
        cells = [Cell(runs[0].setup, runs[0].point, tuple(runs)) for runs in grouped.values()]
        return sorted(cells, key=lambda cell: self.setups.index(cell.setup))

    @cached_property
    def seeds(self) -> list[int]:
        """Every seed that was meant."""
        return sorted({run.seed for run in self.runs})

    def count(self, *states: str) -> int:
        """How many runs are in these states."""
        return sum(run.state in states for run in self.runs)


def _sorted(values: list[Any]) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:
        return values


def study(folder: ExperimentFolder) -> Study:
    """Read an experiment. Damaged runs count as such; they do not hide the others.

    Raises UsageError where there is no run, ConfigError and StorageError where the experiment's own
    file cannot be read.
    """
    experiment, plan = _planned(folder)
    runs = tuple(_run(config, folder) for config in plan)
    if not any(run.state != "new" for run in runs):
        raise UsageError(
            f"{folder.path} has no run yet", do=f"bnbench sweep {folder.file} trains them"
        )
    planned = {run.folder.name for run in runs}
    others = sum(each.name not in planned for each in folder.runs())
    return Study(experiment, folder, runs, others)


def _planned(folder: ExperimentFolder) -> tuple[ExperimentConfig, Sequence[schema.RunConfig]]:
    """The experiment of the folder's file; of single runs, the first and all of them."""
    if folder.content() is not None:
        experiment = configuration.load_experiment(folder.file)
        plan: Plan = configuration.expand(experiment)
        return experiment, plan.runs
    found: list[tuple[ExperimentConfig, schema.RunConfig]] = []
    problem: BnbenchError | None = None
    for run in folder.runs():
        try:
            single = configuration.load_experiment(run.path / "config.yaml")
            found.append((single, configuration.expand_one(single)))
        except BnbenchError as error:
            problem = error
    if not found:
        raise problem or UsageError(f"{folder.path} has no run yet")
    return found[0][0], [run for _, run in found]


def _run(config: schema.RunConfig, folder: ExperimentFolder) -> StudiedRun:
    run = folder.run(run_id(config))
    point = configuration.point(config)
    found = read(run)
    result = None if found.result is None else found.result.as_record()
    try:
        told = history(run) if found.state not in ("new", "damaged") else History()
        manifest = found.manifest if found.state != "damaged" else None
        return StudiedRun(config, run, point, found.state, result, manifest, told, found.problem)
    except (StorageError, KeyError, TypeError) as error:
        problem = error.what if isinstance(error, StorageError) else f"an event lacks {error}"
        return StudiedRun(config, run, point, "damaged", None, None, History(), problem)


def history(run: RunFolder) -> History:
    """Read a run's events. Raises StorageError, KeyError and TypeError where they are damaged."""
    found = History()
    for record in run.records(without=("step", "histogram", "confusion")):
        match record["event"]:
            case "eval":
                key = record["split"], record["stats"]
                curve = found.curves.setdefault(key, Curve())
                curve.examples.append(record["examples"])
                curve.steps.append(record["step"])
                curve.seconds.append(record["train_seconds"])
                curve.loss.append(inf if record["loss"] is None else record["loss"])
                curve.accuracy.append(record["accuracy"])
            case "gap":
                names = ("loss", "accuracy", "disagreement", "kl")
                read = {name: record[name] for name in names}
                found.gaps[record["split"]] = {
                    name: nan if value is None else value for name, value in read.items()
                }
            case "probe":
                layers = found.probes.setdefault(record["probe"], {})
                values = layers.setdefault(record["layer"], {}).setdefault(record["name"], {})
                value = record["value"]
                values[record["examples"]] = nan if value is None else value
            case "diverged":
                found.diverged_at = record["examples"]
            case _:
                pass
    return found


def reading(run: StudiedRun, *path: str) -> float | None:
    """A finite number of a completed run's result, e.g. of "test", "running", "accuracy"; None
    where there is none: a damaged file, a loss that was not finite, a run without an end."""
    found: Any = run.result if run.state == "completed" else None
    for part in path:
        found = found.get(part) if isinstance(found, dict) else None
    number = isinstance(found, int | float) and not isinstance(found, bool)
    return float(found) if number and isfinite(found) else None


def cell_words(point: dict[str, Any], varying: Sequence[str]) -> str:
    """The values of what varies, e.g. `batch_size 32, lr 0.1`; "" where nothing does."""
    names = short_names(varying)
    return ", ".join(
        f"{names[key]} {configuration.in_words(point[key])}"
        for key in varying
        if point.get(key) is not None
    )


def short_names(axes: Sequence[str]) -> dict[str, str]:
    """The last part of each dotted key; where two would be called the same, what the runs' ids
    call it (`bs`, `nbs`), or all of it."""
    ends = [axis.rpartition(".")[2] for axis in axes]
    return {
        axis: configuration.SHORT_NAMES.get(axis, axis) if ends.count(end) > 1 else end
        for axis, end in zip(axes, ends, strict=True)
    }


def by_seed(runs: Sequence[StudiedRun]) -> Iterator[tuple[int, list[StudiedRun]]]:
    """The runs of each seed, seeds ascending."""
    seeds: dict[int, list[StudiedRun]] = {}
    for run in runs:
        seeds.setdefault(run.seed, []).append(run)
    yield from sorted(seeds.items())
