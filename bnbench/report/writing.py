"""All that `bnbench report` makes of a study, and the files that hold it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import NamedTuple

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from bnbench import palette
from bnbench.report import record, words
from bnbench.report.figures import Drawn, drawn
from bnbench.report.looks import judged
from bnbench.report.study import Study
from bnbench.store import Record
from bnbench.wording import counted

PAGE, DATA, TABLE = "report.html", "report.json", "report.csv"
STATES = {"completed": "●", "diverged": "×", "failed": "!", "damaged": "!"}


class Report(NamedTuple):
    """The record, and the figures that belong to it."""

    record: Record
    figures: list[Drawn]


def make(study: Study, *, written: datetime | None = None, formats: Collection[str] = ()) -> Report:
    """Judge and draw everything. `written`: now, unless it is given. `formats`: of figures, next to
    SVG."""
    claims = judged(study)
    figures = drawn(study, claims, formats)
    when = written or datetime.now(UTC)
    return Report(record.as_record(study, claims, figures, written=when), figures)


def write(study: Study, report: Report) -> None:
    """Put figures, data, table and page into the experiment's folder. Raises StorageError.

    Each is made when the one before is kept, since those of thousands of runs are large: where one
    fails, those before it are new and the others as they were. The page is last: where it is new,
    all is.
    """
    prefix = study.folder.prefix
    pictures = {name: each for figure in report.figures for name, each in figure.files.items()}
    study.folder.replace(f"{prefix}{record.FIGURES}", "*.svg", pictures)
    texts: dict[str, Callable[[], str]] = {
        DATA: lambda: record.as_json(report.record),
        TABLE: lambda: record.as_csv([record.flat_row(run) for run in study.runs]),
        PAGE: lambda: page(report),
    }
    for name, text in texts.items():
        study.folder.keep({prefix + name: text().encode(errors="replace")})


def pages(package: str = "bnbench.report") -> Environment:
    """What fills in the pages of a package: all look alike, and what users wrote is escaped."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(each, ".") for each in (package, "bnbench.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"dark_colors": palette.DARK, "words": words}
    environment.filters |= {"tied": _tied, "stacked": _stacked, "counted": counted}
    return environment


def _tied(text: str) -> Markup:
    """`words.tied`, and as code what stands between backticks."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(words.tied(text)))))


def _stacked(text: str) -> Markup:
    """A cell of a table in lines: an interval has its own."""
    lines = re.sub(r" (?=\[|→|\(\d+ at chance|\+ \d)", "\n", text)
    return Markup(re.sub(r"(\[.*?\])", r'<span class="pm">\1</span>', str(escape(lines))))


def page(report: Report) -> str:
    """report.html, which needs no other file. What users wrote is escaped; figures are ours."""
    varying = report.record["experiment"]["varying"]
    arrows = any(words.has_arrow(cell["metrics"]) for cell in report.record["cells"])
    return _filled(
        "report.html", report,
        axes=varying, names=words.short_names(varying), arrows=arrows, states=STATES,
    )  # fmt: skip


def verdict_page(report: Report) -> str:
    """The same of the record of `foreign.judged_table`."""
    return _filled("verdict.html", report)


def _filled(template: str, report: Report, **more: object) -> str:
    return (
        pages().get_template(template).render(report=report.record, figures=report.figures, **more)
    )
