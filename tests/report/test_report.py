"""A report of invented runs: record, page, files and terminal say the same."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise
from statistics import fmean, median

import pytest

from bnbench.report.reading import read_study
from bnbench.report.record import as_json
from bnbench.report.writing import Report, make, write
from bnbench.store import ExperimentFolder
from tests.processes import completed
from tests.report.invented import invented
from tests.report.pages import (
    CLAIM,
    TUNED,
    WHEN,
    read_page,
    reported,
    shown,
    spread,
    table,
)
from tests.runs import SMALL_YAML


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ExperimentFolder:
    return invented(tmp_path_factory.mktemp("report"), SMALL_YAML + TUNED + CLAIM, spread)


@pytest.fixture(scope="module")
def report(folder: ExperimentFolder) -> Report:
    return reported(folder)


def test_the_record_has_the_numbers_of_the_runs(report: Report) -> None:
    cells = {(cell["setup"], cell["point"]["optim.lr"]): cell for cell in report.record["cells"]}
    assert len(cells) == 6
    for (setup, rate), cell in cells.items():
        seeds = range(2, 6) if (setup, rate) == ("none", 1.0) else range(6)
        offset = {0.01: 0.0, 0.1: 0.05, 1.0: -0.1}[rate] + 0.1 * (setup == "bn")
        tests = [0.49 + offset + 0.004 * seed for seed in seeds]
        found = cell["metrics"]["test_accuracy"]
        assert found["mean"] == pytest.approx(fmean(tests))
        assert found["median"] == pytest.approx(median(tests))
        assert found["n"] == cell["completed"] == len(tests)
        assert cell["diverged"] == 6 - len(tests)
        assert cell["chosen"] == (rate == 0.1)
        gap = cell["metrics"]["gap"]
        assert (gap and gap["mean"]) == (pytest.approx(0.02) if setup == "bn" else None)
    assert report.record["counts"]["completed"] == 34
    assert report.record["counts"]["diverged"] == 2
    (claim,) = report.record["claims"]
    assert claim["outcome"] == "supported"
    assert claim["effect"]["mean"] == pytest.approx(10.0)
    assert claim["effect"]["n"] == 6
    assert "Supported: BatchNorm is better" in report.record["answer"][0]


def test_the_page_shows_the_record(report: Report, folder: ExperimentFolder) -> None:
    page = read_page(folder)
    for row, cell in zip(table(page, "setup"), report.record["cells"], strict=True):
        found = cell["metrics"]["test_accuracy"]
        assert row["setup"].startswith(cell["setup"])
        assert ("★" in row["setup"]) == cell["chosen"]
        low, high = found["interval"]
        assert row["test %"] == f"{100 * found['mean']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        assert row["median test %"] == f"{100 * found['median']:.1f}"
        lost = f" + {cell['diverged']} diverged" if cell["diverged"] else ""
        assert row["seeds"] == f"{cell['completed']}{lost}"
    rows = table(page, "run")
    assert [row["run"] for row in rows] == [run["run"] for run in report.record["runs"]]
    for row, run in zip(rows, report.record["runs"], strict=True):
        assert run["state"] in row["state"]
        value = run["test_accuracy"]
        assert row["test %"] == ("–" if value is None else f"{100 * value:.1f}")
    (claim,) = table(page, "claim")
    assert "supported" in claim["verdict"]
    assert claim["effect"].startswith("mean +10.0 points, 95 % interval +10.0 … +10.0, 6 seeds")
    assert "Does it help?" in page.words


def test_links_lead_to_the_runs(report: Report, folder: ExperimentFolder) -> None:
    text = (folder.path / "report.html").read_text()
    links = re.findall(r'href="([^"#]+)"', text)
    local = [link for link in links if not link.startswith("data:")]
    assert len(local) == len(report.record["runs"]) + 3
    assert all((folder.path / link).exists() for link in local)


def test_the_files_are_the_report(report: Report, folder: ExperimentFolder) -> None:
    kept = json.loads((folder.path / "report.json").read_text(), parse_constant=pytest.fail)
    assert kept == report.record
    assert as_json(report.record) == (folder.path / "report.json").read_text()
    rows = list(csv.DictReader(io.StringIO((folder.path / "report.csv").read_text())))
    by_name = {run["run"]: run for run in report.record["runs"]}
    assert {row["run"] for row in rows} == by_name.keys()
    for row in rows:
        value = by_name[row["run"]]["test_accuracy"]
        assert row["test/running/accuracy"] == ("" if value is None else str(value))
    for figure in report.record["figures"]:
        assert (folder.path / figure["path"]).is_file()


def test_the_same_data_give_the_same_bytes(report: Report, folder: ExperimentFolder) -> None:
    again = make(read_study(folder), written=WHEN)
    assert again == report
    (folder.path / "figures" / "old.svg").write_text("<svg/>")
    (folder.path / "figures" / "mine.txt").write_text("mine")
    before = (folder.path / "report.html").read_bytes()
    write(read_study(folder), again)
    assert (folder.path / "report.html").read_bytes() == before
    assert not (folder.path / "figures" / "old.svg").exists()
    assert (folder.path / "figures" / "mine.txt").exists()


def test_figures_are_small_svg_with_text(report: Report, folder: ExperimentFolder) -> None:
    names = {figure.name for figure in report.figures}
    assert {
        "paired-differences",
        "accuracy-by-examples",
        "accuracy-by-seconds",
        "loss-by-examples",
        "accuracy-by-optim-lr",
        "gap-by-setup",
        "cost",
    } <= names
    for figure in report.figures:
        root = ET.fromstring(figure.svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
        assert texts
        assert "dc:date" not in figure.svg
        assert len(figure.svg) < 100_000
    # In the page, too: each a picture with a name of its own.
    page = (folder.path / "report.html").read_text()
    found = re.findall(r"<svg .*?</svg>", page, re.DOTALL)
    assert len(found) == len(report.figures)
    ids = [each for svg in found for each in re.findall(r'\bid="([^"]+)"', svg)]
    assert len(ids) == len(set(ids))
    for svg in found:
        ET.fromstring(svg)
        assert 'role="img"' in svg
        used = re.findall(r'(?:xlink:href="|url\()#([^")]+)', svg)
        assert set(used) <= set(re.findall(r'\bid="([^"]+)"', svg))


def test_headings_are_in_order(report: Report, folder: ExperimentFolder) -> None:
    del report
    levels = [int(tag[1]) for tag in read_page(folder).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))


def test_the_terminal_shows_it_in_80_columns(report: Report) -> None:
    said = shown(report.record)
    assert max(map(len, said.splitlines())) <= 80
    assert "Does it help?" in said
    assert re.search(r" 4 *\n +2 diverged *\n", said)
    assert "✓ supported: BatchNorm is better" in said
    assert "mean +10.0 points" in said


@pytest.mark.slow
def test_no_torch_is_imported(folder: ExperimentFolder) -> None:
    code = (
        "import sys; from bnbench.cli import app\n"
        f"try: app(['report', {str(folder.path)!r}, '--json'])\n"
        "except SystemExit as end: assert not end.code, end\n"
        "print(sorted({'torch', 'torchvision', 'tensorboard'} & set(sys.modules)), file=sys.stderr)"
    )
    done = completed(sys.executable, "-c", code)
    assert done.stderr.strip() == "[]"
    assert json.loads(done.stdout)["experiment"]["question"] == "Does it help?"
