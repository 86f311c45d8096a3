"""report.html: the record as one page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from bnbench.config import in_words
from bnbench.report import words
from bnbench.report.figures import Drawn, inline
from bnbench.report.study import short_names
from bnbench.store import Record

STATES = {"completed": "●", "diverged": "×", "failed": "!", "damaged": "!"}


def page(record: Record, figures: Sequence[Drawn]) -> str:
    """The page. Whatever users wrote is escaped; figures are ours."""
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
        "bare": lambda value, unit: words.bare(value, unit),
        "p_value": words.p_value,
        "in_words": lambda value: "–" if value is None else in_words(_value(value)),
        "quoted": quote,
        "interval": _interval,
    }
    shown = [
        each
        | {
            "markup": inline(
                drawn.svg, name=drawn.name, title=drawn.title, description=drawn.caption
            )
        }
        for each, drawn in zip(record["figures"], figures, strict=True)
    ]
    varying = [key for key, values in record["experiment"]["axes"].items() if len(values) > 1]
    return environment.get_template("report.html").render(
        report=record,
        figures=shown,
        axes=varying,
        names=short_names(varying),
        symbols=words.SYMBOLS,
        states=STATES,
    )


def _float(value: Any) -> float | None:
    """A number of the record: "inf" is one."""
    return None if value is None else float(value)


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _interval(ends: Sequence[Any] | None, unit: str) -> str:
    return words.interval(None if ends is None else (float(ends[0]), float(ends[1])), unit)
