"""Means and bands over the seeds of each configuration: TensorBoard runs in `seed-bands/…`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

from bnbench.board.views import refresh
from bnbench.config.identity import folder_part
from bnbench.errors import StorageError
from bnbench.events import Evaluation, Gap, Moment
from bnbench.sinks.metrics import to_moments
from bnbench.sinks.scalars import tagged
from bnbench.sinks.tensorboard.records import encoded, record, scalars, text, version
from bnbench.sinks.tensorboard.tabs import BANDS, BY_BATCH_SIZE, Band
from bnbench.stats.differences import SEEDS_FOR_AN_INTERVAL, Range, mean
from bnbench.store import ExperimentFolder, Record, RunFolder, cell_of, read
from bnbench.store.run_folder import RESULT
from bnbench.wording import counted, told_apart

FOLDER = "seed-bands"
FILE = "events.out.tfevents.0000000000.bands"
BATCH_SIZE = "data.batch_size"
_AVERAGED = {band.of for band in (*BANDS, BY_BATCH_SIZE)}
BAND = f"its 95 % interval, from {SEEDS_FOR_AN_INTERVAL} seeds on"


Curves: TypeAlias = dict[str, dict[int, float]]
"""Of a run: by tag, values by images seen."""


@dataclass(frozen=True, slots=True)
class Seed:
    """What means over seeds need of a run that has begun. `curves`: of a completed one."""

    manifest: Record
    state: str
    curves: Curves


@dataclass(slots=True)
class Replicates:
    """Runs that differ in their seed alone, by their manifests; `manifest`: that of the first.

    `batch_size`: images of a batch in training. `curves`: by completed seed. `left_out`: other
    states.
    """

    name: str
    manifest: Record
    batch_size: int
    curves: dict[int, Curves] = field(default_factory=dict)
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


def write_seed_bands(
    experiment: ExperimentFolder, seeds: Iterable[Seed] | None = None
) -> list[str]:
    """Write mean and 95 % interval over completed seeds, in place of earlier ones. Returns which
    means lack seeds, in sentences; of runs that cannot be read `rebuild` tells.

    `seeds`: those of its runs that can be read, where they are known, in the order of their names.
    A band is within what is possible: an accuracy is at most 1. One or two seeds have a line and no
    band.
    Raises StorageError where nothing can be written.
    """
    notes: list[str] = []
    written: dict[str, bytes] = {}
    families: dict[str, list[Replicates]] = {}
    known = filter(None, map(seed_of, experiment.runs())) if seeds is None else seeds
    for each in _replicates(known):
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


def _replicates(seeds: Iterable[Seed]) -> list[Replicates]:
    """In the order of the runs' names, without what says no batch size; each with a name of its
    own."""
    found: dict[str, Replicates] = {}
    for run in seeds:
        manifest = run.manifest
        with suppress(KeyError, ValueError):
            size = int(manifest["hparams"][BATCH_SIZE])
            new = Replicates(manifest["cell"].rpartition("_")[0], manifest, size)
            each = found.setdefault(cell_of(manifest), new)
            if run.state == "completed":
                each.curves[manifest["seed"]] = run.curves
            else:
                each.left_out[run.state] += 1
    rows = {cell: (each.name, each.manifest["hparams"]) for cell, each in found.items()}
    for cell, apart in told_apart(rows).items():
        found[cell].name += "".join(f"_{folder_part(*column)}" for column in apart.items())
    return list(found.values())


def seed_of(folder: RunFolder) -> Seed | None:
    """What its folder says; None where it has not begun, or cannot be read."""
    run, curves = read(folder), Curves()
    if run.manifest is None:
        return None
    if run.state == "completed":
        try:
            records = folder.records(without=("step", "probe", "histogram", "confusion", "correct"))
            for _ in noted(to_moments(records), curves):
                pass
        except (StorageError, KeyError, ValueError):
            return None
    return Seed(run.manifest, run.state, curves)


def noted(moments: Iterable[Moment], curves: Curves) -> Iterator[Moment]:
    """The moments as they are, while their values that are averaged go into `curves`."""
    for moment in moments:
        for fact in moment.facts:
            if isinstance(fact, Evaluation | Gap):
                for tag, value in tagged(fact).items():
                    if tag in _AVERAGED:
                        curves.setdefault(tag, {})[moment.examples] = value
        yield moment


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
