"""The colours of setups: which are fixed, and that none changes when a setup comes."""

from __future__ import annotations

import subprocess
import sys
from itertools import permutations

from bnbench.palette import COLORS, color, places

NONE = ("none", {"norm.kind": "none"})
BEFORE = ("bn-before", {"norm.kind": "batch", "norm.placement": "before"})
AFTER = ("bn-after", {"norm.kind": "batch", "norm.placement": "after"})
GROUP = ("gn", {"norm.kind": "group", "norm.placement": "before"})
OTHERS = [(f"mine-{number}", {"norm.kind": "custom"}) for number in range(12)]
TWINS = [(f"batch-{number}", BEFORE[1]) for number in range(12)]


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


def test_a_name_has_the_same_colour_in_every_process() -> None:
    code = "from bnbench.palette import places; print(places([('mine-3', {})])['mine-3'])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) == places([OTHERS[3]])["mine-3"]
