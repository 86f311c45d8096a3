"""The table that closes a single run: the same weights under three kinds of statistics."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bnbench.store import Record


def run_table(result: Record) -> Table:
    """Loss and accuracy of a completed run, by split and kind of statistics."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for kind in ("running", "batch", "population"):
        table.add_column(f"{kind} statistics", justify="right", no_wrap=True)
    for split in ("train", "val", "test"):
        readings = result[split]
        table.add_row(
            split,
            *(
                _reading(readings[kind]["loss"], readings[kind]["accuracy"])
                for kind in ("running", "batch", "population")
            ),
        )
    return table


def summary(result: Record) -> str:
    """One line: how the run ended and what it cost."""
    cost = (
        f"{result['steps']:,} steps, {result['examples']:,} images in "
        f"{result['train_seconds']:.1f} s of training ({result['images_per_second']:,.0f} "
        f"images/s), {result['evaluation_seconds']:.1f} s of evaluation"
    )
    if result["probe_seconds"]:
        cost += f", {result['probe_seconds']:.1f} s of probes"
    if result["state"] == "diverged":
        return f"diverged at step {result['step']}: {result['reason']}; {cost}"
    return f"completed: {cost}"


def _reading(loss: float | None, accuracy: float) -> str:
    return f"{accuracy:.1%}  loss {'–' if loss is None else f'{loss:.3f}'}"
