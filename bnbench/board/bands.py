"""Means and bands over the seeds of each cell: TensorBoard runs of their own, `seed-bands/…`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from bnbench.board.views import refresh
from bnbench.errors import StorageError
from bnbench.events import Evaluation, Gap
from bnbench.sinks.metrics import to_fact
from bnbench.sinks.tensorboard.records import encoded, record, scalars, text, version
from bnbench.sinks.tensorboard.sink import tagged
from bnbench.sinks.tensorboard.tabs import BANDS, BY_BATCH_SIZE, Band
from bnbench.stats.differences import mean
from bnbench.store import ExperimentFolder, Record, RunRecord, read

FOLDER = "seed-bands"
FILE = "events.out.tfevents.0000000000.bands"
BATCH_SIZE = "data.batch_size"


@dataclass(slots=True)
class Cell:
    """The replicates of one setup at one value of every axis."""

    name: str
    manifest: Record
    seeds: list[int] = field(default_factory=list)
    curves: list[dict[str, dict[int, float]]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def around(self) -> tuple[str, str]:
        """The setup and its values beside the batch size, and what a folder calls them."""
        others = {key: value for key, value in self.manifest["point"].items() if key != BATCH_SIZE}
        part = f"_bs{self.manifest['hparams'][BATCH_SIZE]:03d}"
        return repr((self.manifest["setup"], sorted(others.items()))), self.name.replace(part, "")


def keep_up(experiment: ExperimentFolder, warn: Callable[[str], None]) -> None:
    """Let TensorBoard's files tell what the experiment has become. They are a view: what cannot be
    written is a warning."""
    try:
        refresh(experiment)
        write_seed_bands(experiment)
    except StorageError as error:
        warn(f"warning: TensorBoard's files are not up to date: {error}")


def write_seed_bands(experiment: ExperimentFolder) -> list[str]:
    """Write mean and 95 % interval over completed seeds for each cell; what was left out, in
    sentences. Earlier bands are thrown away.

    A band is cut to what is possible: an accuracy is at most 1. One seed has a line and no band.
    Raises StorageError where nothing can be written.
    """
    notes: list[str] = []
    cells = _cells(experiment, notes)
    written: dict[str, bytes] = {}
    for cell in cells:
        lost = ", ".join(f"{count} {state}" for state, count in sorted(cell.left_out.items()))
        if lost:
            count = len(cell.seeds)
            band = f"the mean of {count} seed{'s' * (count > 1)}" if count else "no mean"
            notes.append(f"{cell.name}: {band}, without {lost}")
        if cell.seeds:
            written[cell.name] = _curves(cell, lost)
    by_size: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.seeds:
            by_size.setdefault(cell.around[0], []).append(cell)
    for group in by_size.values():
        if len(group) > 1:
            written[f"by-batch-size/{group[0].around[1]}"] = _by_batch_size(group)
    experiment.replace_views(FOLDER, FILE, written)
    return notes


def _cells(experiment: ExperimentFolder, notes: list[str]) -> list[Cell]:
    """In the order of the runs' names; each with a name of its own."""
    cells: dict[str, Cell] = {}
    for run in experiment.runs():
        try:
            found = read(run)
            manifest = found.manifest
            if manifest is None:
                continue
            name = str(manifest["cell"]).rsplit("_", 1)[0]
            cell = cells.setdefault(manifest["cell"], Cell(name, manifest))
            if found.state == "completed":
                cell.curves.append(_curves_of(found))
                cell.seeds.append(manifest["seed"])
            else:
                cell.left_out[found.state] += 1
        except (StorageError, KeyError, TypeError) as error:
            notes.append(f"{run.name}: not in a band: {error}")
    taken = Counter(cell.name for cell in cells.values())
    for identity, cell in cells.items():
        if taken[cell.name] > 1:
            cell.name = identity
    return list(cells.values())


def _curves_of(run: RunRecord) -> dict[str, dict[int, float]]:
    """Evaluations and gaps: values by images seen, by tag."""
    found: dict[str, dict[int, float]] = {}
    for each in run.events(without=("step",)):
        if each["event"] in ("eval", "gap"):
            fact = to_fact(each)
            assert isinstance(fact, Evaluation | Gap)
            for tag, value in tagged(fact).items():
                found.setdefault(tag, {})[each["examples"]] = value
    return found


def _curves(cell: Cell, lost: str) -> bytes:
    points: dict[int, dict[str, float]] = {}
    for band in BANDS:
        curves = [curve.get(band.of, {}) for curve in cell.curves]
        for step in sorted(set(curves[0]).intersection(*curves[1:])):
            values = _over_seeds(band, [curve[step] for curve in curves])
            points.setdefault(step, {}).update(values)
    seeds = ", ".join(map(str, sorted(cell.seeds)))
    about = f"Mean of the completed seeds ({seeds}); band: its 95 % interval."
    if lost:
        about += f" Not in it: {lost}."
    return _file(cell, points, about)


def _by_batch_size(cells: Sequence[Cell]) -> bytes:
    points = {}
    for cell in sorted(cells, key=lambda cell: int(cell.manifest["hparams"][BATCH_SIZE])):
        values = [
            value for curve in cell.curves for value in curve.get(BY_BATCH_SIZE.of, {}).values()
        ]
        size = int(cell.manifest["hparams"][BATCH_SIZE])
        points[size] = _over_seeds(BY_BATCH_SIZE, values)
    return _file(cells[0], points, "Step = batch size. Mean over seeds; band: its 95 % interval.")


def _over_seeds(band: Band, values: Sequence[float]) -> dict[str, float]:
    """Nothing where a value is not finite: it cannot be averaged, and must not be dropped."""
    try:
        average = mean(values)
    except ValueError:
        return {}
    half = average.half_width or 0.0
    return {
        band.tag: average.value,
        band.lower: max(average.value - half, band.lowest),
        band.upper: min(average.value + half, band.highest),
    }


def _file(cell: Cell, points: Mapping[int, Mapping[str, float]], about: str) -> bytes:
    at = partial(record, wall_time=cell.manifest["started"])
    records = [at([text("seed_bands", about)], step=0)]
    records += [at(scalars(values), step=step) for step, values in points.items() if values]
    return encoded([version(wall_time=cell.manifest["started"]), *records])
