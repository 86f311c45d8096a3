"""report.json: everything that the page says, as data. The page and the terminal show this record.

schema        1; a key that changes its meaning raises it
experiment    name, path, question, profile, file (the text of experiment.yaml, or null), setups,
              axes (values by dotted key), seeds, tune
answer        sentences
notices       kind (unfinished, failed, indicative, other) and text
counts        runs by state; `planned` all of them, `others` lie in the folder without being planned
claims        id, says, literature, metric, unit, direction, smallest_effect, target, at, outcome,
              leaning, reasons, effect (differences, mean, median, interval, method, coverage, n,
              infinite, p, p_adjusted, seeds_needed; or null), superiority (P(A > B)), pairs (by
              seed), better and worse (setup, words, values by seed, diverged, missing)
tuned         axis, by, and choices: setup, at (other axes), value, values, at_edge
cells         setup, point, chosen (whether tuning took it), seeds, and how many completed,
              diverged, failed or are missing; metrics: for val_accuracy, test_accuracy, gap,
              images_per_second and train_seconds mean, interval, median and n, or null
runs          run, path (from the folder), setup, point, seed, state, reason, val_accuracy,
              test_accuracy, images_per_second, train_seconds, and its whole result
provenance    bnbench, and groups of runs with the same versions, hardware and command
figures       name, section, title, caption, path (from the folder)
bnbench       the version that wrote the report
written       when, UTC

Accuracies and gaps of cells and runs are fractions. A claim's values and differences have its
`unit`: points are hundredths of a fraction, doublings log₂, decades log₁₀. JSON is strict: an
infinite number is the text "inf" or "-inf", what has no value is null.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from math import isinf, isnan
from statistics import median
from typing import Any

from bnbench import __version__
from bnbench.report.answer import answer, notices
from bnbench.report.figures import Drawn
from bnbench.report.selection import gap, is_choice
from bnbench.report.study import Cell, StudiedRun, Study, reading
from bnbench.report.tuning import Tuned
from bnbench.report.verdicts import Judged, Side
from bnbench.stats import mean
from bnbench.store import STATES, Record

FIGURES = "figures"
UNDONE = ("running", "interrupted", "new")


def as_record(
    study: Study,
    choices: Sequence[Tuned],
    claims: Sequence[Judged],
    figures: Sequence[Drawn],
    *,
    written: datetime,
) -> Record:
    """The record of a study, with numbers that strict JSON can hold."""
    experiment = study.experiment
    content = study.folder.content()
    record = {
        "schema": 1,
        "experiment": {
            "name": study.folder.name,
            "path": str(study.folder.path),
            "question": experiment.question,
            "profile": experiment.profile,
            "file": None if content is None else content.decode(errors="replace"),
            "setups": study.setups,
            "axes": study.axes,
            "seeds": study.seeds,
            "tune": None
            if experiment.tune is None
            else {"axis": experiment.tune.axis, "by": experiment.tune.by},
        },
        "answer": answer(study, choices, claims),
        "notices": [{"kind": each.kind, "text": each.text} for each in notices(study)],
        "counts": {
            **{state: study.count(state) for state in STATES},
            "planned": len(study.runs),
            "others": study.others,
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
            for each in choices
        ],
        "cells": [_cell(cell, study, choices) for cell in study.cells],
        "runs": [_run(run) for run in study.runs],
        "provenance": _provenance(study),
        "figures": [
            {
                "name": each.name,
                "section": each.section,
                "title": each.title,
                "caption": each.caption,
                "path": f"{FIGURES}/{each.name}.svg",
            }
            for each in figures
        ],
        "bnbench": __version__,
        "written": written.isoformat(timespec="seconds"),
    }
    found = strict(record)
    assert isinstance(found, dict)
    return found


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


def _claim(each: Judged) -> Record:
    claim, verdict = each.claim, each.verdict
    effect = verdict.effect
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
        "effect": None
        if effect is None
        else {
            "differences": effect.differences,
            "mean": effect.mean,
            "median": effect.median,
            "interval": effect.interval,
            "method": effect.method,
            "coverage": effect.coverage,
            "n": effect.n,
            "infinite": effect.infinite,
            "p": effect.p,
            "p_adjusted": verdict.p_adjusted,
            "seeds_needed": effect.seeds_needed,
        },
        "superiority": each.superiority,
        "pairs": each.pairs,
        "better": [_side(side) for side in each.better],
        "worse": [_side(side) for side in each.worse],
    }


def _side(side: Side) -> Record:
    return {
        "setup": side.arm.setup,
        "words": side.words,
        "values": side.values,
        "diverged": side.diverged,
        "missing": side.missing,
    }


METRICS = {
    "val_accuracy": ("val", "running", "accuracy"),
    "test_accuracy": ("test", "running", "accuracy"),
    "images_per_second": ("images_per_second",),
    "train_seconds": ("train_seconds",),
}


def _cell(cell: Cell, study: Study, choices: Sequence[Tuned]) -> Record:
    tune = study.experiment.tune
    found = {
        name: [reading(run, *path) for run in cell.completed] for name, path in METRICS.items()
    }
    found["gap"] = [gap(run) for run in cell.completed]
    return {
        "setup": cell.setup,
        "point": cell.point,
        "chosen": None if tune is None else is_choice(cell, choices, tune.axis),
        "seeds": len(cell.runs),
        "completed": len(cell.completed),
        "diverged": cell.count("diverged"),
        "failed": cell.count("failed", "damaged"),
        "missing": cell.count(*UNDONE),
        "metrics": {name: _summary(values) for name, values in found.items()},
    }


def _summary(values: Sequence[float | None]) -> Record | None:
    there = [value for value in values if value is not None]
    if not there:
        return None
    point = mean(there)
    half = point.half_width
    return {
        "mean": point.value,
        "interval": None if half is None else (point.value - half, point.value + half),
        "median": median(there),
        "n": point.n,
    }


def _run(run: StudiedRun) -> Record:
    reason = run.problem
    if reason is None and run.state == "diverged" and run.result is not None:
        reason = f"step {run.result.get('step')}: {run.result.get('reason')}"
    return {
        "run": run.folder.name,
        "path": run.folder.name,
        "setup": run.setup,
        "point": run.point,
        "seed": run.seed,
        "state": run.state,
        "reason": reason,
        **{name: reading(run, *path) for name, path in METRICS.items()},
        "result": run.result,
    }


def _provenance(study: Study) -> list[Record]:
    """What runs were trained with, the same ones together."""
    groups: dict[str, Record] = {}
    for run in study.runs:
        manifest = run.manifest
        if manifest is None:
            continue
        fingerprints, versions = manifest.get("fingerprints"), manifest.get("versions")
        last = fingerprints[-1] if isinstance(fingerprints, list) and fingerprints else None
        command = manifest.get("command")
        facts = {
            "versions": versions if isinstance(versions, dict) else None,
            "machine": manifest.get("machine"),
            "hardware": last if isinstance(last, dict) else None,
            "git_commit": manifest.get("git_commit"),
            "command": " ".join(map(str, command)) if isinstance(command, list) else None,
        }
        group = groups.setdefault(repr(facts), {"runs": 0, "first": None, "last": None, **facts})
        group["runs"] += 1
        started = manifest.get("started_utc")
        if isinstance(started, str):
            group["first"] = min(started, group["first"] or started)
            group["last"] = max(started, group["last"] or started)
    return list(groups.values())
