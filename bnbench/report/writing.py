"""All that `bnbench report` makes of a study, and the files that hold it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from bnbench.report.figures import Drawn, drawn
from bnbench.report.page import page
from bnbench.report.record import FIGURES, as_json, as_record
from bnbench.report.run_rows import as_csv, studied_rows
from bnbench.report.study import Study
from bnbench.report.tuning import tuned
from bnbench.report.verdicts import judged
from bnbench.store import Record

PAGE, DATA, TABLE = "report.html", "report.json", "report.csv"


@dataclass(frozen=True, slots=True)
class Report:
    """The record, and the figures that belong to it."""

    record: Record
    figures: tuple[Drawn, ...]


def make(study: Study, *, written: datetime | None = None) -> Report:
    """Judge and draw everything. `written`: now, unless it is told."""
    choices, claims = tuned(study), judged(study)
    figures = drawn(study, choices, claims)
    when = written or datetime.now(UTC)
    return Report(as_record(study, choices, claims, figures, written=when), tuple(figures))


def write(study: Study, report: Report) -> None:
    """Put page, data, table and figures into the experiment's folder. Raises StorageError."""
    rows = studied_rows(study.runs)
    pictures = {f"{figure.name}.svg": figure.svg.encode() for figure in report.figures}
    study.folder.replace_pictures(FIGURES, pictures)
    study.folder.keep_report(
        {
            DATA: as_json(report.record).encode(),
            TABLE: as_csv(rows).encode(),
            PAGE: page(report.record, report.figures).encode(),
        }
    )
