"""Every figure of the report, drawn from a study, as SVG: matplotlib's objects, no global state.

`style`: colours, sizes, plain axes. `grid`: which panels there are. `learning`: curves while
training. `along`: final scores against batch size, learning rate, …; `rows`: those of each cell,
and costs. `claims`: paired differences. `probes`: what probes recorded. A function returns None if
there is nothing to draw. A caption is made of what is drawn.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from html import escape
from typing import NamedTuple, TypeAlias

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bnbench import palette
from bnbench.report.figures import along, learning, probes, rows, style
from bnbench.report.figures.claims import differences_caption, paired_differences
from bnbench.report.study import Cell, Study
from bnbench.report.verdicts import Judged
from bnbench.report.words import GAP_IS
from bnbench.wording import key_words, printable

MOST_TOGETHER = 8
MOST_AXES = 3
DOTS_PER_INCH = 200
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

    `section`: the part of the page that it belongs to. `others`: the same in further formats.
    """

    name: str
    section: str
    title: str
    caption: str
    svg: str
    others: Mapping[str, bytes]

    @property
    def files(self) -> dict[str, bytes]:
        """The same as files, by name."""
        contents = {"svg": self.svg.encode(), **self.others}
        return {f"{self.name}.{kind}": content for kind, content in contents.items()}

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


def drawn(study: Study, claims: Sequence[Judged], formats: Collection[str] = ()) -> list[Drawn]:
    """The figures that can be drawn, in the order of the page; as SVG, and in these formats."""
    return _drawn(_figures(study, claims), formats)


def drawn_claims(claims: Sequence[Judged]) -> list[Drawn]:
    """The one figure that needs nothing but claims."""
    return _drawn(_of_claims(claims))


def _drawn(figures: Iterator[Made], formats: Collection[str] = ()) -> list[Drawn]:
    further = [kind for kind in formats if kind != "svg"]
    with style.applied():
        return [
            Drawn(
                *(name, section, title, words, as_svg(figure, name)),
                {kind: _as_file(figure, kind) for kind in further},
            )
            for name, section, title, words, figure in figures
        ]


def _as_file(figure: Figure, kind: str) -> bytes:
    """The same bytes for the same data."""
    content = io.BytesIO()
    date = {"CreationDate": None} if kind == "pdf" else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(content, format=kind, dpi=DOTS_PER_INCH, metadata=date)
    return content.getvalue()


def as_svg(figure: Figure, name: str) -> str:
    """Small, and the same bytes for the same data. The name makes ids differ between figures."""
    text = io.StringIO()
    with rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a user's word; browsers have it
        FigureCanvasSVG(figure).print_svg(text, metadata=NO_METADATA)  # type: ignore[no-untyped-call]
    drawn = printable(text.getvalue(), keep="\n")  # XML has no control characters
    # Coordinates to a hundredth of a point: matplotlib has no setting, and pages are half the size.
    return re.sub(r"(?<=[ \"(,])-?\d+\.\d{3,}", lambda each: f"{float(each[0]):.2f}", drawn)


Made: TypeAlias = tuple[str, str, str, str, Figure]
"""Name, section, title and caption with the figure."""


def _of_claims(claims: Sequence[Judged]) -> Iterator[Made]:
    figure = paired_differences(claims)
    if figure is not None:
        title = "Paired differences of each claim"
        yield "paired-differences", "claims", title, differences_caption(claims), figure


def _figures(study: Study, claims: Sequence[Judged]) -> Iterator[Made]:
    looks = style.looks(study)
    yield from _of_claims(claims)
    shown = learning.curves(study, study.chosen)
    for quantity, against, unit in (
        ("accuracy", "examples", "images seen"),
        ("accuracy", "seconds", "seconds of training"),
        ("loss", "examples", "images seen"),
    ):
        figure = learning.learning_curves(shown, looks, quantity=quantity, against=against)
        if figure is not None:
            title = f"Validation {quantity} against {unit}"
            words = learning.caption(shown) + _tuned(study)
            yield f"{quantity}-by-{against}", "curves", title, words, figure
    yield from _final(study, looks)
    yield from _of_gap(study, looks)
    figure = rows.costs(study, looks)
    if figure is not None:
        words = "Of training work: evaluation and logging are left out."
        yield "cost", "cost", "What training costs", rows.caption(study) + f" {words}", figure
    yield from _of_probes(study, looks)


def _tuned(study: Study, *without: str) -> str:
    """What a caption says of tuning, after a space."""
    axis = study.tuned_axis
    if axis is None or axis in without or axis not in study.varying or not study.choices:
        return ""
    return f" Each setup at its {key_words(axis)} chosen on validation."


