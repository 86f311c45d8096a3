"""Figures: what is drawn, where, and that captions are true of it; by matplotlib's own objects."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bnbench.config import schema
from bnbench.report.figures import _figures, style
from bnbench.report.looks import judged
from bnbench.report.reading import read_study
from bnbench.report.study import Study
from tests.report.invented import Told, invented
from tests.runs import SMALL_YAML

SETUPS = """\
setups:
  none: {norm: {kind: none}}
  bn: {norm: {kind: batch}}
  gn: {norm: {kind: group, groups: 2}}
"""
COLORS = {"none": "#717581", "bn": "#3f90da", "gn": "#e76300"}
SIZES = "axes: {data.batch_size: [2, 8, 32]}\n"
RATED = ["learning rate 0.01", "learning rate 0.1"]
RATES = "axes: {optim.lr: [0.01, 0.1]}\n"
BOTH = "axes: {data.batch_size: [2, 8, 32], optim.lr: [0.01, 0.1]}\n"
TUNE = "tune: {axis: optim.lr, by: val/accuracy}\n"


@pytest.fixture(autouse=True)
def _in_our_style() -> Iterator[None]:
    with style.applied():
        yield


def value(config: schema.RunConfig) -> float:
    """An accuracy that is another one for each run."""
    offset = {"none": 0.0, "bn": 0.1, "gn": 0.2}.get(config.setup, 0.0)
    return (
        0.4 + offset + 0.002 * config.data.batch_size + 0.1 * config.optim.lr + 0.003 * config.seed
    )


def well(config: schema.RunConfig) -> Told:
    end = value(config)
    gap = 0.03 if config.setup == "bn" else 0.0
    speed = 10.0 ** (2 + config.seed)
    return Told(curve=[end / 3, end / 2, end], test=end, gap=-gap, images_per_second=speed)


def far_above_chance(config: schema.RunConfig) -> Told:
    """Lowest without normalization."""
    return Told(curve=[0.9], test=0.97 if config.setup == "none" else 0.99)


def unstable(config: schema.RunConfig) -> Told:
    """The plain network diverges with some seeds at the higher rate."""
    if config.setup == "none" and config.optim.lr == 0.1 and config.seed != 1:
        return Told(curve=[0.1, 0.1], state="diverged")
    return well(config)


def study(
    path: Path, text: str, tell: Callable[[schema.RunConfig], Told] = well, head: str = SETUPS
) -> Study:
    data = SMALL_YAML.replace("classes: 4", "classes: 2")
    return read_study(invented(path, data + head + text, tell))


def figures(found: Study) -> dict[str, tuple[str, Figure]]:
    """Caption and figure by name."""
    return {name: (words, figure) for name, _, _, words, figure in _figures(found, judged(found))}


def lines(axes: Axes, color: str) -> list[Line2D]:
    """Lines over the data in a setup's colour: no dots, crosses or rings."""
    return [
        each
        for each in axes.lines
        if each.get_color() == color
        and each.get_linestyle() != "None"
        and np.size(each.get_xdata()) > 1
    ]


def x(line: Line2D) -> list[float]:
    return [float(each) for each in np.asarray(line.get_xdata())]


def y(line: Line2D) -> list[float]:
    return [float(each) for each in np.asarray(line.get_ydata())]


def bands(axes: Axes) -> int:
    return sum(isinstance(each, PolyCollection) for each in axes.collections)


def labels(figure: Figure) -> tuple[str, str]:
    return figure.get_supxlabel(), figure.get_supylabel()


