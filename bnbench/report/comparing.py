"""The answer of an experiment without claims: what its cells say.

Nothing is chosen over an axis that the file does not tune: the answer goes along it, setup by
setup. Accuracies are of test images under running statistics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

from bnbench.config.metrics import LR
from bnbench.report import words
from bnbench.report.quantities import over_seeds
from bnbench.report.remarks import (
    BATCH_SIZE,
    SHARED_BY,
    ends_of_grids,
    eval_mode,
    statistics_alone,
    with_batch_size,
)
from bnbench.report.study import Cell, Point, Study, ordered
from bnbench.stats.differences import SEEDS_FOR_AN_INTERVAL, Interval, mean, seeds_needed
from bnbench.stats.verdict import SEEDS_FOR_A_VERDICT, about
from bnbench.wording import counted, in_words, key_words, listing, point_words

DOWNWARDS = (BATCH_SIZE, SHARED_BY)
"""What is told from large to small: small batches are what is asked about."""
MOST_VALUES, MOST_ARMS, MOST_PATHS = 5, 6, 4
"""Of an axis, lines of a comparison, and values of other axes that are told one by one."""
POINT = 1.0
"""The difference, in percentage points, that is asked of seeds where no claim names one."""


class Arm(NamedTuple):
    """A setup at one value of each axis that is no number; its cells differ in numbers alone."""

    name: str
    cells: list[Cell]

    def at(self, point: Point) -> Cell | None:
        """The cell at these values."""
        return next((cell for cell in self.cells if cell.fits(point)), None)


def of_cells(study: Study) -> Iterator[str]:
    """The answer in sentences."""
    if not any(cell.completed for cell in study.cells):
        lost = study.count("diverged")
        why = f": {counted(lost, 'run')} diverged" if lost else ""
        yield f"No run has completed, so there is nothing to compare{why}."
        return
    axes = [key for key in study.varying if key != study.tuned_axis or not study.choices]
    numbers = [key for key in axes if len(study.axes[key]) > 1 and ordered(study.axes[key])]
    numbers.sort(key=LR.__eq__)
    arms = _arms(study, [key for key in axes if key not in numbers])
    if numbers:
        yield from _along(study, arms, numbers)
    else:
        yield from _ranked(study, [cell for arm in arms for cell in arm.cells])
    if study.choices:
        yield f"Each setup is at its best {key_words(study.tuned_axis or '')} on validation."
    yield from ends_of_grids(study)
    yield from eval_mode(study, POINT)


def _arms(study: Study, kinds: Sequence[str]) -> list[Arm]:
    """`kinds`: axes whose values have no order."""
    found: dict[str, list[Cell]] = {}
    for cell in study.chosen:
        found.setdefault(study.named(cell, kinds), []).append(cell)
    return [Arm(*each) for each in found.items()]


def _along(study: Study, arms: Sequence[Arm], axes: Sequence[str]) -> Iterator[str]:
    """Along the first axis, at each value of the others."""
    axis, *others = axes
    values = study.axes[axis][:: -1 if axis in DOWNWARDS else 1]
    points = [dict(zip(others, at, strict=True))
              for at in product(*(study.axes[key] for key in others))]  # fmt: skip
    for point in points[:MOST_PATHS]:
        yield _path(arms, axis, values, point)
    if len(points) > MOST_PATHS:
        left = counted(len(points) - MOST_PATHS, "other combination")
        yield f"{left} of {listing(map(key_words, others), 'and')}: see the table."
    if not others:
        yield from _changes(arms, axis, values)
        for value in dict.fromkeys((values[0], values[-1])):
            there = [cell for arm in arms if (cell := arm.at({axis: value}))]
            if len(arms) > 1:
                yield from _ranked(study, there, f"At {key_words(axis)} {in_words(value)} ")
    if BATCH_SIZE in axes:
        yield from with_batch_size(study)
        yield from statistics_alone(study)
    if LR in axes and len(arms) > 1:
        yield (
            f"No learning rate was chosen: with `tune: {{axis: {LR}}}` in the file, the report "
            "takes each setup's best one on validation, and nothing is trained twice."
        )


def _path(arms: Sequence[Arm], axis: str, values: Sequence[Any], point: Point) -> str:
    """The accuracies of each arm along the axis."""
    step = max(1, -(-(len(values) - 1) // (MOST_VALUES - 1)))
    shown = [*values[:-1:step], values[-1]]
    said = []
    for arm in arms[:MOST_ARMS]:
        cells = [arm.at({**point, axis: value}) for value in shown]
        null = arm.at({**point, axis: None})  # also of an arm to which the axis means nothing
        if all(cell is None or cell is null for cell in cells):
            cells, null = [null], None
        beside = f" (null: {_accuracy(null)})" if null else ""
        said.append(f"{arm.name} {' → '.join(map(_accuracy, cells))}{beside}")
    more = f"; {len(arms) - MOST_ARMS:,} more in the table" * (len(arms) > MOST_ARMS)
    where = f" at {point_words(point)}," * bool(point)
    few = f" ({len(shown)} of {len(values)} values)" * (len(shown) < len(values))
    return (
        f"Test accuracy in %,{where} {key_words(axis)} {' → '.join(map(in_words, shown))}{few}: "
        f"{'; '.join(said)}{more}."
    )


def _accuracy(cell: Cell | None) -> str:
    """Of a cell: its mean, or the values of one or two seeds, and which seeds came to nothing."""
    if cell is None:
        return "–"
    values = cell.values("test_accuracy")
    shown = values if len(values) < SEEDS_FOR_AN_INTERVAL else [mean(values).value]
    number, notes = "/".join(map(words.percent, shown)), ", ".join(_lost(cell))
    if not number:
        return notes or "–"
    return f"{number} ({notes})" if notes else number


def _lost(cell: Cell) -> list[str]:
    """Which of its seeds came to nothing, in words."""
    found = {
        "at chance": sum(run.at_chance for run in cell.runs),
        "diverged": cell.count("diverged"),
        "failed": cell.count("failed", "damaged"),
    }
    seeds = len(cell.runs)
    return [
        name if count == seeds else f"{count} of {seeds} {name}"
        for name, count in found.items()
        if count
    ]


def _changes(arms: Sequence[Arm], axis: str, values: Sequence[Any]) -> Iterator[str]:
    """From one end of the axis to the other, seed by seed, with intervals."""
    said = []
    for arm in arms[:MOST_ARMS]:
        first, last = (arm.at({axis: value}) for value in (values[0], values[-1]))
        if first is None or last is None or first is last:
            continue
        pairs = _pairs(last, first)
        if pairs and (sure := mean(pairs).interval):
            middle = words.difference(mean(pairs).value, "points")
            said.append(f"{arm.name} {middle} [{words.interval(_possible(sure), 'points')}]")
    if said:
        ends = f"{in_words(values[0])} to {in_words(values[-1])}"
        yield f"Change from {ends} at the same seeds [95 % interval]: {'; '.join(said)}."


def _pairs(first: Cell, second: Cell) -> list[float]:
    """Differences in percentage points at the seeds that both have completed."""
    mine, its = (
        {run.seed: value for run in cell.runs if (value := run.metric("test_accuracy")) is not None}
        for cell in (first, second)
    )
    return [100 * (mine[seed] - its[seed]) for seed in mine if seed in its]


def _possible(interval: Interval) -> Interval:
    """Accuracies differ by at most 100 points."""
    return Interval(max(interval.low, -100.0), min(interval.high, 100.0))


def _ranked(study: Study, cells: Sequence[Cell], where: str = "") -> Iterator[str]:
    """Which cell did best, by how much, and how sure that is. `where`: at which values all are."""
    there = sorted((cell for cell in cells if cell.completed), key=_mean, reverse=True)
    if not there:
        yield f"{where or 'Here '}no run completed."
        return
    first, *others = there
    name = first.setup if where else study.named(first)
    score = f"{words.over_seeds(over_seeds(first, 'test_accuracy'))} % test accuracy"
    score += f" ({', '.join([counted(len(first.completed), 'seed'), *_lost(first)])})"
    if others:
        second = others[0].setup if where else study.named(others[0])
        yield f"{where}{name} did best: {score}, {_lead(first, others[0], second)}."
    else:
        rest = "has a completed run" if len(cells) > 1 else "is there to compare it with"
        yield f"{where}{name} reached {score}; no other setup {rest}."


def _mean(cell: Cell) -> float:
    return mean(cell.values("test_accuracy")).value if cell.values("test_accuracy") else -1.0


def _lead(first: Cell, second: Cell, name: str) -> str:
    """By how much over the runner-up, seed by seed, how sure that is, and what would decide it."""
    pairs = _pairs(first, second)
    if not pairs:
        gap = words.difference(100 * (_mean(first) - _mean(second)), "points")
        return f"{gap} over {name}, with which it shares no completed seed"
    if not any(pairs):
        return f"the same as {name} at every seed"
    middle, ends = mean(pairs)
    if ends is None:
        each = listing((words.bare(pair, "points") for pair in pairs), "and")
        seeds = "the same seeds" if len(pairs) > 1 else "the one seed"
        way = "a direction, no more" if min(pairs) * max(pairs) > 0 else "they disagree"
        return (
            f"{each} points over {name} at {seeds}: {way}; {SEEDS_FOR_A_VERDICT} seeds are needed "
            "to decide it"
        )
    told = (
        f"{words.difference(middle, 'points')} over {name} (95 % interval "
        f"{words.interval(_possible(ends), 'points')}, {len(pairs)} seeds)"
    )
    if ends.low <= 0 <= ends.high:
        needed = max(seeds_needed(pairs, POINT) or 0, SEEDS_FOR_A_VERDICT)
        return (
            f"{told}: not decided, it leans towards {first.setup}; {about(needed)} seeds would "
            f"tell a difference of {POINT:g} point"
        )
    if len(pairs) < SEEDS_FOR_A_VERDICT:
        return f"{told}: indicative, {SEEDS_FOR_A_VERDICT} seeds are needed to decide it"
    return f"{told}; picked after looking, which flatters the lead, as a claim does not"
