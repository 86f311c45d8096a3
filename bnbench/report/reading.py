"""From run folders to a study: what runs recorded, which runs were planned."""

from __future__ import annotations

from array import array
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, nan
from typing import Any

from bnbench import store
from bnbench.config import experiments, identity, loading, plans, schema
from bnbench.errors import BnbenchError, ConfigError, DataError, StorageError, UsageError
from bnbench.garbage import uncollected
from bnbench.report.study import OtherRun, StudiedRun, Study
from bnbench.store.run_folder import METRICS
from bnbench.wording import column_words, cut, told_apart

Series = dict[int, float]
"""Values by training images seen; NaN where one was not finite."""


_POINT = 5  # numbers of a point of a curve: examples, steps, seconds, loss, accuracy


@dataclass(slots=True)
class Curve:
    """One split under one kind of statistics: a point for each evaluation.

    `examples`: training images seen; `seconds`: of training work. A loss that was not finite is
    inf. `numbers`: all of a point, one after the other, in one array, since those of ten thousand
    runs fill the memory; what is read of it is a copy.
    """

    numbers: array[float] = field(default_factory=lambda: array("d"))

    @property
    def examples(self) -> list[int]:
        return [int(each) for each in self.numbers[0::_POINT]]

    @property
    def steps(self) -> list[int]:
        return [int(each) for each in self.numbers[1::_POINT]]

    @property
    def seconds(self) -> array[float]:
        return self.numbers[2::_POINT]

    @property
    def loss(self) -> array[float]:
        return self.numbers[3::_POINT]

    @property
    def accuracy(self) -> array[float]:
        return self.numbers[4::_POINT]


@dataclass(slots=True)
class History:
    """Everything but the losses of single steps.

    `curves`: by split and kind of statistics. `gaps`: the last gap of each split. `probes`: series
    by probe, layer and name, layers in the order of the network. `evaluated`: images seen, and
    looked at, at each evaluation on validation. `correct`: which test images were right at the end,
    a bit each, by kind of statistics, after the number of images. `diverged_at`: images seen.
    """

    curves: dict[tuple[str, str], Curve] = field(default_factory=dict)
    gaps: dict[str, dict[str, float]] = field(default_factory=dict)
    probes: dict[str, dict[str, dict[str, Series]]] = field(default_factory=dict)
    evaluated: list[tuple[int, int]] = field(default_factory=list)
    correct: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    diverged_at: int | None = None


def read_history(run: store.RunRecord) -> History:
    """Read a run's events. Raises StorageError where they are damaged."""
    found = History()
    for record in run.folder.records(without=("step", "histogram", "confusion")):
        match record["event"]:
            case "eval":
                key = record["split"], record["stats"]
                curve = found.curves.get(key) or found.curves.setdefault(key, Curve())
                if key == ("val", "running"):
                    found.evaluated.append((record["examples"], record["images"]))
                loss, accuracy = record["loss"], record["accuracy"]
                scores = inf if loss is None else loss, nan if accuracy is None else accuracy
                place = record["examples"], record["step"], record["train_seconds"]
                curve.numbers.extend((*place, *scores))
            case "gap":
                names = ("loss", "accuracy", "disagreement", "kl")
                gap = {name: nan if record[name] is None else record[name] for name in names}
                found.gaps[record["split"]] = gap
            case "probe":
                layers = found.probes.setdefault(record["probe"], {})
                series = layers.setdefault(record["layer"], {}).setdefault(record["name"], {})
                value = record["value"]
                series[record["examples"]] = nan if value is None else value
            case "correct" if record["split"] == "test":
                found.correct[record["stats"]] = _correct(record, found, run)
            case "diverged":
                found.diverged_at = record["examples"]
            case _:
                pass
    return found


def _correct(record: store.Record, found: History, run: store.RunRecord) -> tuple[int, bytes]:
    """The images of an event and their bits. Raises DamagedError where these are not as many, or
    not those of the accuracy that was stated with them."""
    images, stated = record["images"], found.curves.get(("test", record["stats"]))
    try:
        bits = b64decode(record["bits"], validate=True)
    except ValueError:
        bits = b""
    number = int.from_bytes(bits)
    padding = 8 * len(bits) - images
    right = number.bit_count() / images if images > 0 else nan
    if not 0 <= padding < 8 or number % 2**padding or stated is None:
        raise store.damaged(run.folder.path / METRICS, "not a bit for each test image")
    if not abs(right - stated.accuracy[-1]) < 1e-9:
        raise store.damaged(run.folder.path / METRICS, "its test images have another accuracy")
    return images, bits


