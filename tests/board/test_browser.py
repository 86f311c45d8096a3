"""What a person sees: every tab of a finished experiment in headless Chromium."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from bnbench.board.serve import deep_link, setups_of
from bnbench.palette import color
from bnbench.report.figures.style import looks
from bnbench.report.reading import read_study
from bnbench.sinks.tensorboard.tabs import METRICS
from bnbench.store import ExperimentFolder
from tests import chromium
from tests.chromium import Page
from tests.studies import QUESTION, Served, served

pytestmark = pytest.mark.browser

MARGINS = "tf-custom-scalar-margin-chart-card"
LINES = "tf-custom-scalar-multi-line-chart-card"
COMPLETED = 8  # two setups × two batch sizes × two seeds; the third setup diverges at once
RUNS = 12


@pytest.fixture(scope="module")
def board(study: ExperimentFolder) -> Iterator[Served]:
    """TensorBoard on the study."""
    with served(study) as found:
        yield found
    assert found.process.returncode == 130


@pytest.fixture(scope="module")
def page(board: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser on it, on whatever tab."""
    with chromium.browser(tmp_path_factory.mktemp("browser"), size=(1280, 1000)) as found:
        found.resize(1280, 1000)
        found.open(board.link)
        yield found
        assert not found.errors


def tab(page: Page, name: str) -> None:
    """Go to a tab."""
    address = urlsplit(str(page.evaluate("location.href")))
    page.open(f"http://{address.netloc}/#{name}")


def wait_for_counts(page: Page, parent: str, child: str, expected: list[int]) -> None:
    """Wait until so many of one kind are inside of each of another; else say how many are."""
    counts = f"deep('{parent}').map(each => deep('{child}', each).length)"
    try:
        page.wait_for(f"{counts}.join(', ') === '{', '.join(map(str, expected))}'")
    except AssertionError:
        assert page.evaluate(counts) == expected


def wait_for_bands(page: Page) -> None:
    """Over images seen one for each cell, by batch size one for each setup."""
    wait_for_counts(page, MARGINS, "path.area", [4, 4, 2])


def test_the_link_opens_means_with_their_bands_and_then_both_modes(
    page: Page, board: Served
) -> None:
    page.open(board.link)
    wait_for_bands(page)
    titles = page.evaluate(f"shown('{MARGINS}').map(each => each.title)")
    assert titles[0] == "val accuracy, running statistics"
    assert titles[-1].startswith("test accuracy by batch size")
    tops = page.evaluate(
        f"shown('{LINES}, {MARGINS}').map(each => [each.localName, "
        "each.getBoundingClientRect().y]).sort((one, other) => one[1] - other[1])"
    )
    assert tops[0][0] == MARGINS
    # Below them both modes, the gap, and running against population statistics.
    wait_for_counts(page, LINES, "path.line", [2 * COMPLETED, COMPLETED, 2 * COMPLETED])
    drawn = page.evaluate(
        f"deep('{MARGINS}').flatMap(each => deep('path.area', each)).map(e => e.getAttribute('d'))"
    )
    assert len(drawn) == 10
    assert all(path and "NaN" not in path for path in drawn)


def test_a_large_study_begins_with_its_means_and_first_seeds(
    page: Page, board: Served, own_study: ExperimentFolder
) -> None:
    """TensorBoard itself selects none of more than 40 names. Seeds: 200 to 207."""
    for run in own_study.runs():
        manifest = run.manifest() or {}
        for seed in range(200 + manifest["seed"], 208, 2):
            path = run.path.with_name(re.sub(r"_s\d+_", f"_s{seed}_", run.name))
            shutil.copytree(run.path, path)
            (path / "manifest.json").write_text(json.dumps(manifest | {"seed": seed}))
        shutil.rmtree(run.path)
    late = own_study.runs()[0]
    shutil.rmtree(late.path)  # this cell begins with the next seed
    firsts = ("seed-bands/", "_s200_", late.name.partition("_s200_")[0] + "_s201_")
    with served(own_study, port=6106) as large:
        page.open(large.link)
        wait_for_bands(page)
        names, selected = page.evaluate(
            "(list => [list.names, list.outSelected])(shown('tf-multi-checkbox')[0])"
        )
        page.open(board.link)
    assert len(names) == 4 * RUNS - 1 + 6
    assert selected == [name for name in names if any(each in name for each in firsts)]
    assert len(selected) == 6 + 6


