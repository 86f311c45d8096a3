"""The report: page, data and terminal say what the runs say, whatever the runs are."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from math import inf, isfinite
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pytest

from bnbench.cli.root import PlainConsole
from bnbench.config import schema
from bnbench.report.reading import read_study
from bnbench.report.record import as_json, strict
from bnbench.report.study import Study
from bnbench.report.terminal import terminal
from bnbench.report.writing import Report, make, write
from bnbench.store import ExperimentFolder
from tests.report.invented import Told, invented, undrawn
from tests.runs import SMALL_YAML, seal_again

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SETUPS = "setups: {none: {norm: {kind: none}}, bn: {norm: {kind: batch}}}\n"
CLAIM = """\
claims:
  - id: better
    says: BatchNorm is better
    metric: test/running/accuracy
    better: bn
    worse: none
    smallest_effect: 1
    direction: up
"""
TUNED = f"""\
question: Does it help?
{SETUPS}axes: {{optim.lr: [0.01, 0.1, 1.0]}}
seeds: 6
tune: {{axis: optim.lr, by: val/accuracy}}
"""


class Cells(HTMLParser):
    """The text of each table cell of a page, row by row; and its words."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        """Begin a table, a row or a cell."""
        self.tags.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        """End a cell."""
        if tag in ("td", "th"):
            self._inside = False

    def handle_data(self, data: str) -> None:
        """Take text; a space that does not break is one."""
        data = data.replace("\u00a0", " ")
        self.words.append(data)
        if self._inside:
            self.tables[-1][-1][-1] += data


def read_page(folder: ExperimentFolder) -> Cells:
    cells = Cells()
    cells.feed((folder.path / "report.html").read_text())
    return cells


def reported(folder: ExperimentFolder) -> Report:
    """The report, written and returned."""
    read = read_study(folder)
    found = make(read, written=WHEN)
    write(read, found)
    return found


def in_words(folder: ExperimentFolder) -> dict[str, Any]:
    """The record of the report, written and returned without figures."""
    with undrawn():
        return reported(folder).record


def shown(record: dict[str, Any], columns: int = 80) -> str:
    text = io.StringIO()
    console = PlainConsole(file=text, width=columns)
    for part in terminal(record, columns=columns):
        console.print(part)
    return text.getvalue()


def table(page: Cells, heading: str) -> list[dict[str, str]]:
    """The rows of the table with this first heading, by heading."""
    for rows in page.tables:
        if rows[0][0] == heading:
            return [
                {key: " ".join(cell.split()) for key, cell in zip(rows[0], row, strict=True)}
                for row in rows[1:]
            ]
    raise AssertionError(f"no table begins with {heading}")


def spread(config: schema.RunConfig) -> Told | None:
    """Accuracies that are known: 50 % and more with the rate, 10 points more with BatchNorm."""
    rate = {0.01: 0.0, 0.1: 0.05, 1.0: -0.1}[config.optim.lr]
    value = 0.5 + rate + 0.1 * (config.setup == "bn") + 0.004 * config.seed
    if config.setup == "none" and config.optim.lr == 1.0 and config.seed < 2:
        return Told(curve=[0.1], state="diverged")
    return Told(curve=[value / 2, value], test=value - 0.01, gap=0.02 * (config.setup == "bn"))


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
        assert cell["metrics"]["gap"]["mean"] == pytest.approx(0.02 * (setup == "bn"))
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
        assert row["n"] == str(cell["completed"])
        assert row["diverged"] == (str(cell["diverged"]) if cell["diverged"] else "")
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


USER_TEXT = "<script>alert(1)</script>&\"'$x^{$"


def test_what_users_write_is_text(tmp_path: Path) -> None:
    name = json.dumps(USER_TEXT)
    text = f"{SMALL_YAML}question: {name}\nsetups: {{{name}: {{}}, _$a$: {{norm: {{kind: none}}}}}}"
    claim = CLAIM.replace("BatchNorm is better", f"{USER_TEXT[:20]}").replace(
        "better: bn", f"better: {name}"
    )
    claim = claim.replace("worse: none", "worse: _$a$").replace("says: ", "says: ")
    folder = invented(
        tmp_path, f"{text}\nseeds: 2\n{claim}", lambda config: Told(test=0.5 + 0.01 * config.seed)
    )
    found = reported(folder)
    page = (folder.path / "report.html").read_text()
    assert "<script" not in page
    assert "alert(1)" in "".join(read_page(folder).words)
    assert USER_TEXT in read_page(folder).words
    for figure in found.figures:
        ET.fromstring(figure.svg)
    legend = next(each for each in found.figures if each.name == "accuracy-by-examples")
    texts = [
        each.text for each in ET.fromstring(legend.svg).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert "_$a$" in texts
    assert max(map(len, shown(found.record).splitlines())) <= 80


def test_markup_of_rich_is_text(tmp_path: Path) -> None:
    text = f"{SMALL_YAML}question: '[bold]Why?[/bold]'\nsetups: {{'[red]a[/red]': {{}}}}"
    said = shown(in_words(invented(tmp_path, text, lambda _: Told())))
    assert "[bold]Why?[/bold]" in said
    assert "[red]a[/red]" in said


def test_without_claims_the_table_answers(tmp_path: Path) -> None:
    folder = invented(tmp_path, SMALL_YAML + TUNED, spread)
    best, tuned, mode = in_words(folder)["answer"]
    assert best.startswith(
        "bn (learning rate 0.1) did best: 65.0 [64.2, 65.8] % test accuracy (6 s"
    )
    assert "+10.0 points over none (learning rate 0.1) (95 % interval +10.0 … +10.0" in best
    assert tuned == "Each setup is at its best learning rate on validation."
    assert "eval mode is 2.0 points better than training mode" in mode


def noisy(config: schema.RunConfig) -> Told:
    """No difference but noise."""
    sign = 1 if (config.seed + (config.setup == "bn")) % 2 else -1
    return Told(test=0.5 + 0.05 * sign + 0.001 * (config.setup == "bn"))


@pytest.mark.parametrize(
    ("seeds", "words"),
    [(1, "a direction, no more"), (4, "not decided"), (8, "not decided")],
)
def test_an_answer_within_noise_says_so(tmp_path: Path, seeds: int, words: str) -> None:
    folder = invented(tmp_path, f"{SMALL_YAML}{SETUPS}seeds: {seeds}", noisy)
    record = in_words(folder)
    assert words in " ".join(record["answer"])
    kinds = [notice["kind"] for notice in record["notices"]]
    assert ("indicative" in kinds) == (seeds < 6)


def test_few_seeds_are_indicative_only(tmp_path: Path) -> None:
    def tell(config: schema.RunConfig) -> Told:
        return Told(test=0.5 + 0.2 * (config.setup == "bn") + 0.001 * config.seed)

    folder = invented(tmp_path, f"{SMALL_YAML}{SETUPS}seeds: 4\n{CLAIM}", tell)
    record = in_words(folder)
    (claim,) = record["claims"]
    assert (claim["outcome"], claim["leaning"]) == ("inconclusive", "for")
    assert record["answer"][0].startswith("Not decided")
    assert "leans towards yes" in record["answer"][0]
    assert "leans towards yes" in " ".join(" ".join(read_page(folder).words).split())
    assert "Indicative only: 4 seeds; 6 are needed for a verdict." in shown(record)


@pytest.mark.parametrize(("claims", "said"), [(3, False), (4, True)])
def test_more_claims_need_more_seeds(tmp_path: Path, claims: int, said: bool) -> None:
    """Six seeds that agree give p = 2⁻⁶: after Holm's correction 3/64 or 4/64."""

    def tell(config: schema.RunConfig) -> Told:
        return Told(test=0.5 + 0.2 * (config.setup == "bn") + 0.001 * config.seed)

    heading, one = CLAIM.split("\n", 1)
    listed = "".join(one.replace("id: better", f"id: better-{n}") for n in range(claims))
    text = f"{SMALL_YAML}{SETUPS}profiles: {{quick: {{seeds: 6}}}}\n{heading}\n{listed}"
    record = in_words(invented(tmp_path, text, tell))
    indicative = "Indicative only: 6 seeds; 7 are needed to decide 4 claims."
    assert (indicative in shown(record)) == said
    outcomes = {claim["outcome"] for claim in record["claims"]}
    assert outcomes == {"inconclusive" if said else "supported"}