def choose_study(folder: store.ExperimentFolder, number: int | None) -> store.ExperimentFolder:
    """The study of this number in a folder, or its only one.

    Raises UsageError, which says which there are.
    """
    there = folder.studies()
    if number is None and len(there) < 2:
        return there[0] if there else folder
    for each in there:
        if each.study == number:
            return each
    known = [f"{each.study} ({_asked(each)})" for each in there]
    raise UsageError(
        f"{folder.path} holds {'the studies ' + cut(known) if known else 'single runs only'}",
        do="report takes one of several studies with --study NUMBER",
    )


def _asked(study: store.ExperimentFolder) -> str:
    try:
        experiment = loading.load_experiment(study.file)
    except BnbenchError:
        return "its file cannot be read"
    return experiment.question or plans.grid(experiment)


@uncollected()
def read_study(folder: store.ExperimentFolder) -> Study:
    """Read an experiment with all that its runs recorded. A damaged run does not hide the others.

    Where the experiment has no file, or one that cannot be read, its runs are single ones. Raises
    UsageError where there is no run, and what is wrong with the file where there is nothing else.
    """
    try:
        study = None if folder.content() is None else _planned_runs(folder)
    except (ConfigError, DataError, StorageError) as error:
        if not folder.runs():
            raise
        why = error.what.partition("\n")[0].rstrip(".")
        note = (
            f"The experiment's file cannot be read, so that its question, claims and axes are not "
            f"known and each configuration is a row of its own: {why}."
        )
        study = replace(_single_runs(folder), notes=(note,))
    study = study or _single_runs(folder)
    if not any(run.state != "new" for run in study.runs):
        there = [f"{each.called} ({each.state})" for each in study.others]
        others = f", but runs that are not of it: {cut(there)}" if there else ""
        what = "of this study " if there else ""
        raise UsageError(
            f"{folder.path} has no run {what}yet{others}",
            do=f"bnbench sweep {folder.file} trains {'what is missing' if there else 'them'}",
        )
    return replace(study, notes=(*study.notes, *_unevenly_evaluated(study)))


def _unevenly_evaluated(study: Study) -> Iterator[str]:
    """Which cells have seeds that were not evaluated at the same points of training."""
    uneven = [
        study.named(cell)
        for cell in study.cells
        if any(run.history.evaluated != cell.completed[0].history.evaluated
               for run in cell.completed)
    ]  # fmt: skip
    if uneven:
        yield (
            f"Not all seeds of {cut(uneven)} were evaluated at the same points of training and on "
            "as many images (train.evaluations, train.evaluation_images): what is read off curves, "
            "as examples_to_target, is not comparable between them; final scores are. "
            "bnbench sweep --restart trains all alike."
        )


def _planned_runs(folder: store.ExperimentFolder) -> Study:
    """Raises ConfigError, DataError and StorageError where the experiment's file cannot be read."""
    if not (folder.content() or b"").strip():  # as it is written, it has a name at least
        raise DataError(
            f"{folder.file} is empty", do="restore it, or remove it: its runs are there without it"
        )
    experiment = loading.load_experiment(folder.file)
    from bnbench.report.looks import asked  # which reads runs by this module

    planned = results_of(experiment, plans.stored(experiment), folder, events=True)
    study, there = asked(planned), {run.name for run in planned.runs}
    others = [each for each in folder.runs() if each.name not in there]
    under = f" under profile {experiment.profile}" if experiment.profile else ""
    reason = f"the experiment's file does not describe it{under}"
    left = {run.name for run in planned.runs if run.state != "new"} - {
        run.name for run in study.runs
    }
    unasked = [folder.run(name) for name in sorted(left)]
    return replace(
        study,
        others=(
            *_others(others, study.runs, reason),
            *_others(unasked, study.runs, "no look has asked for it"),
        ),
    )


def results_of(
    experiment: experiments.ExperimentConfig,
    configs: Iterable[schema.RunConfig],
    folder: store.ExperimentFolder,
    *,
    events: bool = False,
) -> Study:
    """The runs of a plan with their results; what they recorded on the way only if asked for."""
    configs = list(configs)
    folders = folder.folders_of(map(identity.run_id, configs))
    found = zip(configs, folders, strict=True)
    runs = (_read_run(*each, events=events) for each in found)
    return Study(experiment, folder, tuple(runs))


