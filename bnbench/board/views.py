"""TensorBoard's files of runs, anew from their folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bnbench.board.description import Description, describe
from bnbench.errors import BnbenchError, HeldError, StorageError
from bnbench.sinks import metrics
from bnbench.sinks.tensorboard.records import is_whole
from bnbench.sinks.tensorboard.sink import Card, TensorBoardSink, header
from bnbench.store import ExperimentFolder, Record, RunFolder

HEADERS = "events.out.tfevents.*.hparams"
ABOUT = (
    "**Step = images seen**, so that runs with different batch sizes align. "
    "**Relative time = seconds of training work** (evaluation and logging left out). "
    "`progress/optimizer_step` and `progress/epoch` translate."
)


@dataclass(slots=True)
class Rebuilt:
    """How many runs have new files, and what there is to say about the others."""

    runs: int = 0
    notes: list[str] = field(default_factory=list)


def open_view(folder: RunFolder) -> TensorBoardSink:
    """Write a run's files anew, from the events that are there; further ones go into the sink.

    Raises StorageError where the folder is damaged, or not of this version of bnbench.
    """
    manifest = _manifest(folder)
    description = describe(ExperimentFolder(folder.path.parent), own=manifest)
    card = _card(folder, manifest, description)
    folder.clear_views()
    folder.replace_views(HEADERS, *header(card))
    view = TensorBoardSink(folder.path, card)
    try:
        for moment in metrics.to_moments(folder.records()):
            view.take(moment)
    except (KeyError, TypeError) as error:
        view.close()
        raise StorageError(
            f"{folder.path / 'metrics.jsonl'} has an event that is unknown here ({error})",
            do="was it written by another version of bnbench?",
        ) from error
    except BaseException:
        view.close()
        raise
    return view


def rebuild(
    experiment: ExperimentFolder, *, advance: Callable[[RunFolder], None] = lambda _: None
) -> Rebuilt:
    """Write the files of every run anew. A run that another process trains is left alone.

    Raises StorageError where nothing can be written; a run that is damaged in itself is noted.
    """
    done = Rebuilt()
    for folder in experiment.runs():
        try:
            if folder.manifest() is None:
                continue  # it has not begun
            with folder.hold(wait_seconds=0.0):
                open_view(folder).close()
            done.runs += 1
        except HeldError:
            done.notes.append(f"{folder.name} is being trained: it writes its own")
        except BnbenchError as error:
            done.notes.append(f"{folder.name}: {error}")
        advance(folder)
    return done


def refresh(experiment: ExperimentFolder) -> int:
    """Tell every run what the experiment has become, for one that has grown: the HParams tab and
    the charts are those of the first run that TensorBoard finds. How many files that took.

    Raises StorageError.
    """
    description = describe(experiment)
    written = 0
    for folder in experiment.runs():
        manifest = folder.manifest_or_none()
        if manifest is None or "hparams" not in manifest or not folder.views():
            continue
        name, content = header(_card(folder, manifest, description))
        if [path.name for path in folder.path.glob(HEADERS)] != [name]:
            folder.replace_views(HEADERS, name, content)
            written += 1
    return written


def survey(experiment: ExperimentFolder) -> list[str]:
    """What TensorBoard will not show of an experiment, and why: sentences."""
    runs = experiment.runs()
    if not runs:
        return [f"{experiment.path} has no runs yet: they appear as soon as they begin"]
    said = []
    bare = [run for run in runs if not run.views()]
    if bare:
        said.append(
            f"{_counted(bare)} no curves: bnbench tensorboard --rebuild {experiment.name} "
            "writes those of runs that have begun"
        )
    torn = [run for run in runs if not all(map(is_whole, run.views())) and not run.held()]
    if torn:
        said.append(
            f"{_counted(torn)} a torn event file, which is shown as far as it goes: bnbench "
            f"tensorboard --rebuild {experiment.name} mends it"
        )
    return said


def _counted(runs: list[RunFolder]) -> str:
    return f"{runs[0].name} has" if len(runs) == 1 else f"{len(runs)} runs have"


def _manifest(folder: RunFolder) -> Record:
    manifest = folder.manifest()
    if manifest is None:
        raise StorageError(
            f"{folder.path / 'manifest.json'} does not say what the run is",
            do="train the run again with --restart",
        )
    return manifest


def _card(folder: RunFolder, manifest: Record, description: Description) -> Card:
    batch_size = manifest["hparams"]["data.batch_size"]
    question = f"**{description.question}**\n\n" if description.question else ""
    return Card(
        started=manifest["started"],
        examples_per_epoch=manifest["steps_per_epoch"] * batch_size,
        reports=-(-manifest["total_steps"] // manifest["log_every"]),
        group=manifest["cell"],
        hparams=manifest["hparams"],
        columns=description.columns,
        probes=description.probes,
        texts={
            "about": f"{question}{ABOUT}\n\n{_facts(manifest)}\n\n{description.setups}",
            "configuration": f"```yaml\n{folder.config_text() or ''}```",
        },
        classes=tuple(manifest["classes"]),
        first_batch=folder.first_batch(),
        pictures=folder.pictures(),
    )


def _facts(manifest: Record) -> str:
    point = ", ".join(f"{key} {value}" for key, value in manifest["point"].items())
    lines = {
        "setup": manifest["setup"] + (f" ({point})" if point else ""),
        "seed": manifest["seed"],
        "images": f"{manifest['train_images']:,} to train, "
        f"{manifest['validation_images']:,} to validate, {manifest['test_images']:,} to test",
        "budget": f"{manifest['total_steps']:,} steps of "
        f"{manifest['hparams']['data.batch_size']:,} images, "
        f"{manifest['steps_per_epoch']:,} an epoch",
        "parameters": f"{manifest['parameters']:,} ({manifest['trainable_parameters']:,} trained), "
        f"{manifest['normalization_layers']:,} normalization layers",
    }
    return "\n".join(f"- {name}: {value}" for name, value in lines.items())
