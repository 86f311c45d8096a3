"""TensorBoard's files of runs, rewritten from their folders.

Each run's files also describe its experiment: the HParams tab and the charts show what the first
run that TensorBoard finds says of all of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TypeAlias

from bnbench import events
from bnbench.config import identity, loading, plans, schema
from bnbench.errors import BnbenchError, DamagedError, StorageError
from bnbench.sinks import metrics
from bnbench.sinks.scalars import Scalars
from bnbench.sinks.tensorboard import tabs
from bnbench.sinks.tensorboard.records import is_whole
from bnbench.sinks.tensorboard.sink import Card, TensorBoardSink, header
from bnbench.store import ExperimentFolder, Record, RunFolder, cell_of
from bnbench.wording import column_words, in_words, printable, told_apart

Row: TypeAlias = Mapping[str, tabs.Plain]
"""A run's configuration: plain values by dotted key."""

HEADERS = "events.out.tfevents.*.hparams"
ABOUT = (
    "**Step = images seen**, so that runs with different batch sizes align. "
    "**Relative time = seconds of training work** (evaluation and logging left out). "
    "`progress/optimizer_step` and `progress/epoch` translate."
)


@dataclass(frozen=True)
class Description:
    """What the runs of an experiment have in common, and what they differ in.

    `question`: as in the experiment's file. `rows`: a configuration for each run, or for one of
    its seeds. `cells`: names of what replicates share, by its hash. `probes`: names of those that
    any run has. `diverged`: whether any run did.
    """

    question: str | None = None
    rows: tuple[Row, ...] = ()
    cells: Mapping[str, str] = field(default_factory=dict)
    probes: frozenset[str] = frozenset()
    diverged: bool = False
    single: bool = False

    @cached_property
    def groups(self) -> Mapping[str, str]:
        """Names of rows by the hash of what replicates share: without it where that is enough."""
        short = {cell: name.rpartition("_")[0] for cell, name in self.cells.items()}
        often = Counter(short.values())
        return {
            cell: name if often[short[cell]] > 1 else short[cell]
            for cell, name in self.cells.items()
        }

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Those of the HParams tab that can differ: where nothing diverged a column would be
        zeros, and where nothing has batch statistics some would be zeros or the same."""
        kinds = schema.BLOCKS["norm"].models.items()
        batched = {kind for kind, model in kinds if issubclass(model, schema.TwoModes)}
        gap = any(
            row.get("norm.kind") in batched or row.get("model.kind") == "custom"
            for row in self.rows
        )
        left_out = set() if self.diverged else {tabs.DIVERGED_SHARE}
        left_out |= set() if gap else set(tabs.OF_BATCH_STATISTICS)
        return tuple(tag for tag in tabs.METRICS if tag not in left_out)

    @cached_property
    def columns(self) -> tuple[tabs.Column, ...]:
        return tabs.columns(self.rows)

    @cached_property
    def about(self) -> str:
        """The setups next to each other, as Markdown."""
        return side_by_side(_told_apart(self.rows) if self.single else self.rows)


def describe(experiment: ExperimentFolder, *, own: Record | None = None) -> Description:
    """From the experiment's file and the runs that are there.

    `own`: the manifest of a run that asks for itself. Where the file describes that run, the
    others need not be looked at.
    """
    content = experiment.content()
    planned = Description() if content is None else _planned(experiment.file, content)
    if own is not None and own["hparams"] in planned.rows:
        return planned
    runs = experiment.runs()
    rows = {tuple(row.items()): row for row in planned.rows}
    cells, probes = dict(planned.cells), set(planned.probes)
    for manifest in (*map(RunFolder.manifest_or_none, runs), own):
        if manifest is not None:
            rows.setdefault(tuple(manifest["hparams"].items()), manifest["hparams"])
            cells.setdefault(cell_of(manifest), manifest["cell"])
            probes.update(manifest.get("probes", ()))
    return Description(
        planned.question,
        tuple(rows.values()),
        cells,
        frozenset(probes),
        any(map(_diverged, runs)),
        content is None,
    )


def _diverged(run: RunFolder) -> bool:
    try:
        result = run.result()
    except StorageError:  # as good as none
        return False
    return result is not None and result.state == "diverged"


@lru_cache(maxsize=4)  # a worker asks once for each of its runs
def _planned(path: Path, content: bytes) -> Description:  # noqa: ARG001 - part of the cache's key
    try:
        experiment = loading.load_experiment(path)
        runs = plans.stored(experiment)
    except StorageError:
        raise
    except BnbenchError:  # a file that it names has moved: the runs themselves say enough
        return Description()
    first = [run for run in runs if run.seed == runs[0].seed]
    return Description(
        experiment.question,
        tuple(identity.hparams(run) for run in first),
        {identity.cell_key(run): identity.cell(run) for run in first},
        frozenset(name for run in first for name in run.probes.chosen()),
    )


def open_view(folder: RunFolder) -> TensorBoardSink:
    """Rewrite a run's files from what its folder holds; further moments go into the sink.

    Raises StorageError where the folder is damaged, or not of this version of bnbench.
    """
    manifest = folder.manifest()
    if manifest is None:
        raise StorageError(
            f"{folder.path / 'manifest.json'} does not say what the run is",
            do="train the run again with --restart",
        )
    description = describe(ExperimentFolder(folder.path.parent), own=manifest)
    return rewritten(folder, manifest, description, metrics.to_moments(folder.records()))


def rewritten(
    folder: RunFolder, manifest: Record, description: Description, moments: Iterable[events.Moment]
) -> TensorBoardSink:
    """`open_view`, where it is known what the folder and its experiment say."""
    with _damage_of(folder), ExitStack() as stack:
        card = _card(folder, manifest, description)
        folder.clear_views()
        folder.replace_views(HEADERS, *header(card))
        view = TensorBoardSink(folder.path, card, Scalars(manifest))
        stack.enter_context(closing(view))
        view.take_all(moments)
        stack.pop_all()
        return view


@contextmanager
def _damage_of(folder: RunFolder) -> Iterator[None]:
    """Whatever cannot be shown of a run is damage of this run."""
    try:
        yield
    except BnbenchError:
        raise
    except Exception as error:
        raise DamagedError(
            f"{folder.path} cannot be shown ({type(error).__name__}: {error})",
            do="was it written by another version of bnbench?",
        ) from error


def refresh(experiment: ExperimentFolder) -> int:
    """Update what every run says of an experiment that has grown; the number of files written.

    Raises StorageError.
    """
    description = describe(experiment)
    written = 0
    for folder in experiment.runs():
        manifest = folder.manifest_or_none()
        if manifest is None or not folder.views():
            continue
        try:
            with _damage_of(folder):
                name, content = header(_card(folder, manifest, description))
        except DamagedError:
            continue  # as good as before
        if [path.name for path in folder.path.glob(HEADERS)] != [name]:
            folder.replace_views(HEADERS, name, content)
            written += 1
    return written


def survey(experiment: ExperimentFolder) -> list[str]:
    """What TensorBoard will not show of an experiment, and why: sentences."""
    runs = experiment.runs()
    if not runs:
        return [f"{experiment.path} has no runs yet: they appear as soon as they begin"]
    command = f"bnbench tensorboard --rebuild {experiment.name}"
    said = []
    if bare := [run for run in runs if not run.views()]:
        said.append(f"{_have(bare)} no curves: {command} writes those of runs that have begun")
    if torn := [run for run in runs if not all(map(is_whole, run.views())) and not run.held()]:
        said.append(
            f"{_have(torn)} a torn event file, which is shown as far as it goes: {command} fixes it"
        )
    return said


def _have(runs: list[RunFolder]) -> str:
    return f"{runs[0].name} has" if len(runs) == 1 else f"{len(runs)} runs have"


def _card(folder: RunFolder, manifest: Record, description: Description) -> Card:
    question = f"**{_as_text(description.question)}**\n\n" if description.question else ""
    about = f"{question}{ABOUT}\n\n{_facts(manifest)}\n\n{description.about}"
    return Card(
        started=manifest["started"],
        group=description.groups.get(cell_of(manifest), manifest["cell"]),
        hparams=manifest["hparams"],
        columns=description.columns,
        metrics=description.metrics,
        probes=tuple(sorted(description.probes)),
        texts={"about": about, "configuration": f"```yaml\n{folder.config_text() or ''}```"},
        classes=tuple(manifest["classes"]),
        first_batch=folder.first_batch(),
        pictures=folder.pictures(),
    )


def _facts(manifest: Record) -> str:
    point = ", ".join(f"{key} {value}" for key, value in manifest["point"].items())
    lines = {
        "setup": _as_text(manifest["setup"] + (f" ({point})" if point else "")),
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


def _told_apart(rows: Iterable[Row]) -> list[Row]:
    """Single runs of a setup that differ, each with what tells it from the others in its name."""
    known = {repr(sorted(row.items())): row for row in rows}
    apart = told_apart({key: (row["setup"], row) for key, row in known.items()})
    return [
        {**row, "setup": ", ".join((str(row["setup"]), *column_words(apart[key])))}
        for key, row in known.items()
    ]


def side_by_side(rows: Iterable[Row]) -> str:
    """A Markdown table: a column for each setup, a line for each key in which setups differ, or
    which one of them alone has.

    Empty where there is one setup.
    """
    found: dict[str, dict[str, dict[str, None]]] = {}  # words, by key and setup
    for row in rows:
        setup = _as_text(str(row["setup"]))
        for key, value in row.items():
            found.setdefault(key, {}).setdefault(setup, {})[_as_text(in_words(value))] = None
    setups = found.pop("setup", {})
    if len(setups) < 2:
        return ""
    lines = [["", *setups], ["---"] * (1 + len(setups))]
    for key, of_setups in found.items():
        values = {setup: ", ".join(words) for setup, words in of_setups.items()}
        # What all setups that have a key have alike goes with the kind: TensorBoard shows a few
        # lines.
        if len(set(values.values())) > 1 or len(values) == 1:
            lines.append([key, *(values.get(setup, "–") for setup in setups)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _as_text(words: str) -> str:
    """Words that mean nothing in Markdown, on one line."""
    return re.sub(r"[\\`*_\[\]<>|]", r"\\\g<0>", " ".join(printable(words, keep="\n").split()))