def only(*states: str) -> Callable[[schema.RunConfig], Told | None]:
    """Runs that end in these ways, one after the other."""
    made: list[str] = []

    def tell(_: schema.RunConfig) -> Told | None:
        made.append(states[len(made) % len(states)])
        return None if made[-1] == "new" else Told(curve=[0.2, 0.3], state=made[-1])

    return tell


@pytest.mark.parametrize(
    "states",
    [
        ("diverged",),
        ("failed",),
        ("interrupted",),
        ("completed", "new"),
        ("new", "new", "completed"),
        ("completed", "failed", "diverged", "interrupted", "new"),
    ],
)
def test_whatever_there_is_gives_a_report(tmp_path: Path, states: tuple[str, ...]) -> None:
    text = f"{SMALL_YAML}{SETUPS}axes: {{data.batch_size: [4, 8, 16]}}\nseeds: 2\n{CLAIM}"
    folder = invented(
        tmp_path,
        text.replace("    worse", "    at: {data.batch_size: 4}\n    worse"),
        only(*states),
    )
    record = reported(folder).record
    assert record["answer"]
    assert max(map(len, shown(record).splitlines())) <= 80
    done = sum(record["counts"][state] for state in ("completed", "diverged"))
    unfinished = [each["text"] for each in record["notices"] if each["kind"] == "unfinished"]
    assert bool(unfinished) == (done < 12)
    if unfinished:
        assert f"{done} of 12 runs have a result" in unfinished[0]
        assert unfinished[0] in "".join(read_page(folder).words)
    failed = [each["text"] for each in record["notices"] if each["kind"] == "failed"]
    assert bool(failed) == ("failed" in states)
    if failed:
        assert "it broke" in failed[0]
    for cell in record["cells"]:
        found = cell["metrics"]["test_accuracy"]
        assert (found["n"] if found else 0) == cell["completed"]


