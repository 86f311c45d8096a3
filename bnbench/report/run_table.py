"""The table that closes a single run: the same weights under three kinds of statistics."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bnbench.store import Result, Score

KINDS = ("running", "batch", "population")


def run_table(result: Result) -> Table:
    """Loss and accuracy of a completed run, by split and kind of statistics."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for kind in KINDS:
        table.add_column(f"{kind} statistics", justify="right", no_wrap=True)
    for split in ("train", "val", "test"):
        table.add_row(split, *(_in_words(result.score(split, kind)) for kind in KINDS))
    return table


def summary(result: Result) -> str:
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


def _in_words(score: Score | None) -> str:
    if score is None:
        return "–"
    return f"{score.accuracy:.1%}  loss {'–' if score.loss is None else f'{score.loss:.3f}'}"
