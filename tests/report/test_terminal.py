"""The terminal's table and footnotes, however wide it is."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import pytest
from rich.console import RenderableType

from bnbench.cli.root import PlainConsole
from bnbench.config import schema
from bnbench.report.reading import read_study
from bnbench.report.record import as_record
from bnbench.report.study import Study
from bnbench.report.terminal import closing_tables, closing_verdicts, terminal
from bnbench.report.writing import Report, page
from bnbench.store import Record
from tests.report.invented import Told, invented
from tests.runs import SMALL_YAML

SETUPS = """\
setups: {plain: {norm: {kind: none}}, bn: {norm: {kind: batch}}}
axes: {data.batch_size: [2, 16], optim.lr: [0.1, 1.0]}
"""
Studies: TypeAlias = Callable[[int], Study]


def tell(config: schema.RunConfig) -> Told:
    """Four classes: without normalization a rate of 1 stays at chance or diverges; BatchNorm has a
    gap."""
    if config.setup == "plain" and config.optim.lr == 1.0:
        return Told(curve=(0.27,), test=0.26, state="diverged" if config.seed else "completed")
    gap = 0.135 if config.setup == "bn" else 0.0
    value = 0.643 + 0.02 * config.seed
    return Told(curve=(value,), test=value, gap=gap)


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Studies:
    """The study, with so many seeds."""

    def make(seeds: int) -> Study:
        path = tmp_path_factory.mktemp("terminal")
        return read_study(invented(path, f"{SMALL_YAML}{SETUPS}seeds: {seeds}\n", tell))

    return make


@pytest.fixture(scope="module")
def three(studies: Studies) -> Record:
    """The record of three seeds."""
    return record_of(studies(3))


def record_of(study: Study) -> Record:
    return as_record(study, [], [], written=datetime(2026, 1, 2, tzinfo=UTC))


def printed(parts: Iterable[RenderableType], columns: int) -> list[str]:
    text = io.StringIO()
    console = PlainConsole(file=text, width=columns)
    for part in parts:
        console.print(part)
    return text.getvalue().splitlines()


def shown(record: Record, columns: int = 80) -> list[str]:
    """The lines of the report."""
    return printed(terminal(record, columns=columns), columns)


def rows(lines: list[str], setup: str) -> list[list[str]]:
    """The words of the rows of a setup."""
    return [line.split() for line in lines if line.startswith(f" {setup} ")]


def test_one_seed_shows_its_value(studies: Studies) -> None:
    lines = shown(record_of(studies(1)))
    assert rows(lines, "bn")[0] == ["bn", "2", "0.1", "64.3", "+13.5", "1,000", "1"]
    assert not [line for line in lines if "±" in line or "95 %" in line]


def test_two_seeds_show_their_values(studies: Studies) -> None:
    lines = shown(record_of(studies(2)))
    assert " ".join(rows(lines, "bn")[0]) == "bn 2 0.1 64.3, 66.3 +13.5, +13.5 1,000 2"
    assert not [line for line in lines if "±" in line or "95 %" in line]


def test_three_seeds_show_their_mean_and_interval(three: Record) -> None:
    lines = shown(three)
    # logit(0.663) ± 4.302653·0.02/√3/(0.663·0.337) is 0.676664 ± 0.222370.
    assert "66.3 [61.2, 71.1]" in next(line for line in lines if line.startswith(" bn "))
    assert "mean [95 % interval] over seeds" in " ".join(lines)


def test_what_did_not_learn_and_what_diverged_is_counted(three: Record) -> None:
    lines = shown(three)
    (place,) = [n for n, line in enumerate(lines) if line.split()[:3] == ["plain", "2", "1"]]
    seeds = [line.split()[-3:] for line in lines[place : place + 3]]
    assert [seeds[0][-1], *seeds[1:]] == ["1", ["(1", "at", "chance)"], ["2", "diverged"]]
    assert "At chance: did not learn; they are in the mean." in " ".join(lines)
    found = {(cell["setup"], cell["point"]["optim.lr"]): cell for cell in three["cells"]}
    asked = (("plain", 1.0), ("plain", 0.1), ("bn", 1.0))
    assert [found[each]["at_chance"] for each in asked] == [1, 0, 0]


def test_the_answer_comes_before_what_is_to_be_known_of_it(three: Record) -> None:
    """What makes it untrue comes before the answer, on the page, too."""
    others = [{"kind": "other", "text": "Known."}, {"kind": "unfinished", "text": "Untrue."}]
    record = {**three, "notices": others, "answer": ["Because."]}
    for text in ("\n".join(shown(record)), page(Report(record, []))):
        places = [text.index(each) for each in ("Untrue.", "Because.", "Known.")]
        assert places == sorted(places)


@pytest.mark.parametrize("columns", [20, 40, 79, 80, 132])
def test_no_width_loses_a_setup_or_a_number(three: Record, columns: int) -> None:
    lines = shown({**three, "notices": []}, columns)  # which are between answer and table
    assert max(map(len, lines)) <= columns
    text = " ".join(" ".join(lines).split())
    table = text.partition(", bn (batch size 16, learning rate 1) by 13.5.")[2]
    assert table.count("66.3 [61.2, 71.1]") == 6
    assert table.count("+13.5 [13.5, 13.5]") == 4
    (end,) = [n for n, line in enumerate(lines) if line.endswith("13.5.")]
    first = [line.split()[0] for line in lines[end + 1 :] if line.split()]
    assert first.count("plain") == first.count("bn") == 4


def test_where_a_row_does_not_fit_its_speed_goes_first_then_the_table(three: Record) -> None:
    headings = [
        [line for line in shown(three, columns) if line.startswith(" setup ")]
        for columns in range(80, 40, -1)
    ]
    kinds = ["img/s" in each[0] if each else None for each in headings]
    assert kinds == sorted(kinds, key=[True, False, None].index)
    assert {*kinds} == {True, False, None}


def test_rows_are_whole_where_there_is_no_terminal(
    three: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a file or a pipe; what is read as sentences keeps its width."""
    monkeypatch.delenv("COLUMNS", raising=False)
    name = "after-" * 12 + "all"
    cells = [cell | {"setup": name} for cell in three["cells"]]
    console = PlainConsole(file=(text := io.StringIO()))
    for part in terminal(three | {"cells": cells}, columns=console.width):
        console.print(part)
    lines = text.getvalue().splitlines()
    assert sum(name in line and "1,000" in line for line in lines) == len(cells)
    headings = next(line for line in lines if line.startswith(" setup "))
    assert "img/s" in headings
    assert max(map(len, lines)) > 100
    assert max(len(line) for line in lines if line.strip().endswith((".", ","))) <= 80


