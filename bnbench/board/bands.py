"""Means and bands over the seeds of each configuration: TensorBoard runs in `seed-bands/…`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bnbench.board.views import refresh
from bnbench.config.identity import folder_part
from bnbench.errors import StorageError
from bnbench.events import Evaluation, Gap
from bnbench.sinks.metrics import to_fact
from bnbench.sinks.scalars import tagged
from bnbench.sinks.tensorboard.records import encoded, record, scalars, text, version
from bnbench.sinks.tensorboard.tabs import BANDS, BY_BATCH_SIZE, Band
from bnbench.stats.differences import SEEDS_FOR_AN_INTERVAL, Range, mean
from bnbench.store import ExperimentFolder, Record, RunRecord, cell_of, read
from bnbench.store.run_folder import RESULT
from bnbench.wording import counted, told_apart

FOLDER = "seed-bands"
FILE = "events.out.tfevents.0000000000.bands"
BATCH_SIZE = "data.batch_size"
BAND = f"its 95 % interval, from {SEEDS_FOR_AN_INTERVAL} seeds on"


@dataclass(slots=True)
class Replicates:
    """Runs that differ in their seed alone, by their manifests; `manifest`: that of the first.

    `batch_size`: images of a batch in training. `curves`: by completed seed and tag, values by
    images seen. `left_out`: other states.
    """

    name: str
    manifest: Record
    batch_size: int
    curves: dict[int, dict[str, dict[int, float]]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def lost(self) -> str:
        """The seeds that are in no mean, in words."""
        return ", ".join(f"{count} {state}" for state, count in sorted(self.left_out.items()))


def update_tensorboard(experiment: ExperimentFolder, warn: Callable[[str], None]) -> None:
    """Update TensorBoard's files for the whole experiment, if its runs have any; failures are
    warnings."""
    try:
        if not any(run.views() for run in experiment.runs()):
            return
        refresh(experiment)
        write_seed_bands(experiment)
    except StorageError as error:
        warn(f"warning: TensorBoard's files are not up to date: {error}")


def lacks_results(experiment: ExperimentFolder) -> bool:
    """Whether a run has ended since the means were written, by the times of files."""
    ended = _times(experiment.path.glob(f"*/{RESULT}"))
    written = _times((experiment.path / FOLDER).rglob(FILE))
    return max(ended, default=0.0) > min(written, default=0.0)


def _times(paths: Iterable[Path]) -> Iterator[float]:
    for path in paths:
        with suppress(OSError):  # a run that begins again has removed it meanwhile
            yield path.lstat().st_mtime


def write_seed_bands(experiment: ExperimentFolder) -> list[str]:
    """Write mean and 95 % interval over completed seeds, in place of earlier ones. Returns which
    means lack seeds, in sentences; of runs that cannot be read `rebuild` tells.

    A band is within what is possible: an accuracy is at most 1. One or two seeds have a line and no
    band.
    Raises StorageError where nothing can be written.
    """
    notes: list[str] = []
    written: dict[str, bytes] = {}
    families: dict[str, list[Replicates]] = {}
    for each in _replicates(experiment):
        count = len(each.curves)
        if each.lost:
            band = f"the mean of {counted(count, 'seed')}" if count else "no mean"
            notes.append(f"{each.name}: {band}, without {each.lost}")
        if count:
            written[f"{each.name}/{FILE}"] = _over_training(each)
            rest = {**each.manifest["hparams"], BATCH_SIZE: None}
            families.setdefault(repr(sorted(rest.items())), []).append(each)
    for group in families.values():
        if len(group) == len({each.batch_size for each in group}) > 1:
            name = group[0].name.replace(f"_bs{group[0].batch_size:03d}", "")
            written[f"by-batch-size/{name}/{FILE}"] = _by_batch_size(group)
    if written or (experiment.path / FOLDER).exists():
        experiment.replace(FOLDER, f"**/{FILE}", written, synced=False)
    return notes


def _replicates(experiment: ExperimentFolder) -> list[Replicates]:
    """In the order of the runs' names, without what cannot be read; each with a name of its own."""
    found: dict[str, Replicates] = {}
    for run in map(read, experiment.runs()):
        manifest = run.manifest
        if manifest is None:
            continue
        with suppress(StorageError, KeyError, ValueError):
            size = int(manifest["hparams"][BATCH_SIZE])
            new = Replicates(manifest["cell"].rpartition("_")[0], manifest, size)
            each = found.setdefault(cell_of(manifest), new)
            if run.state == "completed":
                each.curves[manifest["seed"]] = _curves(run)
            else:
                each.left_out[run.state] += 1
    rows = {cell: (each.name, each.manifest["hparams"]) for cell, each in found.items()}
    for cell, apart in told_apart(rows).items():
        found[cell].name += "".join(f"_{folder_part(*column)}" for column in apart.items())
    return list(found.values())


def _curves(run: RunRecord) -> dict[str, dict[int, float]]:
    """Evaluations and gaps: values by images seen, by tag."""
    found: dict[str, dict[int, float]] = {}
    for each in run.folder.records(without=("step", "probe", "histogram", "confusion", "correct")):
        if each["event"] in ("eval", "gap"):
            fact = to_fact(each)
            assert isinstance(fact, Evaluation | Gap)
            for tag, value in tagged(fact).items():
                found.setdefault(tag, {})[each["examples"]] = value
    return found


def _over_training(runs: Replicates) -> bytes:
    points: dict[int, dict[str, float]] = {}
    for band in BANDS:
        curves = [curve.get(band.of, {}) for curve in runs.curves.values()]
        for step in sorted(set(curves[0]).intersection(*curves[1:])):
            values = _over_seeds(band, [curve[step] for curve in curves])
            points.setdefault(step, {}).update(values)
    seeds = ", ".join(map(str, sorted(runs.curves)))
    about = f"Mean of the completed seeds ({seeds}); band: {BAND}."
    return _file(runs, points, f"{about} Not in it: {runs.lost}." if runs.lost else about)


def _by_batch_size(group: Sequence[Replicates]) -> bytes:
    points = {}
    for runs in sorted(group, key=lambda runs: runs.batch_size):
        curves = (curve.get(BY_BATCH_SIZE.of, {}) for curve in runs.curves.values())
        values = [value for curve in curves for value in curve.values()]
        points[runs.batch_size] = _over_seeds(BY_BATCH_SIZE, values)
    return _file(group[0], points, f"Step = batch size. Mean over seeds; band: {BAND}.")


def _over_seeds(band: Band, values: Sequence[float]) -> dict[str, float]:
    """Nothing if a value is not finite: it cannot be averaged, and must not be dropped."""
    try:
        average = mean(values, within=Range(band.lowest, band.highest))
    except ValueError:
        return {}
    low, high = average.interval or (average.value, average.value)
    return {band.tag: average.value, band.lower: low, band.upper: high}


def _file(runs: Replicates, points: Mapping[int, Mapping[str, float]], about: str) -> bytes:
    started = runs.manifest["started"]
    at = partial(record, wall_time=started)
    records = [at([text("seed_bands", about)], step=0)]
    records += [at(scalars(values), step=step) for step, values in points.items() if values]
    return encoded([version(wall_time=started), *records])
