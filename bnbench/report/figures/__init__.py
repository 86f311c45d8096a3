"""Every figure of the report, drawn from a study, as SVG: matplotlib's objects, no global state.

`style`: colours, sizes, plain axes. `learning`: curves while training. `along`: final scores
against batch size, learning rate, …, and what training costs. `claims`: paired differences.
`probes`: what probes recorded. A function returns None if there is nothing to draw.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from html import escape
from typing import NamedTuple, TypeAlias

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bnbench import palette
from bnbench.report.figures import along, learning, probes, style
from bnbench.report.figures.claims import paired_differences
from bnbench.report.study import Study
from bnbench.report.verdicts import Judged
from bnbench.wording import printable

MOST_PROBED = 8
MOST_AXES = 3
BATCH_SIZES = ("data.batch_size", "norm.batch_size")
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
VARIABLES = {
    style.INK: "--ink",
    style.FAINT: "--faint",
    style.GRID: "--grid",
    style.SLATE: "--slate",
    **{color: f"--on-dark-{color[1:]}" for color in palette.DARK},
    "#ffffff": "--ground",
    "#000000": "--ink",
}
"""The page's colours for those of the figures."""


class Drawn(NamedTuple):
    """A figure as SVG on white, with what a reader who does not see it needs to know.

    `section`: the part of the page that it belongs to.
    """

    name: str
    section: str
    title: str
    caption: str
    svg: str

    @property
    def inline(self) -> str:
        """The same as a part of a page: in the page's colours, with words for screen readers."""
        start, rest = self.svg[self.svg.index("<svg") :].split(">", 1)
        # Numbered ids (axes_1) are the same in all figures and never referred to; the others are
        # hashes with the figure's name in them.
        rest = re.sub(r' id="[a-zA-Z0-9.]+_\d+"', "", rest)
        for color, variable in VARIABLES.items():
            rest = rest.replace(color, f"var({variable})")
        label = f'role="img" aria-labelledby="{self.name}-title {self.name}-words"'
        return (
            f'{start} {label}><title id="{self.name}-title">{escape(self.title)}</title>'
            f'<desc id="{self.name}-words">{escape(self.caption)}</desc>{rest}'
        )


def drawn(study: Study, claims: Sequence[Judged]) -> list[Drawn]:
    """The figures that can be drawn, in the order of the page."""
    with style.applied():
        return [
            Drawn(name, section, title, words, _as_svg(figure, name))
            for name, section, title, words, figure in _figures(study, claims)
            if figure is not None
        ]


def _as_svg(figure: Figure, name: str) -> str:
    """Small, and the same bytes for the same data. The name makes ids differ between figures."""
    text = io.StringIO()
    with rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a user's word; browsers have it
        FigureCanvasSVG(figure).print_svg(text, metadata=NO_METADATA)  # type: ignore[no-untyped-call]
    drawn = printable(text.getvalue(), keep="\n")  # XML has no control characters
    # Coordinates to a hundredth of a point: matplotlib has no setting, and pages are half the size.
    return re.sub(r"(?<=[ \"(,])-?\d+\.\d{3,}", lambda each: f"{float(each[0]):.2f}", drawn)


Made: TypeAlias = tuple[str, str, str, str, Figure | None]
"""Name, section, title and caption with the figure."""


def _figures(study: Study, claims: Sequence[Judged]) -> Iterator[Made]:
    looks = style.looks(study)
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
    panels = learning.learning_panels(study)
    words = learning.caption(study, panels)
    for quantity, against, unit in (
        ("accuracy", "examples", "images seen"),
        ("accuracy", "seconds", "seconds of training"),
        ("loss", "examples", "images seen"),
    ):
        yield (
            f"{quantity}-by-{against}",
            "curves",
            f"Validation {quantity} against {unit}",
            words,
            learning.learning_curves(panels, looks, quantity=quantity, against=against),
        )
    yield from _against_axes(study, looks)
    yield (
        "cost",
        "cost",
        "What training costs",
        "Seeds as dots, their mean with its 95 % interval; each setup at its best cell on "
        "validation. Seconds are of training work: evaluation and logging are left out.",
        along.costs(study, looks),
    )
    yield from _of_probes(study, looks)


def _against_axes(study: Study, looks: style.Looks) -> Iterator[Made]:
    numeric = along.numeric_axes(study)[:MOST_AXES]
    tuned = study.tuned_axis
    for axis in numeric:
        chosen = "" if tuned in (None, axis) else f" {tuned} chosen on validation."
        yield (
            f"accuracy-by-{_dashed(axis)}",
            "final",
            f"Test accuracy against {axis}",
            f"Means with 95 % intervals, cut at the frame; every seed a faint dot.{chosen}",
            along.against_axis(study, looks, axis, "test_accuracy", "test accuracy, %"),
        )
    words = (
        "Above zero: inference (running statistics) is better than batch statistics; below: worse."
    )
    unit = "running − batch accuracy, points"
    sizes = [axis for axis in numeric if axis in BATCH_SIZES]
    for axis in sizes:
        figure = along.against_axis(study, looks, axis, "gap", unit)
        yield f"gap-by-{_dashed(axis)}", "gap", f"Eval-mode gap against {axis}", words, figure
    if not sizes:
        figure = along.by_setup(study, looks, {"gap": unit}, scale=100)
        yield "gap-by-setup", "gap", "Eval-mode gap of each setup", words, figure


def _dashed(axis: str) -> str:
    return axis.replace(".", "-").replace("_", "-")


def _of_probes(study: Study, looks: style.Looks) -> Iterator[Made]:
    """Of one seed of each chosen cell; of more than a few, of each setup's best cell."""
    cells = [cell for cell in study.chosen if any(run.history.probes for run in cell.runs)]
    if len(cells) > MOST_PROBED:
        cells = [cell for cell in study.best.values() if cell in cells][:MOST_PROBED]
    of_cells = [next(run for run in cell.runs if run.history.probes) for cell in cells]
    runs = [probes.Probed(run.setup, run.history.probes) for run in of_cells]
    made = {
        "activations": (
            "Inputs of a unit while training",
            "15th, 50th and 85th percentile over fixed images (Ioffe & Szegedy 2015, figure 1).",
            partial(probes.percentile_bands, runs, looks),
        ),
        "landscape": (
            "The landscape along the gradient",
            "Ranges of loss and gradient over steps of several sizes (Santurkar et al. 2018).",
            partial(probes.landscape_bands, runs, looks),
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
            partial(probes.reading_curves, runs, looks, "gradient_shift", "cos"),
        ),
        "batch-noise": (
            "Noise from the other images in a batch",
            "Variance of the logits over random batches, over that between images.",
            partial(probes.reading_curves, runs, looks, "batch_noise", "noise"),
        ),
    }
    for name, (title, words, draw) in made.items():
        with suppress(ValueError):  # none of these runs has this probe
            yield f"probe-{name}", "probes", title, f"One seed of each setup. {words}", draw()