RESULT = {"state": "completed", "wall_seconds": 1}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("result.json", "{"),
        ("result.json", json.dumps(RESULT | {"val": {"running": 1}, "test": {"running": None}})),
        (
            "result.json",
            json.dumps(RESULT | {"val": {"running": {"accuracy": "x"}}, "test": {"running": {}}}),
        ),
        ("metrics.jsonl", "nonsense\n"),
        ("metrics.jsonl", '{"event": "eval"}\n'),
        ("manifest.json", "[]"),
        ("manifest.json", '{"versions": 3, "command": "x", "fingerprints": {}, "started": "y"}'),
    ],
)
def test_a_damaged_run_does_not_hide_the_others(tmp_path: Path, file: str, content: str) -> None:
    folder = invented(tmp_path, f"{SMALL_YAML}{SETUPS}seeds: 2", lambda _: Told(curve=[0.1, 0.5]))
    (folder.runs()[0].path / file).write_text(content)
    record = reported(folder).record
    assert len(record["runs"]) == 4
    assert sum(cell["metrics"]["test_accuracy"]["n"] for cell in record["cells"]) >= 3


def test_a_single_run_without_an_experiment_file(tmp_path: Path) -> None:
    folder = invented(tmp_path, SMALL_YAML, lambda _: Told(curve=[0.3, 0.6], test=0.55))
    folder.file.unlink()
    record = in_words(folder)
    assert "55.0 % test accuracy (1 seed)" in record["answer"][0]
    assert record["experiment"]["file"] is None
    assert "single runs of 1 configuration; 1 run, 1 completed." in read_page(folder).words


def test_the_page_says_which_values_are_of_one_setup(tmp_path: Path) -> None:
    own = "{a: {axes: {optim.lr: [0.1]}}, b: {norm: {kind: none}}}"
    text = f"{SMALL_YAML}setups: {own}\naxes: {{optim.lr: [0.2, 0.3, 0.4]}}\nseeds: 2\n"
    folder = invented(tmp_path, text, lambda _: Told())
    in_words(folder)
    said = "2 setups × 3 values of optim.lr (a: 1) × 2 seeds; 8 runs, 8 completed."  # 1 + 3, twice
    assert said in read_page(folder).words


