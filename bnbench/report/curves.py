"""Learning curves as a figure: a panel for each value of an axis, a line for each setup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bnbench.store import RunFolder

# Okabe & Ito 2008, https://jfly.uni-koeln.de/color/: told apart by colour-blind readers, too.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")

Curve = tuple[list[int], list[float]]
"""Images seen, and what was read there."""


@dataclass(frozen=True, slots=True)
class Learning:
    """One run's validation accuracy, and the images that it had seen when it diverged, if so."""

    running: Curve
    batch: Curve
    diverged_at: int | None


def learning_curves(runs: Sequence[RunFolder], *, axis: str) -> Figure:
    """Validation accuracy against images seen, with running and with batch statistics.

    `runs` of one experiment; `axis`: the swept key that gets a panel for each of its values. Each
    seed is a line of its own: few seeds have no honest band.
    """
    curves: dict[Any, dict[str, list[Learning]]] = {}
    for run in runs:
        manifest = run.manifest() or {}
        panel = curves.setdefault(manifest["point"][axis], {})
        panel.setdefault(manifest["setup"], []).append(_learning(run))
    setups = list(dict.fromkeys(setup for panel in curves.values() for setup in panel))
    colors = dict(zip(setups, COLORS, strict=False))

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels: list[Axes] = list(figure.subplots(1, len(curves), sharey=True, squeeze=False)[0])
    for axes, value in zip(panels, sorted(curves), strict=True):
        for setup in setups:
            _draw(axes, curves[value].get(setup, []), setup, colors[setup])
        axes.set_title(f"{axis} = {value:g}", fontsize=10)
        axes.set_xlabel("training images seen")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("validation accuracy")
    panels[0].set_ylim(0, 1)
    panels[-1].plot([], [], "k-", lw=1.5, label="running statistics")
    panels[-1].plot([], [], "k:", lw=1.5, label="batch statistics")
    if any(
        seed.diverged_at for panel in curves.values() for seeds in panel.values() for seed in seeds
    ):
        panels[-1].plot([], [], "kx", ms=8, mew=2, label="diverged")
    figure.legend(
        *panels[-1].get_legend_handles_labels(), loc="outside right center", frameon=False
    )
    return figure


def _learning(run: RunFolder) -> Learning:
    curves: dict[str, Curve] = {"running": ([], []), "batch": ([], [])}
    diverged_at = None
    for record in run.records():
        match record:
            case {"event": "eval", "split": "val", "stats": "running" | "batch" as statistics}:
                examples, accuracies = curves[statistics]
                examples.append(record["examples"])
                accuracies.append(record["accuracy"])
            case {"event": "diverged"}:
                diverged_at = record["examples"]
            case _:
                pass
    return Learning(curves["running"], curves["batch"], diverged_at)


def _draw(axes: Axes, seeds: list[Learning], setup: str, color: str) -> None:
    for number, seed in enumerate(seeds):
        axes.plot(*seed.running, color=color, lw=1.5, label=setup if number == 0 else None)
        axes.plot(*seed.batch, color=color, lw=1.5, ls=":")
        if seed.diverged_at is not None:
            axes.plot([seed.diverged_at], [0.02], color=color, marker="x", ls="", ms=8, mew=2)
