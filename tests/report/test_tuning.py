"""Which value tuning takes, and which it must not take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bnbench.report.objections import beyond
from bnbench.report.reading import read_study
from bnbench.report.study import Cell, Choice, Quantity, best_of
from tests.report.invented import Told, invented


class Tried(Cell):
    """A cell of which nothing but the scores of its seeds is known."""

    def validation(self, quantity: Quantity = "accuracy") -> dict[int, float | None]:
        return dict(enumerate(self.point[quantity]))


TEXT = """\
setups: {a: , b: {norm: {kind: group}, axes: {optim.lr: [1, 2]}}}
axes: {data.batch_size: [2, 4], optim.lr: [0.1, 0.2, 0.4]}
tune: {axis: optim.lr, by: %s}
seeds: 2
"""


def test_the_best_mean_on_validation_wins_not_on_test(tmp_path: Path) -> None:
    def tell(config: Any) -> Told:
        rates = {0.1: 0.5, 0.2: 0.6, 0.4: 0.4, 1: 0.3, 2: 0.2}
        # Test says the opposite: it must not be read.
        return Told((rates[config.optim.lr],), test=1 - rates[config.optim.lr])

    found = read_study(invented(tmp_path, TEXT % "val/accuracy", tell)).choices
    assert [(each.setup, each.at, each.value, each.at_edge) for each in found] == [
        ("a", {"data.batch_size": 2}, 0.2, False),
        ("a", {"data.batch_size": 4}, 0.2, False),
        ("b", {"data.batch_size": 2}, 1, True),
        ("b", {"data.batch_size": 4}, 1, True),
    ]
    assert [len(each.values) for each in found] == [3, 3, 2, 2]


def test_values_without_an_order_have_no_end_to_be_at(tmp_path: Path) -> None:
    axes = (
        "axes: {data.inputs: [unit, standardized]}\ntune: {axis: data.inputs, by: val/accuracy}\n"
    )
    best = {"unit": 0.6, "standardized": 0.5}
    folder = invented(tmp_path, axes, lambda run: Told((best[run.data.inputs],)))
    (found,) = read_study(folder).choices
    assert (found.value, found.values) == ("unit", ("standardized", "unit"))
    assert not found.at_edge


@pytest.mark.parametrize("best", [4, None])
def test_null_is_one_of_the_values_where_it_means_something(
    tmp_path: Path, best: int | None
) -> None:
    text = """\
setups: {a: , b: {norm: {kind: group}}}
axes: {norm.batch_size: [2, 4, null]}
tune: {axis: norm.batch_size}
"""

    def tell(config: Any) -> Told:
        size = getattr(config.norm, "batch_size", best)
        return Told((0.6 if size == best else 0.5,))

    study = read_study(invented(tmp_path, text, tell))
    (found,) = study.choices
    assert (found.setup, found.value, found.values) == ("a", best, (2, 4, None))
    assert not found.at_edge
    chosen = [(cell.setup, cell.point["norm.batch_size"]) for cell in study.chosen]
    assert chosen == [("a", best), ("b", None)]


def test_null_alone_leaves_nothing_to_choose(tmp_path: Path) -> None:
    text = "axes: {norm.batch_size: [null]}\ntune: {axis: norm.batch_size}\n"
    (found,) = read_study(invented(tmp_path, text, lambda _: Told((0.5,)))).choices
    assert (found.value, found.values, found.at_edge) == (None, (None,), False)


@pytest.mark.parametrize(
    ("chosen", "values", "added"),
    [
        (3.0, (0.03, 0.3, 3.0), "30"),
        (0.0003, (0.0003, 0.003), "3e-05"),
        (0.3, (0.1, 0.3), "0.9"),
        (1.0, (0.8, 0.9, 1.0), "1.1"),
        (0.3, (0.3, 0.31), "0.29"),
    ],
)
def test_what_is_to_be_added_lies_outside(
    chosen: float, values: tuple[float, ...], added: str
) -> None:
    assert beyond(Choice("a", {}, chosen, values)) == added


def test_losses_are_tuned_downwards(tmp_path: Path) -> None:
    folder = invented(tmp_path, TEXT % "val/loss", lambda config: Told((config.optim.lr / 4,)))
    # The invented loss is 1 − accuracy.
    assert [each.value for each in read_study(folder).choices] == [0.4, 0.4, 2, 2]


@pytest.mark.parametrize(
    ("trials", "higher", "expected"),
    [
        ({1: [0.5, 0.5], 2: [0.9, None]}, True, 1),  # one that may diverge is not the best
        ({1: [None, None], 2: [0.1, None]}, True, 2),
        ({1: [None], 2: [None]}, True, 1),
        ({1: [0.5], 2: [0.6, 0.3]}, True, 1),
        ({1: [], 2: [0.1]}, True, 2),  # not tried
        ({1: [0.5], 2: [0.6]}, False, 1),
        ({1: [None], 2: [0.6]}, False, 2),
        ({1: [None], 2: [None]}, False, 1),
        ({1: [], 2: []}, True, None),
    ],
)
def test_best(trials: dict[int, list[float | None]], higher: bool, expected: int | None) -> None:
    by: Quantity = "accuracy" if higher else "loss"
    found = best_of([Tried(str(name), {by: scores}, ()) for name, scores in trials.items()], by)
    assert (found and found.setup) == (expected and str(expected))
