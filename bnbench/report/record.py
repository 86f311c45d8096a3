"""report.json: everything that the page says, as data. The page and the terminal show this record.

Its keys are described in runs/README.md; one that changes its meaning raises `schema`. JSON is
strict: an infinite number is the text "inf" or "-inf", what has no value is null.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from math import isinf, isnan
from typing import TYPE_CHECKING, Any

from bnbench import __version__
from bnbench.config import metrics, plans, schema
from bnbench.config.custom import custom_target
from bnbench.report import words
from bnbench.report.answer import answer, notices, registered
from bnbench.report.methods import caption, methods
from bnbench.report.published import published
from bnbench.report.quantities import POINTS, metrics_of
from bnbench.report.remarks import further
from bnbench.report.study import METRICS, Cell, StudiedRun, Study
from bnbench.report.verdicts import Judged
from bnbench.stats.differences import two_groups
from bnbench.store import STATES, Record
from bnbench.wording import counted, flat

if TYPE_CHECKING:
    from bnbench.report.figures import Drawn

FIGURES = "figures"
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What spreadsheets take for the beginning of a formula: https://owasp.org/www-community/attacks/CSV_Injection"""


def as_record(
    study: Study, claims: Sequence[Judged], figures: Sequence[Drawn], *, written: datetime
) -> Record:
    """The record of a study, with numbers that strict JSON can hold."""
    experiment, content, tune = study.experiment, study.folder.content(), study.experiment.tune
    judged, before = [claim_row(each) for each in claims], registered(study)
    record = {
        "schema": 2,
        "experiment": {
            "name": study.folder.name,
            "path": str(study.folder.file.parent),
            "question": experiment.question,
            "profile": experiment.profile,
            "file": None if content is None else content.decode(errors="replace"),
            "setups": study.setups,
            "axes": study.axes,
            "varying": study.varying,
            "seeds": study.seeds,
            "looks": list(experiment.looks),
            "grid": f"single runs of {counted(len(study.cells), 'configuration')}"
            if content is None
            else plans.grid(experiment),
            "tune": None if tune is None else tune.model_dump(),
        },
        "registered": before,
        "caption": caption(study),
        "methods": methods(study, judged),
        "answer": answer(study, judged),
        "further": [*further(study, judged)],
        "notices": [each._asdict() for each in notices(study, judged, before)],
        "counts": {
            **{state: study.count(state) for state in STATES},
            "planned": len(study.runs),
            "others": len(study.others),
        },
        "claims": judged,
        "published": published(study),
        "tuned": [each._asdict() | {"at_edge": each.at_edge} for each in study.choices],
        "cells": [
            cell_row(cell, study) | {"verdicts": _verdicts(cell, claims)} for cell in study.cells
        ],
        "runs": (_run(run, study) for run in study.runs),  # of thousands no two copies
        "others": [
            {"run": each.folder.name, "path": _path(each.folder.name, study)}
            | _picked(each, "called", "state", "test_accuracy", "reason")
            for each in study.others
        ],
        "provenance": _provenance(study),
        "figures": [
            _picked(each, "name", "section", "title", "caption")
            | {"path": f"{FIGURES}/{each.name}.svg"}
            for each in figures
        ],
        "bnbench": __version__,
        "written": written.isoformat(timespec="seconds"),
    }
    return {key: strict(value) for key, value in record.items()}


def as_json(record: Record) -> str:
    """The record as text, a line a key: indenting all of it takes five times as long.

    Raises ValueError where it is not strict JSON.
    """
    lines = [
        f"{json.dumps(key)}: {json.dumps(value, allow_nan=False, ensure_ascii=False)}"
        for key, value in record.items()
    ]
    lines[0], lines[-1] = "{" + lines[0], lines[-1] + "}\n"
    return ",\n ".join(lines)


def strict(value: Any) -> Any:
    """The same in what JSON has: an infinite number as text, NaN as null, tuples as lists."""
    match value:
        case float() if isnan(value):
            return None
        case float() if isinf(value):
            return str(value)
        case float():
            return value + 0.0  # no −0
        case Mapping():
            return {str(key): strict(each) for key, each in value.items()}
        case list() | tuple() | Iterator():
            return [strict(each) for each in value]
        case None | bool() | int() | str():
            return value
        case _:
            return str(value)


def _picked(thing: object, *names: str) -> Record:
    return {name: getattr(thing, name) for name in names}


