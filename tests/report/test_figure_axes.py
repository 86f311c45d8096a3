"""Axes and panels of figures: where a value is, and how numbers are written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from bnbench.report.figures import style
from bnbench.report.reading import read_study
from tests.report.invented import invented
from tests.report.test_figures import BOTH, COLORS, SETUPS, figures, lines, study, well, x
from tests.runs import SMALL_YAML

SIZES = "axes: {data.batch_size: [2, 8]}\n"


@pytest.fixture(autouse=True)
def _in_our_style() -> Iterator[None]:
    with style.applied():
        yield


def test_null_beside_one_value_is_told_apart(tmp_path: Path) -> None:
    head = "setups: {bn: {norm: {kind: batch}}, gn: {norm: {kind: group, groups: 2}}}\n"
    drawn = figures(study(tmp_path, "axes: {norm.batch_size: [2, null]}\nseeds: 2\n", head=head))
    names = [label.get_text() for label in drawn["accuracy-by-setup"][1].axes[0].get_yticklabels()]
    assert sorted(names) == ["bn", "bn (normalization batch size 2)", "gn"]
    words, figure = drawn["accuracy-by-examples"]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["normalization batch size 2", "normalization batch size null"]
    assert words.endswith(
        " Without normalization batch size, and so the same in each of its panels: gn."
    )


def test_a_value_has_one_place_in_all_panels(tmp_path: Path) -> None:
    tell = lambda each: well(each) if each.optim.lr < 0.1 or each.data.batch_size < 9 else None  # noqa: E731
    found = read_study(invented(tmp_path, f"{SMALL_YAML}{SETUPS}{BOTH}seeds: 1\n", tell))
    _, figure = figures(found)["accuracy-by-data-batch-size"]
    drawn = [x(lines(axes, COLORS["bn"])[0]) for axes in figure.axes]
    assert drawn == [[2, 8, 32], [2, 8]]
    assert len({axes.get_xlim() for axes in figure.axes}) == 1


@pytest.mark.parametrize(
    ("ends", "words"),
    [((0.5, 300), "0.5 1 2 5 10 20 50 100 200"), ((1, 3e6), "10⁰ 10¹ 10² 10³ 10⁴ 10⁵ 10⁶"),
     ((1e-6, 8e-6), "1.5·10⁻⁶ 3·10⁻⁶ 4.5·10⁻⁶ 6·10⁻⁶ 7.5·10⁻⁶")],
)  # fmt: skip
def test_an_axis_writes_all_its_numbers_alike(ends: tuple[float, float], words: str) -> None:
    axes = Figure().subplots()
    axes.set(yscale="log", ylim=ends)
    style.plain_log_ticks(axes.yaxis)
    low, high = axes.get_ylim()
    shown = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    assert " ".join(each.get_text() for at, each in shown if low <= at <= high) == words
    for end, words in ((1900, "0 500 1,000 1,500"), (19000, "0 5k 10k 15k")):
        axes.set_xlim(0, end)
        style.count_on_x(axes)
        assert " ".join(each.get_text() for each in axes.get_xticklabels()).startswith(words)


def test_no_band_is_blank(tmp_path: Path) -> None:
    """Between a legend and its panels, and below the last words."""
    claim = "id: a, says: A, metric: test/running/accuracy, better: bn, worse: gn"
    for place, (axes, at) in enumerate((("", ""), (SIZES, ", at: {data.batch_size: 2}"))):
        path = tmp_path / str(place)
        path.mkdir()
        text = f"{axes}seeds: 3\nclaims: [{{{claim}, smallest_effect: 1{at}}}]\n"
        for name, (_, figure) in figures(study(path, text)).items():
            figure.draw_without_rendering()
            inches = figure.get_tightbbox()
            assert inches is not None
            assert inches.y0 < 0.2, name
            for legend in figure.legends:
                tops = [each.get_tightbbox() for each in figure.axes]
                above = max(each.y1 for each in tops if each is not None)
                low = legend.get_window_extent().y0
                assert (low - above) / figure.dpi < 0.25, name
