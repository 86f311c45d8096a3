"""Figures as SVG: small, the same bytes for the same data, in the colours of their page."""

from __future__ import annotations

import io
import re
import warnings
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bnbench.report.figures.style import FAINT, GRID, INK, PALETTE

SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "bnbench",  # names inside of the file do not change from one time to the next
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "path.simplify": True,
    "path.simplify_threshold": 0.3,
}
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
FONTS = "font-family: system-ui, 'DejaVu Sans', Verdana, sans-serif"


def svg(figure: Figure) -> str:
    """A file of its own, on white."""
    figure.patch.set_facecolor("white")
    return _drawn(figure)


def _drawn(figure: Figure) -> str:
    text = io.StringIO()
    with rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a user's word; browsers have it
        FigureCanvasSVG(figure).print_svg(text, metadata=NO_METADATA)  # type: ignore[no-untyped-call]
    drawn = re.sub(r"font-family: [^;\"]*|(?<=px) '?DejaVu Sans'?[^;\"]*", _font, text.getvalue())
    return re.sub(r"[ \t]+\n", "\n", _rounded(drawn))


def _font(found: re.Match[str]) -> str:
    family = FONTS.removeprefix("font-family: ")
    return FONTS if found[0].startswith("font-family") else f" {family}"


def _rounded(drawn: str) -> str:
    """Coordinates to a hundredth of a point."""
    return re.sub(r"(?<=[ \"(,])-?\d+\.\d{3,}", lambda each: f"{float(each[0]):.2f}", drawn)


def inline(drawn: str, *, name: str, title: str, description: str) -> str:
    """The same as a part of a page: its colours from the page, its words for those who listen.

    `name`: makes ids of several figures on one page different.
    """
    body = drawn[drawn.index("<svg") :]
    start, rest = body.split(">", 1)
    ids = set(re.findall(r'\bid="([^"]+)"', rest))
    rest = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', rest)
    rest = re.sub(
        r'(xlink:href="|url\()#([^")]+)',
        lambda each: f"{each[1]}#{name}-{each[2]}" if each[2] in ids else each[0],
        rest,
    )
    for color, variable in VARIABLES.items():
        rest = rest.replace(color, f"var({variable})")
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', start)
    assert box is not None
    wide = round(float(box[1]) * 4 / 3)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {box[1]} {box[2]}" style="width: {wide}px" role="img" '
        f'aria-labelledby="{name}-title {name}-words">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-words">{escape(description)}</desc>{rest}'
    )


VARIABLES = {
    INK: "--ink",
    FAINT: "--faint",
    GRID: "--grid",
    PALETTE[0]: "--slate",  # TensorBoard's dark theme has another one, too
    "#ffffff": "--ground",
    "#000000": "--ink",
}
