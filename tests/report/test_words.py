"""Numbers as people read them."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from bnbench.report import words, writing


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-1.5, "−1.5"),
        (1234.5, "1,230"),
        (0.01234, "0.0123"),
        (0.1, "0.1"),
        (99.96, "100"),
        (1e-5, "1.00e−05"),
        (2.5e7, "2.50e+07"),
        (inf, "∞"),
        (-inf, "−∞"),
        (nan, "–"),
        (None, "–"),
    ],
)
def test_number(value: float | None, expected: str) -> None:
    assert words.number(value) == expected


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (1.04, "points", "+1.0 points"),
        (-0.02, "points", "−0.02 points"),
        (0.0001, "points", "0.0 points"),
        (0.0, "points", "0.0 points"),
        (1.0, "doublings", "+1 doublings (×2)"),
        (-1.0, "doublings", "−1 doublings (×0.5)"),
        (inf, "doublings", "+∞ doublings"),
        (0.5, "decades", "+0.5 decades"),
        (0.25, "", "+0.25"),
        ("inf", "points", "+∞ points"),  # of the record
    ],
)
def test_difference(value: float | str, unit: str, expected: str) -> None:
    assert words.difference(value, unit) == expected


def test_a_mean_over_seeds() -> None:
    one = {"mean": 0.643, "interval": None, "values": [0.643]}
    two = {"mean": 0.65, "interval": None, "values": [0.643, 0.657]}
    three = {"mean": 0.643, "interval": (0.601, 0.689), "values": [0.62, 0.64, 0.669]}
    assert words.over_seeds(None) == "–"
    assert words.over_seeds(one) == "64.3"
    assert words.over_seeds(two) == "64.3, 65.7"
    assert words.over_seeds(three) == "64.3 [60.1, 68.9]"
    assert words.over_seeds(two, sign=True) == "+64.3, +65.7"
    assert words.over_seeds(three, sign=True) == "+64.3 [60.1, 68.9]"


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        (0.135, "eval mode is 13.5 points better than training mode"),
        (-0.02, "eval mode is 2.0 points worse than training mode"),
        (0.0004, "eval mode is as good as training mode"),
    ],
)
def test_which_mode_is_better(gap: float, expected: str) -> None:
    assert words.eval_mode(gap) == expected


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ({}, "4"),
        ({"at_chance": 1}, "4 (1 at chance)"),
        (
            {"at_chance": 4, "diverged": 2, "given_up": True},
            "4 (4 at chance) + 2 diverged (given up)",
        ),
        ({"completed": 0, "missing": 6}, "6 missing"),
    ],
)
def test_seeds_at_chance_are_some_of_those_that_completed(
    cell: dict[str, Any], expected: str
) -> None:
    none = dict.fromkeys(("at_chance", "diverged", "failed", "missing"), 0)
    assert words.seeds({"completed": 4, "given_up": False} | none | cell) == expected


def test_percent_and_interval() -> None:
    assert words.percent(0.12345) == "12.3"
    assert words.percent(-0.0001, sign=True) == "0.0"
    assert words.percent(0.01, sign=True) == "+1.0"
    assert words.percent(None) == "–"
    assert words.interval((-0.5, inf), "decades") == "−0.5 … +∞"
    assert words.interval((-inf, inf), "decades") == "–"
    assert words.interval(None, "points") == "–"
    assert words.p_value(0.0001) == "< 0.001"


EFFECT = {"n": 6, "mean": 1.5, "median": 1.2, "interval": [-0.5, 3.5], "coverage": 0.95}
LOST = {"n": 6, "mean": None, "median": "inf", "interval": [41.1, "inf"], "coverage": 0.96875}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            EFFECT | {"infinite": 0, "ties": 0, "differences": [1.0] * 6},
            "mean +1.5 points, 95 % interval −0.5 … +3.5, 6 seeds",
        ),
        (
            LOST | {"infinite": 4, "ties": 0, "differences": ["inf"] * 4 + [41.1, 50.0]},
            "at least +41.1 points, 96.9 % interval +41.1 … +∞, 6 seeds, 4 of 6 infinite: a run "
            "diverged or never reached its target",
        ),
        (
            LOST
            | {
                "median": "-inf",
                "interval": ["-inf", "inf"],
                "infinite": 6,
                "ties": 0,
                "differences": [-inf] * 6,
            },
            "median −∞ points, 96.9 % interval –, 6 seeds, 6 of 6 infinite: a run "
            "diverged or never reached its target",
        ),
        (
            EFFECT | {"n": 2, "infinite": 0, "ties": 0, "differences": [1.0, 2.0]},
            "+1.0 points and +2.0 points, 2 seeds, no interval",
        ),
        (
            EFFECT | {"n": 1, "infinite": 0, "ties": 0, "differences": [1.0]},
            "+1.0 points, 1 seed, no interval",
        ),
    ],
)
def test_the_effect_of_a_claim(found: dict[str, Any], expected: str) -> None:
    assert words.effect(found, "points") == expected


def test_on_pages_commands_are_code_and_the_rest_is_escaped() -> None:
    shown = writing.pages().filters["tied"]("95 % of `a <b>`, `c")
    assert shown == "95\u00a0% of <code>a &lt;b&gt;</code>, `c"


def test_a_column_is_called_by_all_of_its_key_where_the_end_says_too_little() -> None:
    both = ["data.batch_size", "norm.batch_size"]
    assert words.short_names(both) == {"data.batch_size": "bs", "norm.batch_size": "nbs"}
    assert [*words.short_names(["data.batch_size", "optim.lr"]).values()] == ["batch_size", "lr"]
    alone = ["norm.batch_size", "norm.momentum", "optim.lr"]
    assert [*words.short_names(alone).values()] == ["norm.batch_size", "norm.momentum", "lr"]
