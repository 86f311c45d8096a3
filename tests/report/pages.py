"""Reports of invented runs, and the cells of their pages."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

from bnbench.cli.root import PlainConsole
from bnbench.config import schema
from bnbench.report.reading import read_study
from bnbench.report.terminal import terminal
from bnbench.report.writing import Report, make, write
from bnbench.store import ExperimentFolder
from tests.report.invented import Told, undrawn

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
