"""A diagnosis as a page: one file, without scripts, that needs no other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import gcd

from bnbench import __version__
from bnbench.catalogue import FINDINGS
from bnbench.diagnosis import criteria, pictures, words
from bnbench.diagnosis.result import Diagnosis, Finding, Loader, Score
from bnbench.report.writing import pages


def page(
    diagnosis: Diagnosis, target: str = "", fixed: Mapping[Loader, Score] | None = None
) -> str:
    """`target`: what was diagnosed. `fixed`: what a recalibrated checkpoint gives in eval mode."""
    columns, rows = words.scores(diagnosis, fixed)
    layer_columns, layer_rows = words.layers(diagnosis)
    return (
        pages("bnbench.diagnosis")
        .get_template("page.html")
        .render(
            diagnosis=diagnosis,
            target=target,
            headline=words.headline(diagnosis),
            verdict=words.verdict(diagnosis),
            images=words.images(diagnosis),
            columns=columns,
            rows=rows,
            figures=pictures.drawn(diagnosis),
            known=FINDINGS,
            code={each.name: _code(each, diagnosis) for each in diagnosis.findings},
            sources={each.name: list(_sources(each.name)) for each in diagnosis.findings},
            where={each.name: words.where(each, diagnosis) for each in diagnosis.findings},
            costs=words.COSTS,
            layer_columns=layer_columns,
            layers=list(zip(layer_rows, map(criteria.off, diagnosis.layers), strict=True)),
            spoils=list(words.spoils(diagnosis)) if fixed else [],
            version=__version__,
        )
    )


def _code(finding: Finding, diagnosis: Diagnosis) -> str:
    """With groups, of eight at most, that the channels of each layer split into."""
    channels = gcd(*(each.channels for each in diagnosis.layers))
    groups = next(count for count in range(8, 0, -1) if channels % count == 0)
    return finding.code.replace("groups=8", f"groups={groups}")


def _sources(name: str) -> Iterator[tuple[str, str]]:
    """Words and address of each source of a finding."""
    for line in FINDINGS[name].sources.splitlines():
        said, _, address = line.rpartition(", ")
        yield said, address
