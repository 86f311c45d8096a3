"""Figures as SVG: small, the same bytes for the same data, in the colours of their page."""

from __future__ import annotations

import io
import re
import warnings
from html import escape

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bnbench.report.figures.style import FAINT, GRID, INK, PALETTE

NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
VARIABLES = {
    INK: "--ink",
    FAINT: "--faint",
    GRID: "--grid",
    PALETTE[0]: "--slate",  # TensorBoard's dark theme has another one, too
    "#ffffff": "--ground",
    "#000000": "--ink",
}
"""The page's colours for those of the figures."""


def of_figure(figure: Figure, *, name: str) -> str:
    """A file of its own, on white. `name`: makes ids differ between the figures of a page."""
    text = io.StringIO()
    with rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a user's word; browsers have it
        FigureCanvasSVG(figure).print_svg(text, metadata=NO_METADATA)  # type: ignore[no-untyped-call]
    # Coordinates to a hundredth of a point: matplotlib has no setting, and pages are half the size.
    return re.sub(
        r"(?<=[ \"(,])-?\d+\.\d{3,}", lambda each: f"{float(each[0]):.2f}", text.getvalue()
    )


def inline(drawn: str, *, name: str, title: str, description: str) -> str:
    """The same as a part of a page: in the page's colours, with words for screen readers."""
    start, rest = drawn[drawn.index("<svg") :].split(">", 1)
    # Numbered ids (axes_1) are the same in all figures and never referred to; the others are
    # hashes with the figure's name in them.
    rest = re.sub(r' id="[a-zA-Z0-9.]+_\d+"', "", rest)
    for color, variable in VARIABLES.items():
        rest = rest.replace(color, f"var({variable})")
    label = f'role="img" aria-labelledby="{name}-title {name}-words"'
    return (
        f'{start} {label}><title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-words">{escape(description)}</desc>{rest}'
    )
