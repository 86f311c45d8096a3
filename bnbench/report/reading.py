"""From run folders to a study: what runs recorded, which runs were planned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf, nan

from bnbench import store
from bnbench.config import experiments, identity, loading, plans, schema
from bnbench.errors import BnbenchError, StorageError, UsageError
from bnbench.report.study import StudiedRun, Study

Series = dict[int, float]
"""Values by training images seen; NaN where one was not finite."""


@dataclass(slots=True)
class Curve:
    """One split under one kind of statistics: a point for each evaluation.

    `examples`: training images seen; `seconds`: of training work. A loss that was not finite is
    inf.
    """

    examples: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)


@dataclass(slots=True)
class History:
    """Everything but the losses of single steps.

    `curves`: by split and kind of statistics. `gaps`: the last gap of each split. `probes`: series
    by probe, layer and name, layers in the order of the network. `diverged_at`: images seen.
    """

    curves: dict[tuple[str, str], Curve] = field(default_factory=dict)
    gaps: dict[str, dict[str, float]] = field(default_factory=dict)
    probes: dict[str, dict[str, dict[str, Series]]] = field(default_factory=dict)
    diverged_at: int | None = None


def read_history(run: store.RunRecord) -> History:
    """Read a run's events. Raises StorageError, KeyError and TypeError where they are damaged."""
    found = History()
    for record in run.folder.records(without=("step", "histogram", "confusion")):
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
                gap = {name: nan if record[name] is None else record[name] for name in names}
                found.gaps[record["split"]] = gap
            case "probe":
                layers = found.probes.setdefault(record["probe"], {})
                series = layers.setdefault(record["layer"], {}).setdefault(record["name"], {})
                value = record["value"]
                series[record["examples"]] = nan if value is None else value
            case "diverged":
                found.diverged_at = record["examples"]
            case _:
                pass
    return found


def read_study(folder: store.ExperimentFolder) -> Study:
    """Read an experiment with all that its runs recorded. A damaged run does not hide the others.

    Raises UsageError where there is no run, ConfigError and StorageError where the experiment's own
    file cannot be read.
    """
    experiment, configs = _planned(folder)
    runs = tuple(_read_run(config, folder, events=True) for config in configs)
    if not any(run.state != "new" for run in runs):
        raise UsageError(
            f"{folder.path} has no run yet", do=f"bnbench sweep {folder.file} trains them"
        )
    planned = {run.name for run in runs}
    others = tuple(each for each in folder.runs() if each.name not in planned)
    return Study(experiment, folder, runs, others)


def results_of(
    experiment: experiments.ExperimentConfig,
    configs: Iterable[schema.RunConfig],
    folder: store.ExperimentFolder,
) -> Study:
    """The runs of a plan with their results; what they recorded on the way is not read."""
    runs = tuple(_read_run(config, folder, events=False) for config in configs)
    return Study(experiment, folder, runs)


def _planned(
    folder: store.ExperimentFolder,
) -> tuple[experiments.ExperimentConfig, Sequence[schema.RunConfig]]:
    """The experiment of the folder's file; of single runs, the first and all of them."""
    if folder.content() is not None:
        experiment = loading.load_experiment(folder.file)
        return experiment, plans.expand(experiment).runs
    found: list[tuple[experiments.ExperimentConfig, schema.RunConfig]] = []
    problem: BnbenchError | None = None
    for run in folder.runs():
        try:
            single = loading.load_experiment(run.path / "config.yaml")
            found.append((single, plans.expand(single).only()))
        except BnbenchError as error:
            problem = error
    if not found:
        raise problem or UsageError(f"{folder.path} has no run yet")
    return found[0][0], [run for _, run in found]


def _read_run(
    config: schema.RunConfig, folder: store.ExperimentFolder, *, events: bool
) -> StudiedRun:
    record = store.read(folder.run(identity.run_id(config)))
    manifest, history = None, History()
    try:
        if record.state != "damaged":
            manifest = record.manifest
        if events and record.state not in ("damaged", "new"):
            history = read_history(record)
    except (StorageError, KeyError, TypeError) as error:
        problem = error.what if isinstance(error, StorageError) else f"an event lacks {error}"
        record = store.RunRecord(record.folder, "damaged", problem=problem)
        manifest = None
    return StudiedRun(
        config,
        identity.point(config),
        record.folder.name,
        record.state,
        record.result,
        record.problem,
        manifest,
        history,
    )
