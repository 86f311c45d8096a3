"""The page of a diagnosis: whole without network or scripts, true to the figures, whoever's names
are in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

import bnbench
from bnbench.catalogue import FINDINGS
from bnbench.diagnosis import Diagnosis, page, pictures
from bnbench.diagnosis.result import Finding, Score
from tests import chromium
from tests.chromium import CONTRAST, Page
from tests.diagnosis.patients import loader, network, steps, trained

EVIL = "</style><script>alert(1)</script>&$x_1$"


def named(names: list[str], momentum: float = 0.1) -> nn.Module:
    """A network whose layers have these names; its statistics are those of few updates."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 7, stride=7))
    for name in names:
        model._modules[name] = nn.BatchNorm2d(4, momentum=momentum)  # names of any kind
    model.add_module("end", nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    return model


def of(model: nn.Module) -> Diagnosis:
    return bnbench.diagnose(model, loader(32, count=128), images=128)


@pytest.fixture(scope="module")
def stale() -> Diagnosis:
    return of(steps(network(momentum=0.001), 150))


@pytest.fixture(scope="module")
def text(stale: Diagnosis) -> str:
    return stale.html()


@pytest.fixture(scope="module")
def deep() -> Diagnosis:
    """150 layers with long names."""
    return of(named([f"backbone:features:stage{k // 10}:block{k}:norm" for k in range(150)]))


class Rows(HTMLParser):
    """The rows of all tables, and every tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1][-1] += data


def test_the_page_has_the_figures_and_the_verdict_first(stale: Diagnosis, text: str) -> None:
    ((title, verdict),) = re.findall(r"<h1>(.*?)</h1>\s*<p>(.*?)</p>", text)
    running, batch = stale.reading("running"), stale.reading("batch")
    pooled = stale.reading("population")
    for each in (running, batch):
        assert f"loss {each.loss:.3f} and" in verdict
    before, after = (f"{100 * (each.accuracy or 0):.1f}" for each in (running, pooled))
    said = f"stale: {before} % right in eval(), {after} % right with recalibrated statistics"
    assert title.replace("\N{NO-BREAK SPACE}", " ") == said
    rows = {row[0]: row[1:] for row in Rows(text).rows}
    assert rows["running"][1] == f"{running.loss:.3f}"
    assert rows["population"][0] == "32"
    layer = stale.layers[1]
    assert rows[layer.name][-1] == f"{layer.blame:+.3f}"
    assert stale.findings[0].code in text.replace("&#34;", '"')
    assert "<strong>What to do:</strong> recalibrate (--fix)" in text


@pytest.mark.parametrize("ratio", [1.0, 1.5, 8.0, 12.0, 45.0, 300.0, 2e3, 1e7])
def test_an_axis_of_variances_has_several_ticks(ratio: float) -> None:
    for low in (0.015, 0.02, 0.04, 0.07):
        axes = Figure().subplots()
        variance = torch.tensor([low, low * ratio])
        pictures._against(axes, variance, [variance], log_scale=True)
        for axis, (first, last) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            seen = [tick for tick in axis.get_majorticklocs() if first <= tick <= last]
            assert 2 <= len(seen) <= 8, (low, seen)


def test_dots_of_one_running_variance_are_inside_the_frame() -> None:
    """As at momentum 0.001, where all are near the initial one."""
    axes = Figure().subplots()
    running, population = torch.linspace(0.836, 0.84, 8), torch.linspace(0.05, 0.3, 8)
    pictures._against(axes, running, [population], log_scale=True)
    x, _ = axes.transAxes.inverted().transform(axes.transData.transform((0.84, 0.3)))
    assert 0.9 < x < 0.97
    assert any(0.5 <= tick < 0.84 for tick in axes.xaxis.get_majorticklocs())


@pytest.mark.parametrize(
    ("widths", "groups"), [((12, 24, 32), 4), ((16, 64), 8), ((21, 7), 7), ((5, 8), 1)]
)
def test_the_code_for_groups_splits_every_layer(
    stale: Diagnosis, widths: tuple[int, ...], groups: int
) -> None:
    do = FINDINGS["batch-too-small"].do
    small = Finding(name="batch-too-small", harmful=True, evidence="", do=do)
    layers = tuple(replace(stale.layers[0], channels=width) for width in widths)
    text = replace(stale, layers=layers, findings=(small,), running={}, population={}).html()
    assert f"groups={groups})" in text
    model = nn.Sequential(*map(nn.BatchNorm1d, widths))
    bnbench.swap(model, "group", groups=groups)


def test_nothing_is_loaded_and_nothing_runs(text: str) -> None:
    tags = Rows(text).tags
    assert "script" not in {tag for tag, _ in tags}
    assert not [each for _, attrs in tags for each in attrs if each.startswith("on")]
    loaded = [attrs.get(name) for tag, attrs in tags for name in ("src", "href") if tag != "a"]
    assert {each for each in loaded if each and not each.startswith("#")} == {"data:,"}
    assert "default-src 'none'" in text
    assert "url(http" not in text


def test_a_recalibrated_checkpoint_has_its_row(stale: Diagnosis, text: str) -> None:
    assert "momentum is still" not in text
    fixed = {"train": Score("train", "running", None, 128, 0.1234, 0.9)}
    of_fixed = page.page(stale, "train.py:make", fixed)  # type: ignore[arg-type]
    rows = {row[0]: row[1:] for row in Rows(of_fixed).rows}
    assert rows["running, in the fixed checkpoint"][1:] == ["0.123", "90.0\N{NO-BREAK SPACE}%"]
    assert "momentum is still 0.001 in 3 layers" in of_fixed
    assert "train.py:make" in of_fixed


def test_a_notebook_shows_the_page_in_a_frame_of_its_own(stale: Diagnosis, text: str) -> None:
    ((tag, attrs),) = Rows(stale._repr_html_()).tags
    assert tag == "iframe"
    assert attrs["srcdoc"] == text
    assert "sandbox" in attrs


def test_names_of_others_are_text() -> None:
    found = of(named([EVIL, "_hidden", "\x1b[31mred\x00"]))
    text = found.html()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert EVIL in [row[0] for row in Rows(text).rows]
    assert "\x1b" not in text.replace(found.layers[2].name, "")
    target = page.page(found, EVIL)
    assert "<script" not in target


def test_a_network_without_layers_has_no_pictures() -> None:
    found = of(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
    assert pictures.drawn(found) == []
    assert "no layer depends on batch statistics: loss" in found.html()


def test_code_that_says_the_opposite_of_the_advice_is_not_shown() -> None:
    """Of a network that was trained on its initial statistics."""
    model = network().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for x, y in loader(64, count=6400):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    found = of(model)
    assert found.findings[0].do.startswith("do not recalibrate")
    assert found.findings[0].code == ""
    assert "<pre" not in found.html()


def drawn_layers(found: Diagnosis) -> str:
    return next(each.svg for each in pictures.drawn(found) if each.name == "layers-off")


def test_each_layer_has_its_dots_and_those_far_off_stand_out(stale: Diagnosis, text: str) -> None:
    svg = drawn_layers(stale)
    assert "Red diamonds are far off" in text
    red = len(re.findall(r"<use [^>]*fill: #bd1f01", svg))
    far = sum(each.mean_error >= 0.1 for each in stale.layers)  # type: ignore[operator]
    far += sum(each.variance_error >= 0.2 for each in stale.layers)  # type: ignore[operator]
    assert red == far > 0
    healthy = bnbench.diagnose(trained(), loader(count=512), images=512)
    assert "fill: #bd1f01" not in drawn_layers(healthy)
    assert "None is far off" in healthy.html()


@pytest.mark.parametrize("blame", [-1.0, 1.0])
def test_how_far_means_are_off_can_be_read_and_a_blame_below_zero_is_explained(
    stale: Diagnosis, blame: float
) -> None:
    layers = tuple(replace(each, mean_error=0.62, blame=blame) for each in stale.layers)
    found = replace(stale, layers=layers)
    ((_, _, caption, figure),) = pictures._off(found)
    low, high = figure.axes[0].get_xlim()
    ticks = figure.axes[0].xaxis.get_majorticklocs()
    assert {0.2, 0.5} <= {round(tick, 3) for tick in ticks if low <= tick <= high}
    for text in (caption, str(found)):
        assert ("; below 0: other layers'" in " ".join(text.split())) == (blame < 0)


def test_a_caption_says_which_layers_are_not_drawn() -> None:
    """After a weight that is not finite nothing is known."""
    model = trained()
    model.get_parameter("3.weight").data[0] = float("nan")
    text = of(model).html()
    assert "A row for each BatchNorm layer whose error is known, 1 of 3, in" in text
    assert "non-finite: loss not finite and" in text
    assert "in eval()</h1>" in text  # and nothing that it is compared to


def test_names_in_a_picture_of_many_layers_do_not_overlap(deep: Diagnosis) -> None:
    text = deep.html()
    svg = text[text.index('id="figure-layers-off"') : text.index('id="figure-channels"')]
    names = re.findall(r"translate\(\S+ ([\d.]+)\)\S*\"?>…\S+</text>|y=\"([\d.]+)\"[^>]*>…", svg)
    places = sorted(float(one or other) for one, other in names)
    assert len(places) > 20
    assert min(b - a for a, b in pairwise(places)) > 8
    assert "the worst ones have their names" in svg
    assert len([row for row in Rows(text).rows if row[0].startswith("backbone")]) == 150


def test_a_layer_that_is_called_twice_has_a_colour_for_each_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.head = nn.BatchNorm2d(1), nn.Linear(784, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return cast(torch.Tensor, self.head((self.norm(x) + self.norm(3 * x + 4)).flatten(1)))

    (_, channels) = pictures.drawn(of(Twice()))
    assert ">call 1</text>" in channels.svg
    assert ">call 2</text>" in channels.svg
    assert "each call has its own" in channels.caption
    (_, once) = pictures.drawn(of(trained()))
    assert "call" not in once.caption


# --- in a browser -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown(
    tmp_path_factory: pytest.TempPathFactory, stale: Diagnosis, deep: Diagnosis
) -> Iterator[dict[str, Page]]:
    path = tmp_path_factory.mktemp("page")
    for name, found in (("stale", stale), ("deep", deep)):
        (path / f"{name}.html").write_text(found.html())
    with chromium.browser(path / "browser") as browser:
        yield {"browser": browser, "path": path}  # type: ignore[dict-item]
        assert not browser.errors


@pytest.mark.browser
@pytest.mark.parametrize("name", ["stale", "deep"])
@pytest.mark.parametrize("width", [1280, 800, 400])
def test_nothing_sticks_out_and_words_can_be_read(
    shown: dict[str, Page], name: str, width: int
) -> None:
    browser, path = shown["browser"], shown["path"]
    assert isinstance(path, Path)
    browser.open((path / f"{name}.html").as_uri())
    browser.wait_for("document.readyState === 'complete' && location.protocol === 'file:'")
    for dark in (False, True):
        browser.resize(width, 900)
        browser.prefer(dark=dark)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        ratios = browser.evaluate(
            "[...document.querySelectorAll('figure svg text')].map(each => "
            f"{CONTRAST}(getComputedStyle(each).fill, "
            "getComputedStyle(each.closest('.picture')).backgroundColor))"
        )
        assert min(ratios) >= 4.5
    boxes = browser.evaluate(
        "[...document.querySelectorAll('figure svg')].map(each => each.getBoundingClientRect())"
        ".map(box => [box.width, box.height])"
    )
    assert len(boxes) == 2
    assert all(width > 300 and height > 60 for width, height in boxes)
