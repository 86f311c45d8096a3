"""From Python what the command line does: train a study, read one, show it in a notebook.

Both are made of the command line's own functions. Reading needs no PyTorch.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property, partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console

from bnbench import store
from bnbench.config import files, loading
from bnbench.errors import ConfigError, Fault, UsageError
from bnbench.report import record, writing
from bnbench.report.reading import choose_study, read_study
from bnbench.sinks.terminal import Screen
from bnbench.wording import cut, printable

if TYPE_CHECKING:
    import pandas

    from bnbench.sweeps.planned import PlannedExperiment

HEIGHT = 700
"""Of the report in a notebook, in pixels; the rest is scrolled to."""


class Study:
    """An experiment as it is on disk at this moment; in a notebook, its report.

    `record`: everything that the report says, as runs/README.md describes `report.json`.
    """

    def __init__(self, folder: store.ExperimentFolder) -> None:
        """Raises UsageError where there is no run, StorageError for what cannot be read."""
        self._read = read_study(folder)

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._read.folder.path

    @cached_property
    def _report(self) -> writing.Report:
        return writing.make(self._read)

    @property
    def record(self) -> store.Record:
        """The whole report, as data."""
        return self._report.record

    @property
    def verdicts(self) -> dict[str, store.Record]:
        """What the report judges: `outcome`, `effect` and the other keys of its claims, by id."""
        return {claim["id"]: claim for claim in self.record["claims"]}

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each run, with the columns of `report.csv`: `test/running/accuracy`, …

        Raises UsageError where pandas is not installed.
        """
        return _pandas().DataFrame([record.flat_row(run) for run in self._read.runs])

    def curves(self) -> pandas.DataFrame:
        """A row for each evaluation, with the names of `metrics.jsonl`: `split`, `stats`, `step`,
        `examples`, `train_seconds`, `loss`, `accuracy`; and the run's setup, axes and seed.

        Raises UsageError where pandas is not installed.
        """
        return _pandas().DataFrame(list(self._evaluations()))

    def _evaluations(self) -> Iterator[store.Record]:
        for run in self._read.runs:
            of_run = {"run": run.name, "setup": run.setup, **run.point, "seed": run.seed}
            for (split, kind), curve in run.history.curves.items():
                columns = (curve.steps, curve.examples, curve.seconds, curve.loss, curve.accuracy)
                names = ("step", "examples", "train_seconds", "loss", "accuracy")
                for values in zip(*columns, strict=True):
                    at = {"split": split, "stats": kind}
                    yield of_run | at | dict(zip(names, values, strict=True))

    def __repr__(self) -> str:
        """The answer, as the page begins with it."""
        asked = self._read.experiment.question or self._read.folder.name
        return "\n".join([asked, *self.record["answer"]])

    def _repr_html_(self) -> str:
        """The report's page: in a frame, so that neither its styles nor the notebook's leak."""
        page = escape(writing.page(self._report))
        style = f"width: 100%; height: {HEIGHT}px; border: 0"
        return f'<iframe title="bnbench report" srcdoc="{page}" style="{style}"></iframe>'


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise UsageError(
            "pandas is not installed", do="pip install pandas, or bnbench[pandas]"
        ) from None
    return pandas


def open(
    experiment: str | Path, *, runs_dir: str | Path = "runs", study: int | None = None
) -> Study:
    """What is on disk of an experiment: its name below `runs_dir`, its folder or its file.

    `study`: which one, where the folder holds several. Raises UsageError and StorageError, which
    say what there is.
    """
    name = str(experiment)
    found = store.find_experiment(Path(runs_dir), name, files.experiment_of(name))
    return Study(choose_study(found, study))


