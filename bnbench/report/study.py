"""An experiment on disk: the runs that it plans, grouped into cells, and what tuning chooses.

Runs that differ in more than the seed are never averaged, by whatever name they go. Tuning chooses
on validation, never on test: of the values with the fewest diverged seeds the best mean over seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from bnbench import store
from bnbench.config import experiments, identity, schema
from bnbench.wording import point_words

if TYPE_CHECKING:
    from bnbench.report.reading import History

Point: TypeAlias = Mapping[str, Any]
"""Values of the axes by dotted key; None where an axis has no meaning in a setup."""
Quantity: TypeAlias = Literal["accuracy", "loss"]


@dataclass(frozen=True, slots=True)
class StudiedRun:
    """A planned run and what is stored of it.

    `setup`: the arm of the comparison; of single runs that would be called the same, with what
    tells them apart. `cell`: the same for all seeds of a configuration, and only for them.
    `state`, `result`, `problem`: as in its `RunRecord`. `manifest`: None if it has not begun or is
    damaged. `history`: empty if it was not asked for.
    """

    config: schema.RunConfig
    setup: str
    point: Point
    cell: str
    name: str
    state: store.State
    result: store.Result | None
    problem: str | None
    manifest: store.Record | None
    history: History

    @property
    def seed(self) -> int:
        """Which repetition it is."""
        return self.config.seed

    @property
    def classes(self) -> int | None:
        """How many the images are of; None where that is not stored."""
        names = (self.manifest or {}).get("classes")
        return len(names) if isinstance(names, list) and names else None

    @property
    def may_have_a_gap(self) -> bool:
        """Whether running and batch statistics can differ; of custom code, unless losses do not."""
        if "custom" not in (self.config.model.kind, self.config.norm.kind):
            return isinstance(self.config.norm, schema.BatchStatistics)
        losses = {self.score("val", kind, "loss") for kind in ("running", "batch")}
        return None in losses or len(losses) > 1

    @property
    def at_chance(self) -> bool:
        """Whether it completed and did not learn: `within_chance` on test, whether with running or
        with batch statistics."""
        scores = self.score("test"), self.score("test", "batch")
        best = max((score for score in scores if score is not None), default=None)
        return self.state == "completed" and best is not None and within_chance(best, self.classes)

    def score(
        self, split: str, statistics: str = "running", quantity: Quantity = "accuracy"
    ) -> float | None:
        """A final score; None for a run that did not complete and for a loss that is not finite."""
        score = None if self.result is None else self.result.score(split, statistics)
        return None if score is None else _finite(getattr(score, quantity))

    def metric(self, name: str) -> float | None:
        """One of `METRICS` of a completed run, if it is finite."""
        if self.result is None or self.state != "completed":
            return None
        if name in ("images_per_second", "train_seconds"):
            return _finite(getattr(self.result, name))
        if name == "gap":
            running, batch = self.score("val"), self.score("val", "batch")
            if running is None or batch is None or not self.may_have_a_gap:
                return None
            return running - batch
        if name == "population_accuracy":
            return self.score("test", "population")
        return self.score(name.removesuffix("_accuracy"))


def within_chance(accuracy: float, classes: int | None) -> bool:
    """Whether guessing does about as well; not known without the number of classes."""
    return classes is not None and accuracy < chance_level(classes)


def chance_level(classes: int) -> float:
    """Below it an accuracy is within chance: 1.5 times 1/classes, but at most 5 points above it.
    With ten classes 15 %."""
    return min(1.5 / classes, 1 / classes + 0.05)


METRICS = {
    "val_accuracy": (0.0, 1.0),
    "test_accuracy": (0.0, 1.0),
    "population_accuracy": (0.0, 1.0),
    "images_per_second": (0.0, inf),
    "train_seconds": (0.0, inf),
    "gap": (-1.0, 1.0),
}
"""With the range of possible values. Accuracies are fractions under running statistics, but for
`population_accuracy`, of test images under population statistics; costs are of training work; the
gap is validation accuracy under running minus under batch statistics."""


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and isfinite(value) else None


class OtherRun(NamedTuple):
    """A run in the folder that is not of the study, and why.

    `called`: by setup, values and seed. `test_accuracy`: a fraction, under running statistics.
    """

    folder: store.RunFolder
    called: str
    state: store.State
    test_accuracy: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One configuration, with its seeds: a setup at one value of every axis."""

    setup: str
    point: Point
    runs: tuple[StudiedRun, ...]

    @property
    def key(self) -> str:
        """The `cell` of its runs."""
        return self.runs[0].cell

    @property
    def completed(self) -> list[StudiedRun]:
        """The runs with final scores."""
        return [run for run in self.runs if run.state == "completed"]

    def count(self, *states: str) -> int:
        """How many of its runs are in these states."""
        return sum(run.state in states for run in self.runs)

    def values(self, name: str) -> list[float]:
        """One of `METRICS` for each run that has it."""
        return [value for run in self.runs if (value := run.metric(name)) is not None]

    def validation(self, quantity: Quantity = "accuracy") -> dict[int, float | None]:
        """What cells are chosen by: for each seed with a result its validation score, None where
        the run diverged or the score is not finite."""
        ended = (run for run in self.runs if run.result is not None)
        return {run.seed: run.score("val", quantity=quantity) for run in ended}

    def fits(self, point: Point) -> bool:
        """Whether it has these values; an axis without a meaning fits all."""
        return identity.fits(self.runs[0].config, point)