def test_a_number_stays_with_its_unit(three: Record) -> None:
    for columns in range(20, 132, 3):
        lines = shown(three, columns)
        assert not [line for line in lines if line.strip().startswith(("%", "="))]


def test_a_sweep_ends_with_the_same_table(studies: Studies) -> None:
    study = studies(3)
    closing = printed(closing_tables(study), 80)
    report = shown(record_of(study))
    for setup in ("plain", "bn"):
        assert len(rows(report, setup)) == 4
        assert rows(closing, setup)[-4:] == rows(report, setup)


CLAIMS = """\
claims:
  - {id: better, says: bn is better, metric: test/running/accuracy, better: bn@2, worse: plain@2,
     at: {optim.lr: 0.1}, smallest_effect: 1}
  - {id: smaller, says: it is not worse, metric: test/running/accuracy, better: plain@2,
     worse: bn@2, at: {optim.lr: 0.1}, smallest_effect: 1}
"""


def closing(path: Path, seeds: str) -> list[str]:
    """What ends a sweep in which bn is better by 20 points, and by 0.1 more with each seed."""

    def told(config: schema.RunConfig) -> Told:
        test = 0.3 + (0.2 + 0.001 * config.seed) * (config.setup == "bn")
        return Told(test=test, curve=(test,))

    study = read_study(invented(path, f"{SMALL_YAML}{SETUPS}{CLAIMS}seeds: {seeds}\n", told))
    return printed(closing_verdicts(study), 80)


def test_a_sweep_ends_with_a_line_for_each_claim(tmp_path: Path) -> None:
    assert closing(tmp_path, "7") == [
        "✓ better: supported, +20.3 points [+20.1 … +20.5], 7 seeds",
        "✗ smaller: refuted, −20.3 points [−20.5 … −20.1], 7 seeds",
    ]


@pytest.mark.parametrize(
    ("seeds", "do"),
    [("2", "the same command with --seeds 6"), ("[7, 9]", "add 4 to seeds: in the file")],
)
def test_or_says_how_many_seeds_are_missing(tmp_path: Path, seeds: str, do: str) -> None:
    text = " ".join(closing(tmp_path, seeds))
    assert text == f"no verdicts yet: 2 claims and 2 seeds; 6 are needed: {do}"


def test_without_claims_nothing_is_said_of_them(studies: Studies) -> None:
    assert not printed(closing_verdicts(studies(1)), 80)