def test_time_series_has_pinned_cards_without_the_bands(
    page: Page, board: Served, study: ExperimentFolder
) -> None:
    page.open(board.link.replace("#custom_scalars", "#timeseries"))
    wait_for_counts(page, "metrics-pinned-view", "card-view", [3])
    # A table below each card has a row for each of its curves.
    wait_for_counts(page, "metrics-pinned-view card-view", "tb-data-table-content-row", [8, 8, 8])
    wait_for_counts(page, "runs-data-table", "tb-data-table-content-row", [RUNS])
    titles = page.evaluate("deep('metrics-pinned-view card-view').map(each => each.innerText)")
    pinned = ("accuracy/val_running", "loss/train", "gap/val_accuracy")
    for title, tag in zip(titles, pinned, strict=True):
        assert "".join(title.split()).startswith(tag)
    # The colours of the report.
    rows: list[list[str]] = page.evaluate(
        "deep('runs-data-table tb-data-table-content-row').map(row => [row.innerText, "
        "getComputedStyle(deep('.run-color-swatch', row)[0]).backgroundColor])"
    )
    colors: dict[str, set[str]] = {}
    for text, shade in rows:
        red, green, blue = (int(each) for each in shade[4:-1].split(","))
        colors.setdefault(text.strip().split("_")[0], set()).add(f"#{red:02x}{green:02x}{blue:02x}")
    assert colors == {setup: {look.color} for setup, look in looks(read_study(study)).items()}
    # All of a run's name is seen, and its colour next to it.
    cut = page.evaluate(
        "(table => deep('tb-data-table-content-cell', table).filter(cell => "
        "cell.scrollWidth > cell.clientWidth + 1 || cell.getBoundingClientRect().right > "
        "table.getBoundingClientRect().right + 1).length)(deep('runs-data-table')[0])"
    )
    assert cut == 0
    page.click("deep('button').find(each => each.innerText.trim() === 'Settings')")
    smoothing = page.wait_for("deep('.scalars-smoothing input[type=number]')[0]?.value")
    assert float(smoothing) == 0


def test_curves_are_drawn_in_scalars(page: Page) -> None:
    tab(page, "scalars")
    card = "deep('tf-scalar-card').find(each => each.tag === 'accuracy/val_running')"
    page.wait_for(f"{card} !== undefined")
    # Each run has a path as it is and a smoothed one; runs without the tag have none.
    page.wait_for(f"deep('path.line', {card}).length === {2 * COMPLETED}")


def test_older_tabs_are_not_smoothed_and_have_shades_of_the_colours_of_the_report(
    page: Page, study: ExperimentFolder
) -> None:
    """A cell's runs and their mean have one shade; a setup's mean by batch size its colour."""
    setups = setups_of([study])
    expected = {setup: color(place) for setup, place in setups.places.items()}
    expected |= setups.shades
    del expected["wild"]  # no mean by batch size
    page.open(
        deep_link(
            setups_of([study]),
            port=urlsplit(str(page.evaluate("location.href"))).port or 0,
            means=False,
        )
    )
    for name, card in (("SCALARS", "tf-scalar-card"), ("CUSTOM SCALARS", MARGINS)):
        page.click(f"deep('.mat-mdc-tab').find(e => e.innerText.trim().toUpperCase() === '{name}')")
        page.wait_for(f"shown('{card}').length > 0")
        smoothing = page.evaluate("shown('tf-smoothing-input').map(each => each.weight)")
        assert set(smoothing) == {0}
        shown = page.wait_for(
            f"(rows => rows.length >= {RUNS} && rows.every(row => row[1]) && rows)"
            "(shown('.isolator').map(each => [each.name, each.style.color]))"
        )
        found: dict[str, set[str]] = {}
        for run, shade in shown:
            cell = re.sub(r"_s\d+_.*$", "", run).rpartition("/")[2]
            red, green, blue = (int(each) for each in re.findall(r"\d+", shade)[:3])
            found.setdefault(cell, set()).add(f"#{red:02x}{green:02x}{blue:02x}")
        assert found == {setup: {each} for setup, each in expected.items()}
        assert (found["bn_bs004"], found["bn_bs016"]) == ({"#95c2eb"}, {"#234f78"})