def sweep(
    study: str | Path | Mapping[str, Any],
    *,
    set: Mapping[str, Any] | None = None,
    over: Mapping[str, Sequence[Any]] | None = None,
    seeds: int | None = None,
    claims: Sequence[str] = (),
    max_runs: int = 10_000,
    workers: int | str = "auto",
    on: str = "local",
    address: str | None = None,
    slurm: Mapping[str, Any] | None = None,
    detach: bool = False,
    runs_dir: str | Path = "runs",
    device: str | None = None,
    retry_failed: bool = False,
    fail_fast: bool = False,
    into: bool = False,
    until: str | None = None,
    max_seeds: int | None = None,
    restart: bool = False,
    accept_changes: bool = False,
    no_custom: bool = False,
    quiet: bool = False,
) -> Study:
    """Train every run of an experiment that is missing, as `bnbench sweep` does; what it gives.

    `study`: a YAML file, the name of a shipped experiment, or what such a file says, as a mapping,
    whose paths start in the working directory. `set={"optim.lr": 0.1}` overrides a key,
    `over={"optim.lr": [0.03, 0.3]}` adds an axis, `claims=["flat"]` trains what this claim needs;
    everything else is as on the command line. Runs that failed are said, and in the report. The
    same call again continues. Raises ConfigError with all faults of the study, UsageError, and
    Interrupted, a KeyboardInterrupt, when it is stopped.
    """
    from bnbench.board.bands import update_tensorboard
    from bnbench.sweeps import experiments
    from bnbench.sweeps.jobs import SweepOptions

    # In a notebook plain text, too: rich's own output there wants widgets.
    console = Console(stderr=True, markup=False, emoji=False, quiet=quiet, force_jupyter=False)
    say = partial(_say, console)
    plan = partial(
        experiments.plan_all,
        overrides=_overrides(set or {}, over or {}, seeds, claims),
        no_custom=no_custom, max_runs=max_runs, runs_dir=Path(runs_dir), say=say, into=into,
        until=until, max_seeds=max_seeds,
    )  # fmt: skip
    settings = tuple(f"{key}={value}" for key, value in (slurm or {}).items())
    options = SweepOptions(
        workers=str(workers), on=on, address=address, slurm=settings, detach=detach, device=device,
        restart=restart, accept_changes=accept_changes, retry_failed=retry_failed,
        fail_fast=fail_fast,
    )  # fmt: skip
    with closing(experiments.executors([_planned(study, plan)], options, say)) as executors:
        planned, executor = next(executors)
        outcome = experiments.train(planned, executor, options, partial(_screen, console), say)
    update_tensorboard(planned.folder, say)
    for name, message in outcome.failures:
        say(f"failed: {name}: {message}")
    return Study(planned.folder)


def _say(console: Console, line: str) -> None:
    console.print(printable(line, keep="\n\t"), highlight=False, soft_wrap=True)


def _overrides(
    set: Mapping[str, Any],
    over: Mapping[str, Sequence[Any]],
    seeds: int | None,
    claims: Sequence[str],
) -> loading.Overrides:
    """As they are typed on the command line."""
    axes = {key: ", ".join(map(files.inline, values)) for key, values in over.items()}
    return loading.Overrides(
        set=tuple(f"{key}={files.inline(value)}" for key, value in set.items()),
        over=tuple(f"{key}={values}" for key, values in axes.items()),
        seeds=seeds,
        claims=tuple(claims),
    )


def _planned(
    study: str | Path | Mapping[str, Any], plan: Callable[[str], list[PlannedExperiment]]
) -> PlannedExperiment:
    """The plan of one experiment, checked. `plan`: plans those of a file."""
    if not isinstance(study, Mapping):
        found = plan(str(study))
        if len(found) > 1:
            names = cut([each.experiment.name for each in found])
            raise UsageError(f"{study} holds several experiments", do=f"name one of {names}")
        return found[0]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.yaml"
        file.write_text(files.dump_mapping(study, str(Path.cwd())), encoding="utf-8")
        try:
            return plan(str(file))[0]
        except ConfigError as error:
            raise ConfigError(_of_mapping(each, file) for each in error.faults) from None


def _of_mapping(fault: Fault, file: Path) -> Fault:
    """A fault of a mapping, which has no lines."""
    return replace(fault, where="study") if fault.where.startswith(str(file)) else fault


class Bar(Screen):
    """Progress in a notebook: one line of output, which is replaced, and goes away at the end."""

    def __enter__(self) -> Self:
        from IPython.display import display

        self._shown = display(self._bundle(0, "loading PyTorch …"), raw=True, display_id=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._shown.update({"text/plain": "", "text/html": ""}, raw=True)

    def _bundle(self, done: int, reading: str) -> dict[str, str]:
        bar = f'<progress value="{done}" max="{self.runs}"></progress> {escape(reading)}'
        return {"text/plain": reading, "text/html": bar}

    def _count(self, done: int, reading: str, *, estimated: bool) -> None:  # noqa: ARG002
        self._shown.update(self._bundle(done, reading), raw=True)

    def plain(self, line: str) -> None:
        """The bar says the same."""


def _screen(console: Console, runs: int) -> Screen:
    """What shows progress here: a bar in a notebook, else what a terminal shows."""
    python = sys.modules.get("IPython")
    shell = None if python is None else python.get_ipython()
    in_notebook = getattr(shell, "kernel", None) is not None and not console.quiet
    return Bar(console, runs=runs) if in_notebook else Screen(console, runs=runs)