def _single_runs(folder: store.ExperimentFolder) -> Study:
    """Runs that no file plans: each configuration is a cell, named by what tells it apart."""
    found: dict[tuple[str, int], StudiedRun] = {}
    others, copies = list[OtherRun](), list[store.RunFolder]()
    first: experiments.ExperimentConfig | None = None
    problem: BnbenchError | None = None
    for each in folder.runs():
        try:
            each.config_text()  # raises where it is a link
            experiment = loading.load_experiment(each.path / "config.yaml")
            run = _read_run(plans.expand(experiment).only(), each, events=True)
        except BnbenchError as error:
            problem, why = error, str(error).partition("\n")[0]
            others += _others([each], (), f"its configuration cannot be read: {why}")
            continue
        first = first or experiment
        if run.manifest is not None:  # a custom file may have changed since
            run = replace(run, cell=store.cell_of(run.manifest))
        before = found.setdefault((run.cell, run.seed), run)
        if before.state == "damaged":  # it may be a copy, in a folder of another name
            found[run.cell, run.seed] = run
        if before is not run:
            copies.append(folder.run((before if before.state == "damaged" else run).name))
    others += _others(copies, list(found.values()), "")
    if first is None:
        raise problem or UsageError(f"{folder.path} has no run yet")
    swept = dict.fromkeys(key for run in found.values() for key in run.config.swept)
    firsts = {run.cell: run for run in reversed(found.values())}
    points = {cell: {key: identity.value_at(run.config, key) for key in swept}
              for cell, run in firsts.items()}  # fmt: skip
    apart = told_apart(
        {cell: ((run.setup, repr(points[cell])), _row(run)) for cell, run in firsts.items()}
    )
    setups = {
        cell: ", ".join((run.setup, *column_words(apart[cell]))) for cell, run in firsts.items()
    }
    runs = tuple(
        replace(run, setup=setups[run.cell], point=points[run.cell]) for run in found.values()
    )
    return Study(first, folder, runs, tuple(others))


def _others(
    folders: Sequence[store.RunFolder], runs: Sequence[StudiedRun], reason: str
) -> tuple[OtherRun, ...]:
    """Runs that are not of a study, by names that no run of it has.

    `reason`: unless a folder has the wrong name, as a copy has.
    """
    there = {(run.cell, run.seed): run for run in runs}
    manifests = {each.name: each.manifest_or_none() for each in folders}
    rows = {run.cell: (run.setup, _row(run)) for run in runs} if any(manifests.values()) else {}
    for each in manifests.values():
        if each is not None:
            rows.setdefault(store.cell_of(each), (each["setup"], each["hparams"]))
    apart = told_apart(rows)
    found = []
    for folder in folders:
        record, manifest = store.read(folder), manifests[folder.name]
        called, why = folder.name, reason
        if manifest is not None:
            cell, seed = store.cell_of(manifest), manifest["seed"]
            called = ", ".join((manifest["setup"], *column_words(apart[cell]), f"seed {seed}"))
            holds, twin = store.other_run(manifest, folder.name), there.get((cell, seed))
            if holds is not None and (twin is None or twin.state == "new"):
                why = f"its folder, {folder.name}, holds the run {holds}"
            elif twin is not None:
                why = f"it is a copy of {twin.name}"
        score = None if record.result is None else record.result.score("test", "running")
        accuracy = None if score is None else score.accuracy
        found.append(OtherRun(folder, called, record.state, accuracy, why))
    return tuple(found)


def _row(run: StudiedRun) -> Mapping[str, Any]:
    """What tells a run's configuration from others, by dotted key."""
    return identity.hparams(run.config) if run.manifest is None else run.manifest["hparams"]


def _read_run(config: schema.RunConfig, folder: store.RunFolder, *, events: bool) -> StudiedRun:
    record = store.read(folder, whole=events)
    history = History()
    try:
        if events and record.state not in ("damaged", "new"):
            history = read_history(record)
    except StorageError as error:
        record = store.RunRecord(folder, "damaged", problem=error.what)
    return StudiedRun(
        config,
        config.setup,
        identity.point(config),
        identity.cell_key(config),
        record.folder.name,
        record.state,
        record.result,
        record.problem,
        record.manifest,
        history,
    )
