"""TensorBoard's web page in the colours of setups, with the names of runs in full.

TensorBoard gives colours by the order of runs and has no setting for them, but it takes its page
from whom starts it. So the page's two lists of colours are exchanged on the way: that of Time
Series, which counts setups in the order in which they began, and that of the older tabs, which
counts runs. At 1,280 pixels its list of runs cuts their names, and hides their colours: so the list
begins wider, and the pane of settings closed. A page that is not as expected stays as it is.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from typing import BinaryIO
from zipfile import ZipFile
from zlib import crc32

from bnbench import palette

INDEX, SCRIPT = "index.html", "index.js"
# As in TensorBoard 2.21. Names that a minifier has chosen are captured.
_OF_SETUPS = re.compile(r'(colorPalette:\{id:"default"[^\[]*colors:)\[[^\]]*\]')
_OF_RUNS = re.compile(
    r"(this\.identifiers\.set\((\w+),)(this\.palette\[\w+%this\.palette\.length\])\)"
)
_LIST = re.compile(r"(sideBarWidthInPercent:)20,")
_PANE = re.compile(r"(\{isSettingsPaneOpen:)!0,")
WIDTH = 28
"""Percent of the window, for the list of runs."""
_NAME = re.compile(re.escape(SCRIPT) + r"\?_file_hash=\w+")


def page(
    places: Mapping[str, int], setup_of: str, open_page: Callable[[], BinaryIO]
) -> BinaryIO | None:
    """The zip of TensorBoard's page, changed; None where it is not the page we know.

    `places`: in the palette, of setups in the order in which they began. `setup_of`: a regular
    expression, for Python and JavaScript, whose first group is the setup in a run's name.
    """
    colors = {setup: palette.color(place) for setup, place in places.items()}
    listed = [
        {"name": setup, "lightHex": color, "darkHex": palette.DARK.get(color, color)}
        for setup, color in colors.items()
    ]

    def of_run(found: re.Match[str]) -> str:
        start, run, default = found.groups()
        setup = f"({run}.match({json.dumps(setup_of)})||[])[1]"
        return f"{start}{json.dumps(colors)}[{setup}]||{default})"

    with open_page() as source, ZipFile(source) as theirs:
        script = theirs.read(SCRIPT).decode()
        script, setups = _OF_SETUPS.subn(lambda found: found[1] + json.dumps(listed), script)
        script, runs = _OF_RUNS.subn(of_run, script)
        script, lists = _LIST.subn(rf"\g<1>{WIDTH},", script)
        script, panes = _PANE.subn(r"\1!1,", script)
        # Browsers keep a script of this name for a day.
        name = f"{SCRIPT}?_file_hash={crc32(script.encode()):08x}"
        index, names = _NAME.subn(name, theirs.read(INDEX).decode())
        if {setups, runs, lists, panes, names} != {1}:
            return None
        changed = io.BytesIO()
        with ZipFile(changed, "w") as ours:
            for each in theirs.namelist():
                content = {SCRIPT: script, INDEX: index}.get(each)
                ours.writestr(each, theirs.read(each) if content is None else content)
    changed.seek(0)
    return changed
