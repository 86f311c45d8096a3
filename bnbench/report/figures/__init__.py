"""Every figure of the report, drawn from a study: matplotlib's objects, no global state.

`style`: colours, sizes, plain axes. `learning`: curves while training. `along`: final readings
against batch size, learning rate, …. `cost`: what training takes. `claims`: paired differences.
`probes`: what probes have read. `svg`: figures as text. A function returns None where there is
nothing to draw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from bnbench.report.figures import along, probes, style
from bnbench.report.figures.claims import paired_differences
from bnbench.report.figures.cost import costs
from bnbench.report.figures.learning import caption, learning_curves, learning_panels
from bnbench.report.figures.probes import Probed
from bnbench.report.figures.svg import inline, svg
from bnbench.report.selection import at, tuned_cells
from bnbench.report.study import Study
from bnbench.report.tuning import Tuned
from bnbench.report.verdicts import Judged

__all__ = ["Drawn", "drawn", "inline", "learning_curves", "learning_panels", "svg"]

MOST_PROBED = 8
MOST_AXES = 3
BATCH_SIZES = ("data.batch_size", "norm.batch_size")


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure as SVG, with what a reader who does not see it needs to know.

    `section`: the part of the page that it belongs to.
    """

    name: str
    section: str
    title: str
    caption: str
    svg: str


def drawn(study: Study, choices: Sequence[Tuned], claims: Sequence[Judged]) -> list[Drawn]:
    """The figures that there is something for, in the order of the page."""
    found = []
    for name, section, title, words, figure in _figures(study, choices, claims):
        if figure is not None:
            found.append(Drawn(name, section, title, words, svg(figure)))
    return found


Made = tuple[str, str, str, str, Figure | None]


def _figures(study: Study, choices: Sequence[Tuned], claims: Sequence[Judged]) -> Iterator[Made]:
    yield (
        "paired-differences",
        "claims",
        "Paired differences of each claim",
        "A dot is one seed's difference; to the right of the zero line it favours the claim (for "
        "a two-sided one: what it names first). Below the dots mean and 95 % interval, or, where a "
        "difference is infinite, the median and its interval. An effect inside of the shaded "
        "range is too small to matter.",
        paired_differences(claims),
    )
    words = caption(study, choices)
    for quantity, against in (
        ("accuracy", "examples"),
        ("accuracy", "seconds"),
        ("loss", "examples"),
    ):
        unit = "images seen" if against == "examples" else "seconds of training"
        yield (
            f"{quantity}-by-{against}",
            "curves",
            f"Validation {quantity} against {unit}",
            words,
            learning_curves(study, choices, quantity=quantity, against=against),  # type: ignore[arg-type]
        )
    yield from _against_axes(study, choices)
    yield (
        "cost",
        "cost",
        "What training costs",
        "Seeds as dots, their mean with its 95 % interval; each setup at its best cell on "
        "validation. Seconds are of training work: evaluation and logging are left out.",
        costs(study, choices),
    )
    yield from _of_probes(study, choices)


def _against_axes(study: Study, choices: Sequence[Tuned]) -> Iterator[Made]:
    numeric = along.numeric_axes(study)[:MOST_AXES]
    tune = study.experiment.tune
    for axis in numeric:
        chosen = "" if tune is None or axis == tune.axis else f" {tune.axis} chosen on validation."
        yield (
            f"accuracy-by-{_name(axis)}",
            "final",
            f"Test accuracy against {axis}",
            f"Means with 95 % intervals, cut at the frame; every seed a faint dot.{chosen}",
            along.against_axis(study, choices, axis, along.accuracy, "test accuracy, %"),
        )
    gap = (
        "Above zero: inference (running statistics) is better than batch statistics; below: worse."
    )
    sizes = [axis for axis in numeric if axis in BATCH_SIZES]
    for axis in sizes:
        yield (
            f"gap-by-{_name(axis)}",
            "gap",
            f"Eval-mode gap against {axis}",
            gap,
            along.against_axis(study, choices, axis, along.gap, "running − batch accuracy, points"),
        )
    if not sizes:
        yield (
            "gap-by-setup",
            "gap",
            "Eval-mode gap of each setup",
            gap,
            along.by_setup(study, choices, along.gap, "running − batch accuracy, points"),
        )


def _name(axis: str) -> str:
    return axis.replace(".", "-").replace("_", "-")


def _of_probes(study: Study, choices: Sequence[Tuned]) -> Iterator[Made]:
    runs = _probed(study, choices)
    if not runs:
        return
    looks = style.looks(study)
    bands = "One seed of each setup. "
    made = {
        "activations": (
            "Inputs of a unit while training",
            "15th, 50th and 85th percentile over fixed images (Ioffe & Szegedy 2015, figure 1).",
            partial(probes.percentile_bands, runs, looks=looks),
        ),
        "landscape": (
            "The landscape along the gradient",
            "Ranges of loss and gradient over steps of several sizes (Santurkar et al. 2018).",
            partial(probes.landscape_bands, runs, looks=looks),
        ),
        "running-error": (
            "Running against population statistics",
            "How far each layer's running mean is from the true one, in its standard deviations.",
            partial(probes.layer_heat_maps, runs, "running_error", "mean", log=True),
        ),
        "gap-by-layer": (
            "Which layer the gap comes from",
            "The change of the loss with one layer on batch statistics.",
            partial(probes.layer_heat_maps, runs, "gap_by_layer", "loss"),
        ),
        "gradient-shift": (
            "How earlier layers' steps turn a layer's gradient",
            "Cosine between the gradient before and after (Santurkar et al. 2018); 1: no shift.",
            partial(probes.reading_curves, runs, "gradient_shift", "cos", looks=looks),
        ),
        "batch-noise": (
            "Noise from the companions in a batch",
            "Variance of the logits over random companions, over that between images.",
            partial(probes.reading_curves, runs, "batch_noise", "noise", looks=looks),
        ),
    }
    for name, (title, words, draw) in made.items():
        with suppress(ValueError):  # none of these runs was asked for it
            yield f"probe-{name}", "probes", title, bands + words, draw()


def _probed(study: Study, choices: Sequence[Tuned]) -> list[Probed]:
    """One seed of each cell, or of each setup's best cell, if these are few enough."""
    cells = [
        cell for cell in tuned_cells(study, choices) if any(run.history.probes for run in cell.runs)
    ]
    if len(cells) > MOST_PROBED:
        best = [at(cells, setup, {}) for setup in study.setups]
        cells = [cell for cell in best if cell is not None][:MOST_PROBED]
    runs = [next(run for run in cell.runs if run.history.probes) for cell in cells]
    return [Probed(run.setup, run.history.probes) for run in runs]
