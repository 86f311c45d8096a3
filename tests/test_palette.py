"""The colours of setups: which are fixed, and that none changes when a setup comes."""

from __future__ import annotations

import re
import sys
from itertools import permutations
from pathlib import Path

import pytest

import bnbench
from bnbench.palette import COLORS, DARK, color, places, shades
from tests.processes import completed

NONE = ("none", {"norm.kind": "none"})
BEFORE = ("bn-before", {"norm.kind": "batch", "norm.placement": "before"})
AFTER = ("bn-after", {"norm.kind": "batch", "norm.placement": "after"})
GROUP = ("gn", {"norm.kind": "group", "norm.placement": "before"})
OTHERS = [(f"mine-{number}", {"norm.kind": "custom"}) for number in range(12)]
TWINS = [(f"batch-{number}", BEFORE[1]) for number in range(12)]


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2.2."""

    def light(colour: str) -> float:
        parts = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_each_colour_is_seen_on_a_light_and_on_a_dark_page() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#ffa90e", "#ffffff") < 2, "a pale one is found out"
    head = (Path(bnbench.__file__).parent / "report/head.html").read_text()
    light, dark = re.findall(r"--ground: (#[0-9a-f]{6}); --page", head)[:2]
    assert min(contrast(each, light) for each in COLORS) >= 3
    assert min(contrast(DARK.get(each, each), dark) for each in COLORS) >= 3
    assert len({DARK.get(each, each) for each in COLORS}) == len(COLORS)


def test_well_known_normalizations_have_their_colour_in_every_experiment() -> None:
    expected = {"none": "#717581", "bn-before": "#3f90da", "bn-after": "#832db6", "gn": "#e76300"}
    for some in permutations((NONE, BEFORE, AFTER, GROUP, *OTHERS[:2]), 4):
        for name, place in places(some).items():
            assert color(place) == expected.get(name, color(place))
    assert color(places([("another-name", AFTER[1])])["another-name"]) == "#832db6"


def test_a_setup_that_is_added_takes_no_colour_of_another() -> None:
    order = [NONE, BEFORE, *TWINS, *OTHERS, GROUP, AFTER]
    for count in range(1, len(order)):
        before, after = places(order[:count]), places(order[: count + 1])
        assert {name: after[name] for name in before} == before


def test_ten_setups_have_ten_colours_whatever_they_are() -> None:
    for some in (OTHERS[:10], TWINS[:10], [NONE, *OTHERS[:4], *TWINS[:5]]):
        assert {color(place) for place in places(some).values()} == set(COLORS)
    more = places([*OTHERS, *TWINS])
    assert len(set(more.values())) == 24, "from there on, markers and dashes tell them apart"


def test_shades_of_a_colour_go_from_light_to_dark_around_it() -> None:
    for place in range(len(COLORS)):
        assert shades(place, 1) == [color(place)]
        lightness = [contrast(each, "#000000") for each in shades(place, 5)]
        assert lightness == sorted(set(lightness), reverse=True)
        assert shades(place, 5)[2] == color(place)


def test_a_name_has_the_same_colour_in_every_process() -> None:
    code = "from bnbench.palette import places; print(places([('mine-3', {})])['mine-3'])"
    assert int(completed(sys.executable, "-c", code).stdout) == places([OTHERS[3]])["mine-3"]