class Choice(NamedTuple):
    """The value of the tuned axis that a setup takes at its values `at` of the other axes."""

    setup: str
    at: dict[str, Any]
    value: Any
    values: tuple[Any, ...]

    @property
    def at_edge(self) -> bool:
        """Whether the choice is an end of the grid: there may be a better value outside of it."""
        return len(self.values) > 1 and ordered(self.values) and self.value not in self.values[1:-1]


def ordered(values: Iterable[Any]) -> bool:
    """Whether values of an axis have an order, as words, lists, true and false have not."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


@dataclass(frozen=True)
class Study:
    """An experiment and its runs, in the order of the plan; no run twice. `notes`: what a reader
    must know of how they were read. `given_up`: the `cell` of those that racing gives up."""

    experiment: experiments.ExperimentConfig
    folder: store.ExperimentFolder
    runs: tuple[StudiedRun, ...]
    others: tuple[OtherRun, ...] = ()
    notes: tuple[str, ...] = ()
    given_up: frozenset[str] = frozenset()

    @cached_property
    def setups(self) -> list[str]:
        """Names of the setups, in the order of the file."""
        return list(dict.fromkeys(run.setup for run in self.runs))

    @cached_property
    def axes(self) -> dict[str, list[Any]]:
        """The values of each axis, sorted where they can be."""
        found: dict[str, list[Any]] = {}
        for run in self.runs:
            for key, value in run.point.items():
                values = found.setdefault(key, [])
                if value is not None and value not in values:
                    values.append(value)
        return {key: _sorted(values) for key, values in found.items() if values}

    @cached_property
    def varying(self) -> list[str]:
        """The axes with several values, or with one beside null in a setup."""
        return [key for key, values in self.axes.items() if len(values) > 1 or len(
            {(run.setup, repr(run.point.get(key))) for run in self.runs}) > len(self.setups)
        ]  # fmt: skip

    @cached_property
    def seeds(self) -> list[int]:
        """Every planned seed."""
        return sorted({run.seed for run in self.runs})

    @cached_property
    def classes(self) -> int | None:
        """How many the images are of, if that is the same in all runs that say it."""
        found = {run.classes for run in self.runs if run.classes}
        return found.pop() if len(found) == 1 and found != {1} else None

    @cached_property
    def cells(self) -> list[Cell]:
        """The runs grouped by configuration, setups together."""
        grouped: dict[str, list[StudiedRun]] = {}
        for run in self.runs:
            grouped.setdefault(run.cell, []).append(run)
        cells = [Cell(runs[0].setup, runs[0].point, tuple(runs)) for runs in grouped.values()]
        return sorted(cells, key=lambda cell: self.setups.index(cell.setup))

    @property
    def tuned_axis(self) -> str | None:
        """The axis of which each setup takes its best value, or None."""
        return None if self.experiment.tune is None else self.experiment.tune.axis

    @property
    def tuned_by(self) -> Quantity:
        """On validation."""
        tune = self.experiment.tune
        return "loss" if tune is not None and tune.by.endswith("loss") else "accuracy"

    @cached_property
    def trials(self) -> list[list[Cell]]:
        """The cells among which each setup chooses, at each value of the others; null is one."""
        axis, groups = self.tuned_axis or "", dict[str, list[Cell]]()
        for cell in self.cells:
            if identity.value_at(cell.runs[0].config, axis, identity.ANY) is not identity.ANY:
                along = repr((cell.setup, sorted(_others(cell, axis).items())))
                groups.setdefault(along, []).append(cell)
        return list(groups.values())

    def taken(self, cells: Sequence[Cell]) -> Cell | None:
        """Which of `trials` is the best that is not given up; None without a result."""
        return best_of((cell for cell in cells if cell.key not in self.given_up), self.tuned_by)

    @cached_property
    def _choices(self) -> list[tuple[list[Cell], Choice]]:
        axis, found = self.tuned_axis or "", []
        for cells in self.trials:
            if (best := self.taken(cells)) is not None:
                tried = [cell.point[axis] for cell in cells]
                values = tuple(each for each in (*self.axes.get(axis, ()), None) if each in tried)
                choice = Choice(best.setup, _others(best, axis), best.point[axis], values)
                found.append((cells, choice))
        return found

    @property
    def choices(self) -> list[Choice]:
        """For each of `trials` with a result; [] where nothing is tuned."""
        return [choice for _, choice in self._choices]

    @cached_property
    def choice(self) -> dict[str, Choice]:
        """What tuning chose among a cell and its neighbours along the tuned axis, by its key."""
        return {cell.key: choice for cells, choice in self._choices for cell in cells}

    def is_chosen(self, cell: Cell) -> bool:
        """Whether tuning chose this cell, or had nothing to choose."""
        taken = self.choice.get(cell.key)
        return taken is None or cell.point.get(self.tuned_axis or "") == taken.value

    @cached_property
    def chosen(self) -> list[Cell]:
        """The cells that tuning chose: all of them where nothing is tuned."""
        return [cell for cell in self.cells if self.is_chosen(cell)]

    @cached_property
    def best(self) -> dict[str, Cell]:
        """Of each setup its best chosen cell on validation, of setups with a result."""
        found = {setup: best_at(self.chosen, setup, {}) for setup in self.setups}
        return {setup: cell for setup, cell in found.items() if cell is not None}

    def count(self, *states: str) -> int:
        """How many runs are in these states."""
        return sum(run.state in states for run in self.runs)

    def named(self, cell: Cell, keys: Iterable[str] | None = None) -> str:
        """A cell by its setup and its values of these keys, unless others are given of all that
        varies: `bn (batch size 32, learning rate 0.1)`."""
        keys = self.varying if keys is None else keys
        said = point_words({key: cell.point.get(key) for key in keys})
        return f"{cell.setup} ({said})" if said else cell.setup


def best_of(cells: Iterable[Cell], by: Quantity = "accuracy") -> Cell | None:
    """The best cell on validation: the fewest diverged seeds, then the best mean over seeds. None
    without a result."""

    def rank(cell: Cell) -> tuple[float, float]:
        scores = cell.validation(by).values()
        finite = [score for score in scores if score is not None]
        mean = sum(finite) / len(finite) if finite else inf
        return len(finite) / len(scores), mean if by == "accuracy" else -mean

    return max((cell for cell in cells if cell.validation(by)), key=rank, default=None)


def best_at(cells: Iterable[Cell], setup: str, point: Point) -> Cell | None:
    """The setup's best cell on validation at these values; None without a result."""
    return best_of(cell for cell in cells if cell.setup == setup and cell.fits(point))


def _others(cell: Cell, axis: str) -> dict[str, Any]:
    return {key: value for key, value in cell.point.items() if key != axis}


def _sorted(values: list[Any]) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:
        return values
