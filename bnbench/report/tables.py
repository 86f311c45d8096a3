"""Tables for the terminal, at most 80 columns wide: of cells, of setups, of a single run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bnbench.report import words
from bnbench.report.study import Study, short_names
from bnbench.store import Record, Result, Score
from bnbench.wording import in_words

STATISTICS = ("running", "batch", "population")


def new_table(first: str, *rest: str) -> Table:
    """A table without lines: a column of names, and columns of numbers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="ellipsis", no_wrap=True)
    for heading in rest:
        table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading))
    return table


def closing_tables(study: Study) -> list[RenderableType]:
    """What ends a sweep, to be printed one below the other: the question, what was compared, the
    results."""
    from bnbench.report.rows import cell_row  # SciPy takes a while

    shown: list[RenderableType] = []
    if study.experiment.question:
        shown.append(Text(study.experiment.question))
    if len(study.setups) > 1:
        ended = [run.manifest for run in study.runs if run.result is not None and run.manifest]
        shown.append(setups_table(ended))
    rows = [cell_row(cell, study) for cell in study.cells]
    said = "accuracy with running statistics; gap: running − batch statistics (val)"
    if any(row["completed"] > 1 for row in rows):
        said += "; ±: 95 % interval"
    tuned = study.tuned_axis if study.choices else None
    table = cells_table(rows, list(study.axes), tuned, ("val_accuracy", "test_accuracy"))
    if tuned is not None:
        said += f"\n*: {tuned} chosen on validation"
    table.caption = Text(said)
    return [*shown, table]


def cells_table(
    cells: Sequence[Record], axes: Sequence[str], tuned: str | None, accuracies: Sequence[str]
) -> Table:
    """A line for each row of `rows.cell_row`; those that tuning chose have a star."""
    headings = [f"{name.removesuffix('_accuracy')} %" for name in accuracies]
    table = new_table("setup", *short_names(axes).values(), *headings, "gap", "img/s", "seeds")
    for cell in cells:
        metrics = cell["metrics"]
        speed = metrics["images_per_second"]
        star = "*" if cell["chosen"] and cell["point"].get(tuned) is not None else ""
        table.add_row(
            escape(cell["setup"]) + star,
            *(escape(value_words(cell["point"].get(axis))) for axis in axes),
            *(_percent(metrics[name]) for name in accuracies),
            _percent(metrics["gap"], sign=True),
            "–" if speed is None else f"{speed['mean']:,.0f}",
            _seeds(cell),
        )
    table.caption_justify = "left"
    return table


def value_words(value: object) -> str:
    """A value of an axis, – where it has no meaning."""
    if value is None:
        return "–"
    return in_words(tuple(value) if isinstance(value, list) else value)


def _percent(metric: Record | None, *, sign: bool = False) -> str:
    if metric is None:
        return "–"
    middle = words.percent(metric["mean"], sign=sign)
    if metric["interval"] is None:
        return middle
    low, high = metric["interval"]
    return f"{middle} ± {words.percent((high - low) / 2)}"


def _seeds(cell: Record) -> str:
    parts = [str(cell["completed"])] if cell["completed"] else []
    parts += [
        f"{cell[state]} {state}" for state in ("diverged", "failed", "missing") if cell[state]
    ]
    return " + ".join(parts)


def setups_table(manifests: Iterable[Record]) -> Table:
    """The size of each setup, side by side: whether they are fair opponents.

    `manifests`: of any runs; a setup whose size changes along an axis has several lines.
    """
    table = new_table("setup", "parameters", "trained", "normalization layers")
    keys = ("parameters", "trainable_parameters", "normalization_layers")
    rows = [(escape(each["setup"]), *(f"{each[key]:,}" for key in keys)) for each in manifests]
    for row in dict.fromkeys(rows):
        table.add_row(*row)
    return table


def run_table(result: Result) -> Table:
    """Loss and accuracy of a completed run, by split and kind of statistics."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for kind in STATISTICS:
        table.add_column(f"{kind} statistics", justify="right", no_wrap=True)
    for split in ("train", "val", "test"):
        table.add_row(split, *(_score(result.score(split, kind)) for kind in STATISTICS))
    return table


def _score(score: Score | None) -> str:
    if score is None:
        return "–"
    return f"{score.accuracy:.1%}  loss {'–' if score.loss is None else f'{score.loss:.3f}'}"


def run_summary(result: Result) -> str:
    """One line: how the run ended and what it cost."""
    cost = (
        f"{result.steps:,} steps, {result.examples:,} images in "
        f"{result.train_seconds:.1f} s of training ({result.images_per_second:,.0f} images/s), "
        f"{result.evaluation_seconds:.1f} s of evaluation"
    )
    if result.probe_seconds:
        cost += f", {result.probe_seconds:.1f} s of probes"
    if result.divergence is not None:
        return f"diverged at {result.divergence}; {cost}"
    return f"completed: {cost}"
