"""TensorBoard's web page in the colours of setups, with the names of runs in full.

TensorBoard gives colours by the order of runs and has no setting for them, but it takes its page
from whom starts it. So the page's two lists of colours are exchanged on the way: that of Time
Series, which counts setups in the order in which they began, and that of the older tabs, which
counts runs; there the cells of a setup have shades of its colour. In Custom Scalars bands are never
cut as outliers, and names of curves begin with the run. At 1,280 pixels the list of runs cuts their
names, and hides their colours: so it begins wider, and the pane of settings closed; columns of
HParams are narrower, and eight tabs fit. Beyond 40 runs the older tabs begin with none of them:
here, with some. What is not as expected stays as it is, and the rest is changed.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from typing import BinaryIO, TypeAlias
from zipfile import ZipFile
from zlib import crc32

from bnbench import palette

Change: TypeAlias = tuple[str | re.Pattern[str], str | Callable[[re.Match[str]], str]]

INDEX, SCRIPT = "index.html", "index.js"
# As in TensorBoard 2.21. Names that a minifier has chosen are captured.
_OF_SETUPS = re.compile(r'(colorPalette:\{id:"default"[^\[]*colors:)\[[^\]]*\]')
_OF_RUNS = re.compile(
    r"(this\.identifiers\.set\((\w+),)(this\.palette\[\w+%this\.palette\.length\])\)"
)
_SELECTED = re.compile(r"(namesMatchingRegex\.filter\()(\w+)=>(\w+)\[\2\]==null\?(\w+):\3\[\2\]\)")
SEED = r"/_s\d+_\w+$/"
"""In JavaScript: what a run's name has more than that of its cell."""
SELECTED = 200
"""At most so many runs are selected at first: each chart asks once for each of them."""
_LAYOUT: dict[str, Change] = {
    "names of curves in Custom Scalars": (
        r"(function \w+\((\w+),(\w+)\)\{return`)\$\{\3\} \(\$\{\2\}\)(`\}.{,200}?\.match\()/[^/]+/",
        r"\1${\2}: ${\3}\4/^(.*): /",
    ),
    "whole bands in Custom Scalars": (
        r"(<tf-custom-scalar-margin-chart-card[^>]*?)\s+ignore-y-outliers=\"[^\"]*\"",
        r"\1",
    ),
    "eight tabs": (r"(\.plugin-name[^{}]*\{[^{}]*padding:0 )12px", r"\g<1>8px"),
    "a wide list of runs": (r"(sideBarWidthInPercent:)20,", r"\g<1>28,"),
    "closed settings": (r"(\{isSettingsPaneOpen:)!0,", r"\1!1,"),
    # Of HParams: names of rows, which the columns repeat; columns, which share what is left.
    "names of rows in HParams": (r'(<vaadin-grid-column flex-grow="0" width=)"10em"', r'\1"7em"'),
    "columns of HParams": (
        r'(<vaadin-grid-column flex-grow="2" width=)"10em"((?s:.*?)\1)"10em"',
        r'\1"5.5em"\2"5.5em"',
    ),
    "digits in HParams": (r"(\w+\.isNumber\((\w+)\)\?)(\2\.toPrecision)\(5\)", r"\1String(+\3(4))"),
}
_NAME = re.compile(re.escape(SCRIPT) + r"\?_file_hash=\w+")


def page(
    places: Mapping[str, int],
    setup_of: str,
    first: str,
    shades: Mapping[str, str],
    open_page: Callable[[], BinaryIO],
) -> tuple[BinaryIO, list[str]]:
    """The zip of TensorBoard's page, changed, and in words what could not be: not the page we know.

    `places`: in the palette, of setups in the order in which they began. `setup_of`: a regular
    expression, for Python and JavaScript, whose first group is the setup in a run's name. `first`:
    one for the runs that are selected at first, where there are too many. `shades`: the colours of
    cells, by the names of their means.
    """
    colors = {setup: palette.color(place) for setup, place in places.items()}
    listed = [
        {"name": setup, "lightHex": color, "darkHex": palette.DARK.get(color, color)}
        for setup, color in colors.items()
    ]

    def of_run(found: re.Match[str]) -> str:
        start, run, default = found.groups()
        setup = f"({run}.match({json.dumps(setup_of)})||[])[1]"
        cell = f"{run}.replace({SEED},'').split('/').pop()"
        some = f"{json.dumps(shades)}[{cell}]||{json.dumps(colors)}[{setup}]"
        return f"{start}{some}||{default})"

    def selected(found: re.Match[str]) -> str:
        start, run, state, every = found.groups()
        some = f"RegExp({json.dumps(first)}).test({run})&&count++<{SELECTED}"
        return f"{start}(count=>{run}=>{state}[{run}]==null?{every}||{some}:{state}[{run}])(0))"

    changes: dict[str, Change] = {
        "colours in Time Series": (_OF_SETUPS, lambda found: found[1] + json.dumps(listed)),
        "colours in the older tabs": (_OF_RUNS, of_run),
        "what is selected at first": (_SELECTED, selected),
    }
    with open_page() as source, ZipFile(source) as theirs:
        files = {name: theirs.read(name) for name in theirs.namelist()}
    script, failed = files.get(SCRIPT, b"").decode(), list[str]()
    for what, (pattern, replacement) in (changes | _LAYOUT).items():
        other, count = re.subn(pattern, replacement, script)
        script = other if count == 1 else script
        failed += [what] * (count != 1)
    # Browsers keep a script of this name for a day.
    name = f"{SCRIPT}?_file_hash={crc32(script.encode()):08x}"
    index = _NAME.sub(name, files.get(INDEX, b"").decode())
    made = io.BytesIO()
    with ZipFile(made, "w") as ours:
        for each, content in (files | {SCRIPT: script.encode(), INDEX: index.encode()}).items():
            ours.writestr(each, content)
    made.seek(0)
    return made, failed