def _final(study: Study, looks: style.Looks) -> Iterator[Made]:
    classes = study.classes
    chance = None if classes is None else 100 / classes
    accuracy = along.Measured("test_accuracy", "test accuracy (%)", chance)
    along_values = [axis for axis in study.varying if len(study.axes[axis]) > 1]
    for axis in along_values[:MOST_AXES]:
        yield from _against(study, looks, axis, accuracy, "final", "Test accuracy")
    if not along_values:
        figure = rows.by_setup(study, looks, {"test_accuracy": accuracy.label}, level=chance)
        if figure is not None:
            guessed = "" if chance is None else f" Dashed line: chance ({chance:.3g} %)."
            words = rows.caption(study) + guessed
            yield "accuracy-by-setup", "final", "Test accuracy of each setup", words, figure
    gap = along.Measured("gap", "eval mode better by (points)", 0.0, is_zero=True)
    means = f" {GAP_IS}."
    left = [axis for axis in along_values if axis != study.tuned_axis]
    axes = [axis for axis in left if axis in BATCH_SIZES] or left[:1]
    for axis in axes:
        yield from _against(study, looks, axis, gap, "gap", "Eval-mode gap", means)
    if not axes:
        figure = rows.by_setup(study, looks, {"gap": gap.label}, level=0.0)
        if figure is not None:
            words = rows.caption(study) + means + _tuned(study)
            yield "gap-by-setup", "gap", "Eval-mode gap of each setup", words, figure


def _against(
    study: Study,
    looks: style.Looks,
    axis: str,
    measured: along.Measured,
    section: str,
    what: str,
    more: str = "",
) -> Iterator[Made]:
    shown = along.lines_along(study, axis)
    figure = along.against_axis(study, shown, looks, measured)
    if figure is not None:
        words = along.caption(shown, measured, figure) + more + _tuned(study, axis)
        name = f"{section.replace('final', 'accuracy')}-by-{axis.replace('.', '-')}"
        title = f"{what} against {key_words(axis)}"
        yield name.replace("_", "-"), section, title, words, figure


def _of_gap(study: Study, looks: style.Looks) -> Iterator[Made]:
    shown = learning.curves(study, learning.with_gap(study.chosen))
    figure = learning.gap_curves(shown, looks)
    if figure is not None:
        words = learning.caption(shown, figure) + _tuned(study)
        yield "gap-by-steps", "gap", "Eval-mode gap while training", words, figure


def _few(
    study: Study, looks: style.Looks, cells: Sequence[Cell]
) -> tuple[dict[str, Cell], style.Looks, str]:
    """What can share a picture: these chosen cells by name, of more than a few each setup's best
    one; how each is drawn; what a caption says of the choice."""
    which = _tuned(study)
    if len(cells) > MOST_TOGETHER:
        cells = [cell for cell in study.best.values() if cell in cells][:MOST_TOGETHER]
        which = " Each setup at its best values on validation."
    named, drawn = dict[str, Cell](), dict[str, style.Look]()
    for setup in study.setups:  # its cells have its colour, and dashes of their own
        alike = [cell for cell in cells if cell.setup == setup]
        for number, name in enumerate(_told_apart(study, alike)):
            named[name], drawn[name] = alike[number], style.varied(looks[setup], number)
    return named, drawn, which


def _told_apart(study: Study, cells: Sequence[Cell]) -> list[str]:
    """Names of a setup's cells: chosen values are left out where the others are enough."""
    keys = [key for key in study.varying if len({repr(cell.point.get(key)) for cell in cells}) > 1]
    few = [study.named(cell, [key for key in keys if key != study.tuned_axis]) for cell in cells]
    return few if len(set(few)) == len(few) else [study.named(cell, keys) for cell in cells]


def _of_probes(study: Study, looks: style.Looks) -> Iterator[Made]:
    """Of one seed of each."""
    probed = [cell for cell in study.chosen if any(run.history.probes for run in cell.runs)]
    cells, of_cells, of_which = _few(study, looks, probed)
    runs = [next(run for run in cell.runs if run.history.probes) for cell in cells.values()]
    read = [probes.Probed(name, run.history.probes) for name, run in zip(cells, runs, strict=True)]
    seeds = {run.seed for run in runs}
    which = f" Seed {seeds.pop()} of each." if len(seeds) == 1 else " One seed of each."
    for name, (title, words, draw) in probes.drawings(read, of_cells).items():
        with suppress(ValueError):  # none of these runs has this probe
            yield f"probe-{name}", "probes", title, f"{words}{which}{of_which}", draw()
