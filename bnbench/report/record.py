"""report.json: everything that the page says, as data. The page and the terminal show this record.

Its keys are described in runs/README.md; one that changes its meaning raises `schema`. JSON is
strict: an infinite number is the text "inf" or "-inf", what has no value is null.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from math import isinf, isnan
from typing import Any

from bnbench import __version__
from bnbench.report.answer import answer, notices
from bnbench.report.figures import Drawn
from bnbench.report.rows import cell_row, run_row
from bnbench.report.study import Study
from bnbench.report.verdicts import Judged
from bnbench.store import STATES, Record

FIGURES = "figures"


def as_record(
    study: Study, claims: Sequence[Judged], figures: Sequence[Drawn], *, written: datetime
) -> Record:
    """The record of a study, with numbers that strict JSON can hold."""
    record = {
        "schema": 1,
        "experiment": _experiment(study),
        "answer": answer(study, claims),
        "notices": [{"kind": each.kind, "text": each.text} for each in notices(study)],
        "counts": {
            **{state: study.count(state) for state in STATES},
            "planned": len(study.runs),
            "others": len(study.others),
        },
        "claims": [_claim(each) for each in claims],
        "tuned": [
            {
                "setup": each.setup,
                "at": each.others,
                "value": each.value,
                "values": each.values,
                "at_edge": each.at_edge,
            }
            for each in study.choices
        ],
        "cells": [cell_row(cell, study) for cell in study.cells],
        "runs": [run_row(run) for run in study.runs],
        "provenance": _provenance(study),
        "figures": [
            {name: getattr(each, name) for name in ("name", "section", "title", "caption")}
            | {"path": f"{FIGURES}/{each.name}.svg"}
            for each in figures
        ],
        "bnbench": __version__,
        "written": written.isoformat(timespec="seconds"),
    }
    found = strict(record)
    assert isinstance(found, dict)
    return found


def _experiment(study: Study) -> Record:
    experiment, content = study.experiment, study.folder.content()
    tune = experiment.tune
    return {
        "name": study.folder.name,
        "path": str(study.folder.path),
        "question": experiment.question,
        "profile": experiment.profile,
        "file": None if content is None else content.decode(errors="replace"),
        "setups": study.setups,
        "axes": study.axes,
        "seeds": study.seeds,
        "tune": None if tune is None else {"axis": tune.axis, "by": tune.by},
    }


def as_json(record: Record) -> str:
    """The record as text, a line a key: indenting all of it takes five times as long.

    Raises ValueError where it is not strict JSON.
    """
    lines = (
        f"{json.dumps(key)}: {json.dumps(value, allow_nan=False, ensure_ascii=False)}"
        for key, value in record.items()
    )
    return "{" + ",\n ".join(lines) + "}\n"


def strict(value: Any) -> Any:
    """The same in what JSON has: an infinite number as text, NaN as null, tuples as lists."""
    match value:
        case float() if isnan(value):
            return None
        case float() if isinf(value):
            return "inf" if value > 0 else "-inf"
        case Mapping():
            return {str(key): strict(each) for key, each in value.items()}
        case list() | tuple():
            return [strict(each) for each in value]
        case float():
            return value + 0.0  # no −0
        case None | bool() | int() | str():
            return value
        case _:
            return str(value)


OF_EFFECTS = (
    "differences",
    "mean",
    "median",
    "interval",
    "method",
    "coverage",
    "n",
    "infinite",
    "p",
)


def _claim(each: Judged) -> Record:
    claim, verdict = each.claim, each.verdict
    effect: Record | None = None
    if verdict.effect is not None:
        effect = {name: getattr(verdict.effect, name) for name in OF_EFFECTS}
        effect["p_adjusted"] = verdict.p_adjusted
        effect["seeds_needed"] = verdict.effect.seeds_needed
    sides = {
        name: [
            {
                "setup": side.arm.setup,
                "words": side.words,
                "values": side.values,
                "diverged": side.diverged,
                "missing": side.missing,
            }
            for side in sides
        ]
        for name, sides in (("better", each.better), ("worse", each.worse))
    }
    return {
        "id": claim.id,
        "says": claim.says,
        "literature": claim.literature,
        "metric": claim.metric_name,
        "unit": each.unit,
        "direction": claim.direction,
        "smallest_effect": claim.smallest_effect,
        "target": claim.target,
        "at": claim.at,
        "outcome": verdict.outcome,
        "leaning": verdict.leaning,
        "reasons": verdict.reasons,
        "effect": effect,
        "superiority": each.superiority,
        "pairs": each.pairs,
        **sides,
    }


def _provenance(study: Study) -> list[Record]:
    """What runs were trained with: a group for all that agree."""
    groups: dict[str, Record] = {}
    for run in study.runs:
        manifest = run.manifest
        if manifest is None:
            continue
        facts = {
            "versions": manifest["versions"],
            "machine": manifest.get("machine"),
            "hardware": manifest["fingerprints"][-1],
            "git_commit": manifest.get("git_commit"),
            "command": " ".join(map(str, manifest["command"])),
        }
        group = groups.setdefault(repr(facts), {"runs": 0, "first": None, "last": None, **facts})
        group["runs"] += 1
        started = manifest["started_utc"]
        group["first"] = min(started, group["first"] or started)
        group["last"] = max(started, group["last"] or started)
    return list(groups.values())