def test_infinite_differences_are_arrows_and_medians(tmp_path: Path) -> None:
    claim = CLAIM.replace("test/running/accuracy", "val/running/examples_to_target")
    claim = claim.replace("smallest_effect: 1", "smallest_effect: 0.3\n    target: 0.5")
    claim = claim.replace("direction: up", "direction: down")

    def tell(config: schema.RunConfig) -> Told:
        there = config.setup == "bn" or config.seed > 2
        return Told(curve=[0.6, 0.6, 0.6] if there else [0.1, 0.1, 0.1], test=0.5)

    folder = invented(tmp_path, f"{SMALL_YAML}{SETUPS}seeds: 6\n{claim}", tell)
    found = reported(folder)
    (record,) = found.record["claims"]
    assert record["effect"]["mean"] is None
    assert record["effect"]["infinite"] == 3
    assert sorted(set(map(str, record["pairs"].values()))) == ["0.0", "inf"]
    page = " ".join(" ".join(read_page(folder).words).split())
    assert "3 of 6 infinite" in page
    assert "nan" not in page.lower().split()
    assert "infinite" in next(
        each.svg for each in found.figures if each.name == "paired-differences"
    )


def test_strict_json_has_no_infinity() -> None:
    found = strict({"a": [inf, -inf, float("nan"), 1.5], 3: (True, None, "x")})
    assert found == {"a": ["inf", "-inf", None, 1.5], "3": [True, None, "x"]}
    json.dumps(found, allow_nan=False)


def finite_numbers(value: Any) -> bool:
    match value:
        case dict():
            return all(map(finite_numbers, value.values()))
        case list():
            return all(map(finite_numbers, value))
        case float():
            return isfinite(value)
        case _:
            return True


def test_losses_that_were_not_finite_are_not_drawn_or_averaged(tmp_path: Path) -> None:
    folder = invented(
        tmp_path, f"{SMALL_YAML}{SETUPS}seeds: 3", lambda _: Told(curve=[0.2, 0.3, 0.4])
    )
    for run in folder.runs():
        file = run.path / "metrics.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for line in lines:
            if line["event"] == "eval" and line["examples"] == 2000:
                line |= {"loss": None, "finite": False}
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        seal_again(run)
    found = reported(folder)
    assert finite_numbers(found.record)
    loss = next(each for each in found.figures if each.name == "loss-by-examples")
    assert "nan" not in loss.svg.lower()


@pytest.mark.slow
def test_many_setups_and_cells_stay_bounded(tmp_path: Path) -> None:
    setups = ", ".join(
        f"setup-number-{number:02}: {{optim: {{momentum: 0.{number + 10}}}}}"
        for number in range(17)
    )
    text = (
        f"{SMALL_YAML}setups: {{{setups}}}\naxes: {{data.batch_size: [1, 2, 3, 4, 5, 6, 7, 8, 9]}}"
    )
    found = reported(invented(tmp_path, text, lambda _: Told(curve=[0.3, 0.5])))
    assert max(len(figure.svg) for figure in found.figures) < 700_000
    assert max(map(len, shown(found.record).splitlines())) <= 80
    assert "more cells are on the page" in shown(found.record)


@pytest.mark.slow
def test_no_torch_is_imported(folder: ExperimentFolder) -> None:
    code = (
        "import sys; from bnbench.cli import app\n"
        f"try: app(['report', {str(folder.path)!r}, '--json'])\n"
        "except SystemExit as end: assert not end.code, end\n"
        "print(sorted({'torch', 'torchvision', 'tensorboard'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stderr.strip() == "[]"
    assert json.loads(done.stdout)["experiment"]["question"] == "Does it help?"


def test_a_study_without_seeds_in_common(tmp_path: Path) -> None:
    def tell(config: schema.RunConfig) -> Told | None:
        return Told(test=0.5) if (config.seed == 0) == (config.setup == "bn") else None

    read: Study = read_study(invented(tmp_path, f"{SMALL_YAML}{SETUPS}seeds: 2\n{CLAIM}", tell))
    record = make(read, written=WHEN).record
    assert record["claims"][0]["effect"] is None
    assert record["claims"][0]["reasons"]
