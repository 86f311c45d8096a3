"""TensorBoard's page with other colours; how it looks is seen in test_browser."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import BinaryIO
from zipfile import ZipFile

from tensorboard.assets import get_default_assets_zip_provider

from bnbench.board.page import page

SETUPS = {"bn": 1, "none": 0}
REGEX = "(?:^|/)(none|bn)_"
SHADES = {"bn_bs004": "#123456"}


def contents(file: BinaryIO) -> dict[str, bytes]:
    """The files of a zip, by name."""
    with file, ZipFile(file) as found:
        return {name: found.read(name) for name in found.namelist()}


def theirs() -> Callable[[], BinaryIO]:
    """TensorBoard's own page."""
    found: Callable[[], BinaryIO] | None = get_default_assets_zip_provider()
    assert found is not None
    return found


def test_only_colours_widths_digits_and_what_is_selected_first_are_changed() -> None:
    ours, failed = page(SETUPS, REGEX, "^mean", SHADES, theirs())
    before, after = contents(theirs()()), contents(ours)
    assert failed == []
    assert list(before) == list(after)
    assert {name for name in before if before[name] != after[name]} == {"index.html", "index.js"}
    scripts = [each["index.js"].decode() for each in (before, after)]
    palettes = [re.search(r"colorPalette:{.*?\],inactive", each) for each in scripts]
    assert palettes[0] is not None
    assert palettes[1] is not None
    assert re.findall("#[0-9a-f]{6}", palettes[1][0]) == ["#3f90da"] * 2 + ["#717581", "#8e98a3"]
    # Without these places the scripts are the same.
    places = (
        r"colorPalette:{.*?\],inactive",
        r"(?<=this\.identifiers\.set\()\w+,.*?this\.palette",
        r"function \w+\(\w+,\w+\)\{return`\$\{\w+\}:? \(?\$\{\w+\}\)?`\}.{,200}?\.match\(/[^/]+/",
        r"<tf-custom-scalar-margin-chart-card[^>]*>",
        r"\.plugin-name[^{}]*\{[^}]*\}",
        r"(?<=sideBarWidthInPercent:)\d+",
        r"(?<={isSettingsPaneOpen:)!\d",
        r'<vaadin-grid-column flex-grow="\d" width="[\d.]+em"',
        r"(?<=\.isNumber\()\w+\)\?[^:]*\.toPrecision\(\d\)+",
        r"(?<=namesMatchingRegex\.filter\().*?:\w+\[\w+\]\)(\(0\)\))?",
    )
    for place in places:
        found = [re.findall(place, script) for script in scripts]
        assert len(found[0]) == len(found[1]) > 0, place
        assert found[0] != found[1], place
        scripts = [re.sub(place, "", script) for script in scripts]
    assert scripts[0] == scripts[1]


def test_other_colours_are_another_script_to_a_browser() -> None:
    def name(places: dict[str, int]) -> str:
        index = contents(page(places, REGEX, "^mean", SHADES, theirs())[0])["index.html"].decode()
        (found,) = re.findall(r'src="(index\.js\?_file_hash=\w+)"', index)
        return str(found)

    assert name(SETUPS) == name(SETUPS)
    assert name(SETUPS) != name(SETUPS | {"none": 3})


def test_of_a_page_of_another_version_what_is_known_is_changed() -> None:
    def other() -> BinaryIO:
        made = io.BytesIO()
        with ZipFile(made, "w") as file:
            for name, content in contents(theirs()()).items():
                file.writestr(name, content.replace(b"sideBarWidthInPercent:20,", b"width:20,"))
        made.seek(0)
        return made

    ours, failed = page(SETUPS, REGEX, "^mean", SHADES, other)
    assert failed == ["a wide list of runs"]
    script = contents(ours)["index.js"]
    assert b"width:20," in script
    assert script.count(b"#3f90da") > contents(other())["index.js"].count(b"#3f90da"), "of setups"


def test_a_page_that_is_not_known_at_all_is_left_alone() -> None:
    def other() -> BinaryIO:
        made = io.BytesIO()
        with ZipFile(made, "w") as file:
            file.writestr("index.html", "colors = [1, 2]")
        made.seek(0)
        return made

    ours, failed = page(SETUPS, REGEX, "^mean", SHADES, other)
    assert contents(ours)["index.html"] == b"colors = [1, 2]"
    assert len(failed) == 11
