"""All that `bnbench report` makes of a study, and the files that hold it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from bnbench.report import rows, tables, words
from bnbench.report.figures import Drawn, drawn
from bnbench.report.record import FIGURES, as_json, as_record
from bnbench.report.study import Study, short_names
from bnbench.report.verdicts import judged
from bnbench.store import Record

PAGE, DATA, TABLE = "report.html", "report.json", "report.csv"
STATES = {"completed": "●", "diverged": "×", "failed": "!", "damaged": "!"}


@dataclass(frozen=True, slots=True)
class Report:
    """The record, and the figures that belong to it."""

    record: Record
    figures: tuple[Drawn, ...]


def make(study: Study, *, written: datetime | None = None) -> Report:
    """Judge and draw everything. `written`: now, unless it is given."""
    claims = judged(study)
    figures = drawn(study, claims)
    when = written or datetime.now(UTC)
    return Report(as_record(study, claims, figures, written=when), tuple(figures))


def write(study: Study, report: Report) -> None:
    """Put page, data, table and figures into the experiment's folder. Raises StorageError."""
    pictures = {f"{figure.name}.svg": figure.svg.encode() for figure in report.figures}
    study.folder.replace_pictures(FIGURES, pictures)
    table = rows.as_csv([rows.flat_row(run) for run in study.runs])
    study.folder.keep_report(
        {
            DATA: as_json(report.record).encode(),
            TABLE: table.encode(),
            PAGE: page(report).encode(),
        }
    )


def page(report: Report) -> str:
    """report.html, which needs no other file. What users wrote is escaped; figures are ours."""
    environment = Environment(
        loader=PackageLoader("bnbench.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": lambda value, **how: words.number(_float(value), **how),
        "percent": lambda value, **how: words.percent(_float(value), **how),
        "difference": lambda value, unit: words.difference(_float(value), unit),
        "bare": words.bare,
        "p_value": words.p_value,
        "in_words": tables.value_words,
        "quoted": quote,
        "interval": words.interval,
    }
    record = report.record
    varying = [key for key, values in record["experiment"]["axes"].items() if len(values) > 1]
    return environment.get_template("report.html").render(
        report=record,
        figures=report.figures,
        axes=varying,
        names=short_names(varying),
        symbols=words.SYMBOLS,
        states=STATES,
    )


def _float(value: Any) -> float | None:
    """A number of the record: "inf" is one."""
    return None if value is None else float(value)