def keys(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_points_are_at_their_value_and_few_seeds_are_lines(tmp_path: Path, seeds: int) -> None:
    found = study(tmp_path, f"{SIZES}seeds: {seeds}\n")
    words, figure = figures(found)["accuracy-by-data-batch-size"]
    (axes,) = figure.axes
    for setup, color in COLORS.items():
        drawn = lines(axes, color)
        assert len(drawn) == (seeds if seeds < 3 else 1)
        assert all(x(line) == [2, 8, 32] for line in drawn)
        ends = [
            [
                100 * value(run.config)
                for run in found.runs
                if run.setup == setup and run.seed == seed
            ]
            for seed in range(seeds)
        ]
        means = [np.mean(ends, axis=0)] if seeds == 3 else ends
        assert [y(line) for line in drawn] == pytest.approx(np.array(means))
    assert bands(axes) == (3 if seeds == 3 else 0)
    assert not any(isinstance(each, LineCollection) for each in axes.collections)
    assert labels(figure) == ("batch size (images)", "test accuracy (%)")
    assert ("95 %" in words) == (seeds == 3)
    assert ("Each seed a line" in words) == (seeds < 3)


def test_values_that_are_near_each_other_share_a_tick(tmp_path: Path) -> None:
    """A setup with rates of its own brings some that are next to those of the others."""
    own = SETUPS.replace("{kind: batch}}", "{kind: batch}, axes: {optim.lr: [0.1, 0.4, 1.6, 6.4]}}")
    rates = "axes: {data.batch_size: [2, 8, 32], optim.lr: [0.03, 0.1, 0.3, 1.0]}\n"
    found = study(tmp_path, f"{rates}{TUNE}seeds: 1\n", head=own)
    _, figure = figures(found)["accuracy-by-optim-lr"]
    for axes in figure.axes:
        places = [text.get_window_extent() for text in axes.get_xticklabels()]
        assert all(a.x1 < b.x0 for a, b in pairwise(places))
        assert len(places) == 5  # of 7 values


def test_chance_is_a_line_where_it_is_near_and_words_where_it_is_far(tmp_path: Path) -> None:
    (tmp_path / "near").mkdir()
    (tmp_path / "far").mkdir()
    _, near = figures(study(tmp_path / "near", f"{RATES}seeds: 1\n"))["accuracy-by-optim-lr"]
    found = study(tmp_path / "far", f"{RATES}seeds: 1\n", far_above_chance)
    _, far = figures(found)["accuracy-by-optim-lr"]
    for figure in (near, far):
        (axes,) = figure.axes
        assert [50.0, 50.0] in [y(line) for line in axes.lines]  # of two classes
        assert "chance (50 %)" in keys(figure)
        low, high = axes.get_ylim()
        named = [text.get_text() for text in axes.texts]
        assert (low < 50 < high) == (named == [])
        assert named in ([], ["chance (50 %) ↓"])
    assert near.axes[0].get_ylim()[0] < 50 < far.axes[0].get_ylim()[0]
    (axes,) = far.axes
    lowest = axes.transData.transform((0, 97))[1]
    assert axes.texts[0].get_window_extent().y1 < lowest - 4  # pixels; a marker's radius is 3


def test_learning_curves_show_chance_words_and_what_diverged(tmp_path: Path) -> None:
    drawn = figures(study(tmp_path, f"{RATES}seeds: 2\n", unstable))
    for name, expected, level in (
        ("accuracy-by-examples", ("training images seen", "validation accuracy (%)"), 50.0),
        ("accuracy-by-seconds", ("training time (s)", "validation accuracy (%)"), 50.0),
        ("loss-by-examples", ("training images seen", "validation loss (nats)"), math.log(2)),
    ):
        words, figure = drawn[name]
        assert labels(figure) == expected
        low, high = figure.axes
        titles = [axes.get_title(loc="left") for axes in figure.axes]
        assert titles == RATED
        for axes in figure.axes:
            assert [level, level] in [y(line) for line in axes.lines]
            assert bands(axes) == 0
            assert len(lines(axes, COLORS["gn"])) == 2
            assert len(lines(axes, COLORS["bn"])) == 4, "and under batch statistics"
        crosses = [
            [each for each in axes.lines if each.get_marker() == "x"] for axes in (low, high)
        ]
        assert [len(each) for each in crosses] == [0, 1]
        assert "diverged" in keys(figure)
        assert words == (
            "Each seed a line. Dotted: the same weights under batch statistics; other lines: "
            "running statistics. ×: where a seed diverged."
        )


@pytest.mark.parametrize(("evaluations", "first"), [(2, -0.3), (3, -0.3), (3, -0.05)])
def test_the_gap_is_drawn_against_steps(tmp_path: Path, evaluations: int, first: float) -> None:
    def lagging(config: schema.RunConfig) -> Told:
        gaps = [first - 0.01 * config.seed, -0.04, 0.002 * config.seed][:evaluations]
        return Told(curve=[0.5] * evaluations, gaps=gaps if config.setup == "bn" else [0, 0, 0])

    found = figures(study(tmp_path, f"{SIZES}seeds: 3\n", lagging))
    assert ("gap-by-steps" in found) == (evaluations == 3), "two are no course"
    for words, figure in [found[name] for name in found if name == "gap-by-steps"]:
        for size, axes in zip((2, 8, 32), figure.axes, strict=True):
            assert axes.get_title(loc="left") == f"batch size {size}"
            (line,) = lines(axes, COLORS["bn"])
            assert bands(axes) == 1
            assert x(line) == [10, 20, 30]
            assert y(line) == pytest.approx([100 * first - 1, -4, 0.2])
        scale = "symlog" if first == -0.3 else "linear"
        assert {axes.get_yscale() for axes in figure.axes} == {scale}
        assert ("logarithmic beyond" in words) == (scale == "symlog")
        assert keys(figure) == ["bn", "above: eval mode better"], "the others have no gap"
        assert "below 0, training mode is better" in words


def test_nothing_is_chosen_over_an_axis_without_tuning(tmp_path: Path) -> None:
    drawn = figures(study(tmp_path, f"{BOTH}seeds: 3\n"))
    words, figure = drawn["accuracy-by-examples"]
    assert len(figure.axes) == 6
    assert "validation" not in words
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == [
        f"batch size {size}" for size in (2, 8, 32)
    ]
    assert [figure.axes[n].get_ylabel() for n in (0, 3)] == RATED
    for size, axes in zip((2, 8, 32) * 2, figure.axes, strict=True):
        rate = 0.01 if axes in figure.axes[:3] else 0.1
        (line,) = lines(axes, COLORS["none"])
        assert y(line)[-1] == pytest.approx(100 * (0.4 + 0.002 * size + 0.1 * rate + 0.003))
    _, figure = drawn["accuracy-by-data-batch-size"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == RATED
    words, figure = drawn["cost"]
    assert "best" in words, "eighteen cells are too many for rows"
    end = max(max(x(line)) for line in figure.axes[0].lines)
    assert 1.15 * 10_000 < end < figure.axes[0].get_xlim()[1], "the whole interval"


def test_what_is_tuned_is_chosen_and_said(tmp_path: Path) -> None:
    drawn = figures(study(tmp_path, f"{BOTH}seeds: 3\n{TUNE}"))
    said = "Each setup at its learning rate chosen on validation."
    for name, panels in (
        ("accuracy-by-examples", 3),
        ("accuracy-by-data-batch-size", 1),
        ("gap-by-data-batch-size", 1),
    ):
        words, figure = drawn[name]
        assert said in words
        assert len(figure.axes) == panels
    words, figure = drawn["accuracy-by-optim-lr"]
    assert said not in words
    assert len(figure.axes) == 3
    assert "chosen on validation" in keys(figure)


def test_lost_seeds_are_counted_and_have_no_band(tmp_path: Path) -> None:
    words, figure = figures(study(tmp_path, f"{RATES}seeds: 3\n", unstable))["accuracy-by-optim-lr"]
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["2/3"]
    (cross,) = [each for each in axes.lines if each.get_marker() == "x"]
    assert x(cross) == [0.1]
    assert cross.get_color() == COLORS["none"]
    bottom, top = axes.get_ylim()
    lowest = min(min(y(line)) for color in COLORS.values() for line in lines(axes, color))
    assert y(cross)[0] < (lowest - bottom) / (top - bottom), "below all that has a value"
    assert "diverged or failed" in keys(figure)
    assert "×: seeds that diverged or failed, of how many" in words
    assert "no band where fewer than three have a value" in words
    (single,) = [each for each in axes.collections if isinstance(each, LineCollection)]
    assert [tuple(each[:, 0]) for each in single.get_segments()] == [(0.01, 0.01)]


def test_words_on_an_axis_stand_side_by_side(tmp_path: Path) -> None:
    found = study(tmp_path, "axes: {model.activation: [relu, tanh]}\nseeds: 3\n")
    words, figure = figures(found)["accuracy-by-model-activation"]
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["relu", "tanh"]
    assert all(lines(axes, color) == [] for color in COLORS.values())
    assert bands(axes) == 0
    assert labels(figure)[0] == "activation"
    assert "its 95 % interval as a line" in words


def test_null_has_no_place_on_an_axis_and_is_said(tmp_path: Path) -> None:
    """To GroupNorm the axis means nothing: that it is not along it is no news."""
    drawn = figures(study(tmp_path, "axes: {norm.batch_size: [2, 4, null]}\nseeds: 3\n"))
    for name in ("accuracy-by-norm-batch-size", "gap-by-norm-batch-size"):
        words, figure = drawn[name]
        assert words.count(" Not drawn: bn with normalization batch size null.") == 1
        assert keys(figure).count("bn") == 1
        assert "gn" not in keys(figure)


def test_without_axes_each_setup_is_a_row(tmp_path: Path) -> None:
    read = study(tmp_path, "seeds: 2\n")
    drawn = figures(read)
    words, figure = drawn["accuracy-by-setup"]
    (axes,) = figure.axes
    assert words == "Each seed a marker. Dashed line: chance (50 %)."
    assert [label.get_text() for label in axes.get_yticklabels()] == ["none", "bn", "gn"]
    seeds = {each.get_color(): x(each) for each in axes.lines if each.get_linestyle() == "None"}
    ends = [100 * value(run.config) for run in read.runs if run.setup == "bn"]
    assert seeds[COLORS["bn"]] == pytest.approx(ends)
    words, figure = drawn["gap-by-setup"]
    assert "below 0, training mode is better" in words
    assert figure.axes[0].get_xlabel() == "eval mode better by (points)"
    assert [0.0, 0.0] in [x(line) for line in figure.axes[0].lines]
    (name,) = figure.axes[0].get_yticklabels()
    assert name.get_text() == "bn", "the others have no batch statistics"


def test_many_values_are_cut_and_said(tmp_path: Path) -> None:
    sizes = list(range(1, 9))
    found = study(tmp_path, f"axes: {{data.batch_size: {sizes}}}\nseeds: 1\n")
    words, figure = figures(found)["accuracy-by-examples"]
    assert len(figure.axes) == 6
    assert "Not all values of batch size are shown." in words


CLAIM = """\
claims:
  - {id: better, says: BatchNorm is more accurate, metric: test/running/accuracy, better: bn,
     worse: none, smallest_effect: 1, direction: up}
"""


@pytest.mark.parametrize("seeds", [2, 3])
def test_differences_of_two_seeds_have_no_interval(tmp_path: Path, seeds: int) -> None:
    words, figure = figures(study(tmp_path, f"seeds: {seeds}\n{CLAIM}"))["paired-differences"]
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "BatchNorm is more accurate (points)"
    intervals = [line for line in axes.lines if y(line) == [-0.4, -0.4]]
    assert len(intervals) == (seeds == 3)
    assert ("95 % interval" in words) == (seeds == 3)
    (dots,) = [line for line in axes.lines if line.get_marker() == "."]
    assert x(dots) == pytest.approx([10.0] * seeds)


def test_a_setup_has_its_colour_in_every_experiment(tmp_path: Path) -> None:
    head = "setups: {mine: {norm: {kind: group, groups: 2}}, bn: {norm: {kind: batch}}}\n"
    found = study(tmp_path, "seeds: 1\n", head=head)
    assert {setup: look.color for setup, look in style.looks(found).items()} == {
        "mine": COLORS["gn"],
        "bn": COLORS["bn"],
    }