def claim_row(each: Judged) -> Record:
    """A claim with its verdict."""
    claim, verdict, effect = each.claim, each.verdict, None
    if verdict.effect is not None:
        names = ("differences", "mean", "median", "interval", "method", "coverage", "n")
        effect = _picked(verdict.effect, *names, "infinite", "ties")
        effect |= _picked(verdict, "p", "p_adjusted", "seeds_needed") | {"over_images": None}
        if verdict.effect.over_images is not None:
            effect["over_images"] = {
                "images": verdict.effect.images,
                "interval": verdict.effect.over_images,
                "outcome": verdict.over_images,
            }
    return {
        **_picked(claim, "id", "says", "literature"),
        "metric": claim.metric,
        "unit": each.unit,
        **_picked(claim, "direction", "smallest_effect", "target", "at"),
        **_picked(verdict, "outcome", "leaning", "reasons"),
        "meaning": _meaning(each),
        "conditions": each.conditions,
        "remarks": each.remarks,
        "look": each.look,
        "effect": effect,
        "superiority": each.superiority,
        "pairs": each.pairs,
        **{
            name: [
                {"setup": side.arm.setup}
                | _picked(side, "words", "values", "diverged", "missing")
                | {"groups": two_groups(list(side.values.values()))}
                for side in sides
            ]
            for name, sides in (("better", each.better), ("worse", each.worse))
        },
    }


def _meaning(each: Judged) -> str | None:
    """Which mode is better, where the effect is a gap itself."""
    claim, effect = each.claim, each.verdict.effect
    metric, alone = claim.measured, len(each.better) == 1 and not each.worse
    if not isinstance(metric, metrics.GapReading) or not alone or claim.slope_over or claim.log:
        return None
    if effect is None or effect.mean is None or metric.quantity not in ("accuracy", "loss"):
        return None
    gap = -effect.mean if claim.direction == "down" else effect.mean
    if metric.quantity == "loss":
        return words.eval_mode_loss(gap)
    return words.eval_mode(gap / POINTS)


def _verdicts(cell: Cell, claims: Sequence[Judged]) -> Record:
    """The outcomes of the claims that count a run of the cell."""
    names = {run.name for run in cell.runs}
    return {
        each.claim.id: each.verdict.outcome
        for each in claims
        if any(not names.isdisjoint(side.runs) for side in (*each.better, *each.worse))
    }


def _norm(config: schema.RunConfig) -> Record:
    """`name`: the kind, or the class of a layer of the user's own."""
    norm, name = config.norm, str(config.norm.kind)
    if isinstance(norm, schema.CustomNormConfig):
        name = custom_target(norm.target)[1]
    return {"kind": norm.kind, "name": name, "placement": getattr(norm, "placement", None)}


def cell_row(cell: Cell, study: Study) -> Record:
    """A cell with the means over its completed seeds."""
    return {
        "setup": cell.setup,
        "norm": _norm(cell.runs[0].config),
        "point": cell.point,
        "chosen": None if study.tuned_axis is None else study.is_chosen(cell),
        "given_up": cell.key in study.given_up,
        "seeds": len(cell.runs),
        "completed": len(cell.completed),
        "at_chance": sum(run.at_chance for run in cell.runs),
        "diverged": cell.count("diverged"),
        "failed": cell.count("failed", "damaged"),
        "missing": cell.count("running", "interrupted", "new"),
        "metrics": metrics_of(cell),
    }


def _path(name: str, study: Study) -> str:
    """Of a run's folder, from that of the report."""
    return f"../{name}" if study.folder.prefix else name


def _run(run: StudiedRun, study: Study) -> Record:
    """A run with its final scores and its whole result."""
    divergence = None if run.result is None else run.result.divergence
    return {
        "run": run.name,
        "path": _path(run.name, study),
        **_picked(run, "setup", "point", "seed", "state"),
        "reason": divergence if run.problem is None else run.problem,
        **{name: run.metric(name) for name in METRICS if name != "gap"},
        "result": None if run.result is None else run.result.as_record(),
    }


def _provenance(study: Study) -> list[Record]:
    """What runs were trained with: a group for all that agree."""
    groups: dict[str, Record] = {}
    for manifest in (run.manifest for run in study.runs if run.manifest is not None):
        facts = {
            "versions": manifest["versions"],
            "machine": manifest.get("machine"),
            "hardware": manifest["fingerprints"][-1],
            "git_commit": manifest.get("git_commit"),
            "command": " ".join(map(str, manifest["command"])),
        }
        started = manifest["started_utc"]
        new = {"runs": 0, "first": started, "last": started, **facts}
        group = groups.setdefault(repr(facts), new)
        group["runs"] += 1
        group["first"] = min(started, group["first"])
        group["last"] = max(started, group["last"])
    return list(groups.values())


def flat_row(run: StudiedRun) -> Record:
    """A run with its result as one flat row: `test/running/accuracy` and so on."""
    norm = {f"norm.{key}": value for key, value in _norm(run.config).items()}
    row = {"run": run.name, "setup": run.setup, **norm, **run.point}
    row |= {"seed": run.seed, "state": run.state}
    if run.problem is not None:
        row["reason"] = run.problem
    result = {} if run.result is None else run.result.as_record()
    return row | {key: value for key, value in flat(result, "/") if key != "state"}


def as_csv(rows: Sequence[Record]) -> str:
    """The rows with a heading. Text that a spreadsheet would calculate gets an apostrophe."""
    columns = dict.fromkeys(key for row in rows for key in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _harmless(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