SHOWN = 5
"""So many metrics are columns at first; the others can be ticked."""
HEADINGS = "deep('tf-hparams-table-view').flatMap(view => deep('thead#header th', view))"
ROWS = "deep('tf-hparams-table-view').flatMap(view => deep('tbody#items tr', view))"
TEXT = "(cell => cell.querySelector('slot').assignedElements()[0]?.innerText.trim())"


def test_hparams_has_a_row_for_each_cell(page: Page) -> None:
    tab(page, "hparams")
    page.wait_for("deep('tf-hparams-table-view')[0]?.sessionGroups?.length === 6")
    page.wait_for(f"{ROWS}.filter(row => {TEXT}(row.children[0])).length === 6")
    headings = page.evaluate(f"{HEADINGS}.map{TEXT}")
    rows = page.evaluate(f"{ROWS}.map(row => [...row.children].map{TEXT})")
    assert headings == [
        "Trial ID",
        "Show Metrics",
        "batch size",
        "setup",
        *[heading for heading, _ in METRICS.values()][:SHOWN],
    ]
    ends = page.evaluate(
        f"{HEADINGS}.map(cell => {{ const text = document.createTreeWalker("
        "cell.querySelector('slot').assignedElements()[0], NodeFilter.SHOW_TEXT);"
        " const range = document.createRange();"
        " while (!text.nextNode().data.trim()); range.selectNode(text.currentNode);"
        " return range.getBoundingClientRect().right; })"
    )
    assert max(ends) <= page.evaluate("innerWidth") == 1280
    # Behind its cells a row has one for details, which are closed.
    cells = {row[0]: dict(zip(headings, row[:-1], strict=True)) for row in rows if row[0]}
    assert sorted(cells) == [
        f"{setup}_bs{size:03d}" for setup in ("bn", "gn", "wild") for size in (4, 16)
    ]
    for row in cells.values():
        assert row["Trial ID"].startswith(row["setup"])
        wild = row["setup"] == "wild"
        empty = {heading for heading, cell in row.items() if not cell} - {"Show Metrics"}
        assert empty == ({*headings[4:]} - {"diverged"} if wild else set())
        assert float(row["diverged"]) == wild


def test_hparams_as_parallel_coordinates(page: Page) -> None:
    tab(page, "hparams")
    page.wait_for("deep('paper-tab').length === 3")
    page.evaluate("deep('paper-tab')[1].click()")
    # A line for each row that has all values: not where all seeds diverged.
    wait_for_counts(page, "tf-hparams-parallel-coords-plot", "g.foreground path", [4])


def test_text_shows_question_and_setups(page: Page) -> None:
    tab(page, "text")
    page.wait_for("deep('tf-text-loader').some(each => deep('td', each).length >= 16)")
    # What is Markdown has lost its asterisks.
    paragraphs = page.evaluate(
        "deep('tf-text-loader').flatMap(e => deep('p', e)).map(e => e.innerText)"
    )
    assert QUESTION in paragraphs
    assert any(paragraph.startswith("Step = images seen") for paragraph in paragraphs)
    headings = page.evaluate(
        "deep('tf-text-loader').flatMap(e => deep('th', e)).map(e => e.innerText)"
    )
    assert {"bn", "gn", "wild"} <= set(headings)


def test_images_are_shown(page: Page) -> None:
    tab(page, "images")
    # The first page of 8 confusion matrices and 12 first batches.
    page.wait_for(
        "deep('tf-image-loader').length === 12 && deep('tf-image-loader')"
        ".every(each => deep('img', each).some(img => img.complete && img.naturalWidth > 50))"
    )


def test_histograms_have_a_slice_for_each_reading(page: Page) -> None:
    tab(page, "histograms")
    # The first pages of β's and of the inputs' histograms; a diverged run was read before only.
    loaders = "deep('tf-histogram-loader')"
    expected = "(each.run.startsWith('wild') ? 1 : 2)"
    page.wait_for(
        f"{loaders}.length === 24 && {loaders}"
        f".every(each => deep('.histogram path', each).length === {expected})"
    )
    drawn = page.evaluate(
        "deep('tf-histogram-loader').flatMap(each => deep('.histogram path', each))"
        ".map(each => each.getAttribute('d'))"
    )
    assert all(path and "NaN" not in path for path in drawn)
