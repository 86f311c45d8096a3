"""What a person sees: the page in headless Chromium, wide and narrow, light and dark."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bnbench.config import schema
from bnbench.report.figures.style import looks
from bnbench.report.reading import read_study
from bnbench.report.writing import make, write
from bnbench.store import ExperimentFolder
from tests import chromium
from tests.chromium import Page
from tests.report.invented import Told, invented
from tests.report.test_report import CLAIM
from tests.runs import SMALL_YAML
from tests.studies import finished, served

pytestmark = pytest.mark.browser

LONG = "a-setup-with-a-name-that-does-not-end-and-has-no-place-to-break-at-all"
TEXT = f"""\
question: Which of these survives, and why would {LONG} be a part of the question?
setups:
  none: {{norm: {{kind: none}}}}
  bn: {{norm: {{kind: batch}}}}
  {LONG}: {{norm: {{kind: group, groups: 2}}}}
axes: {{data.batch_size: [4, 16], optim.lr: [0.01, 0.1, 1.0]}}
seeds: 6
tune: {{axis: optim.lr, by: val/accuracy}}
{CLAIM.replace("    worse", "    at: {data.batch_size: 4}" + chr(10) + "    worse")}"""

# The ratio of contrast between two colours as CSS has them: WCAG 2.2, "contrast ratio".
CONTRAST = """
((one, other) => {
  const light = color => {
    const [r, g, b] = color.match(/[0-9.]+/g).slice(0, 3).map(Number)
      .map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
})"""


def program() -> str:
    found = chromium.find()
    if found is None:
        message = "there is no Chromium on this machine (Debian: apt-get install chromium)"
        if os.environ.get("BNBENCH_BROWSER") == "required":
            pytest.fail(message)
        pytest.skip(message)
    return found


def tell(config: schema.RunConfig) -> Told:
    """BatchNorm is better; plain networks diverge at the highest rate."""
    if config.setup == "none" and config.optim.lr == 1.0:
        return Told(curve=[0.1], state="diverged")
    value = (
        0.5 + 0.1 * (config.setup == "bn") + 0.01 * config.seed - 0.2 * abs(config.optim.lr - 0.1)
    )
    return Told(curve=[value / 3, value / 2, value], test=value)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser on a report."""
    path = tmp_path_factory.mktemp("page")
    read = read_study(invented(path, SMALL_YAML + TEXT, tell))
    write(read, make(read))
    with chromium.browser(program(), path / "browser") as found:
        found.open((read.folder.path / "report.html").as_uri())
        found.wait_for("document.readyState === 'complete' && location.protocol === 'file:'")
        yield found
        assert not found.errors


def shown_as(page: Page, *, width: int, dark: bool, media: str = "screen") -> None:
    """Look at it in a window of this width."""
    page.resize(width, 900)
    page.prefer(dark=dark, media=media)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_sticks_out(page: Page, width: int, dark: bool) -> None:
    shown_as(page, width=width, dark=dark)
    assert page.evaluate("innerWidth") == width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    out = page.evaluate(
        "[...document.querySelectorAll('h1, h2, p, li, figcaption, .table, .picture, pre, dl')]"
        ".filter(each => each.getBoundingClientRect().right > innerWidth + 1)"
        ".map(each => each.outerHTML.slice(0, 80))"
    )
    assert out == []


@pytest.mark.parametrize("width", [800, 1100, 1280])
def test_the_table_of_cells_is_seen_whole(page: Page, width: int) -> None:
    shown_as(page, width=width, dark=False)
    table = "document.querySelector('[aria-label=\"Table of cells\"]')"
    assert page.evaluate(f"{table}.scrollWidth") <= page.evaluate(f"{table}.clientWidth")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_figures_are_seen_and_words_in_them_can_be_read(page: Page, dark: bool) -> None:
    shown_as(page, width=1280, dark=dark)
    boxes = page.evaluate(
        "[...document.querySelectorAll('figure svg')].map(each => each.getBoundingClientRect())"
        ".map(box => [box.width, box.height])"
    )
    assert len(boxes) >= 8
    assert all(width > 300 and height > 80 for width, height in boxes)
    ratios: list[Any] = page.evaluate(
        "[...document.querySelectorAll('figure svg text')].map(each => "
        f"{CONTRAST}(getComputedStyle(each).fill, "
        "getComputedStyle(each.closest('.picture')).backgroundColor))"
    )
    assert len(ratios) > 100
    assert min(ratios) >= 4.5
    # The picture's own ground is the page's, not a white one.
    grounds = page.evaluate(
        "[...document.querySelectorAll('figure svg')].map(each => "
        "getComputedStyle(each.querySelector('path')).fill)"
    )
    assert set(grounds) == {"rgb(21, 24, 28)" if dark else "rgb(255, 255, 255)"}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_words_of_the_page_can_be_read(page: Page, dark: bool) -> None:
    shown_as(page, width=1280, dark=dark)
    ground = (
        "(each => { while (each && getComputedStyle(each).backgroundColor === 'rgba(0, 0, 0, 0)')"
        " each = each.parentElement; return getComputedStyle(each || document.documentElement)"
        ".backgroundColor; })"
    )
    worst = page.evaluate(
        "Math.min(...[...document.querySelectorAll('p, li, td, th, a, figcaption, caption, dt, dd,"
        " .verdict, .small, .pm, pre')].map(each => "
        f"{CONTRAST}(getComputedStyle(each).color, {ground}(each))))"
    )
    assert worst >= 4.5


def test_it_asks_the_network_for_nothing(page: Page) -> None:
    found = page.evaluate("performance.getEntriesByType('resource').map(each => each.name)")
    assert [name for name in found if not name.startswith("data:")] == []
    assert page.evaluate("document.scripts.length") == 0


def test_in_print_nothing_is_hidden_behind_a_scroll_bar(page: Page) -> None:
    shown_as(page, width=1000, dark=False, media="print")
    hidden = page.evaluate(
        "[...document.querySelectorAll('.table, .picture, pre')]"
        ".filter(each => each.scrollHeight > each.clientHeight + 2).length"
    )
    assert hidden == 0
    shown_as(page, width=1280, dark=False)


def test_a_setup_has_the_colour_that_tensorboard_gives_it(tmp_path: Path) -> None:
    folder: ExperimentFolder = finished(tmp_path)
    expected = {setup: look.color for setup, look in looks(read_study(folder)).items()}
    rows = (
        "deep('runs-data-table tb-data-table-content-row').map(row => [row.innerText, "
        "getComputedStyle(deep('.run-color-swatch', row)[0]).backgroundColor])"
    )
    with served(folder) as board, chromium.browser(program(), tmp_path / "browser") as found:
        found.open(board.link)
        found.wait_for(f"{rows}.length === 12")
        shown = found.evaluate(rows)
    colors: dict[str, set[str]] = {}
    for text, color in shown:
        red, green, blue = (int(each) for each in color[4:-1].split(","))
        colors.setdefault(text.strip().split("_")[0], set()).add(f"#{red:02x}{green:02x}{blue:02x}")
    assert colors == {setup: {color} for setup, color in expected.items()}
