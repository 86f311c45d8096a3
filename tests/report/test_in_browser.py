"""What a person sees: the page in headless Chromium, wide and narrow, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bnbench.config import schema
from bnbench.report.reading import read_study
from bnbench.report.writing import make, write
from tests import chromium
from tests.chromium import CONTRAST, Page
from tests.report.invented import Told, invented
from tests.report.pages import CLAIM
from tests.runs import SMALL_YAML

pytestmark = pytest.mark.browser

LONG = "a-setup-with-a-name-that-does-not-end-and-has-no-place-to-break-at-all"
JUDGED = CLAIM.replace(
    "    worse",
    "    literature: of eleven points, for two images a batch, of nine for four, of three for 8\n"
    "    at: {data.batch_size: 4}\n    worse",
)
TEXT = f"""\
question: Which of these survives, and why would {LONG} be a part of the question?
setups:
  none: {{norm: {{kind: none}}}}
  bn: {{norm: {{kind: batch}}}}
  {LONG}: {{norm: {{kind: group, groups: 2}}}}
axes: {{data.batch_size: [4, 16], optim.lr: [0.01, 0.1, 1.0]}}
seeds: 6
tune: {{axis: optim.lr, by: val/accuracy}}
{JUDGED}"""


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
    with chromium.browser(path / "browser") as found:
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


@pytest.mark.parametrize("width", [800, 1000, 1100, 1280])
def test_tables_are_seen_whole(page: Page, width: int) -> None:
    shown_as(page, width=width, dark=False)
    tables = page.evaluate(
        "[...document.querySelectorAll('.table')]"
        ".map(each => [each.getAttribute('aria-label'), each.scrollWidth - each.clientWidth])"
    )
    assert [label for label, _ in tables] == [
        "Claims and verdicts",
        "Table of cells",
        "Tuning",
        "Every run",
    ]
    assert [label for label, beyond in tables if beyond > 0] == []


def test_short_names_are_not_broken(page: Page) -> None:
    spaces = page.evaluate(
        "[...document.querySelectorAll('.cells tbody th')]"
        ".map(each => [each.innerText.split(' ')[0], getComputedStyle(each).whiteSpace])"
    )
    assert dict(spaces) == {
        "none": "nowrap", "bn": "nowrap", LONG: "normal"
    }  # fmt: skip


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
