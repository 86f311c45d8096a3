"""What others have published, beside the runs of the same setup: where one run of theirs falls."""

from __future__ import annotations

from math import isfinite, sqrt
from statistics import mean, median, stdev

from scipy.special import stdtrit

from bnbench.config import metrics
from bnbench.config.claims import of_arm
from bnbench.report.quantities import quantity
from bnbench.report.study import Study
from bnbench.stats.differences import SEEDS_FOR_AN_INTERVAL
from bnbench.store import Record


def published(study: Study) -> list[Record]:
    """A row for each item of the file, with n, median, ends, 95 % interval for one more run
    (None below three, and where a run diverged) and how many runs are below each value."""
    return [
        {name: getattr(each, name) for name in ("says", "metric", "of", "values", "source")}
        | {
            "unit": metrics.unit(each.measured),
            "ours": _ours(
                [
                    value
                    for run in study.runs
                    if of_arm(each.arm, run.config)
                    and (value := quantity(each.measured, [run], target=None, when="last"))
                    is not None
                ],
                each.values,
            ),
        }
        for each in study.experiment.published
    ]


def _ours(values: list[float], theirs: tuple[float, ...]) -> Record:
    if not values:
        return {"n": 0, "median": None, "low": None, "high": None, "one_more": None, "below": None}
    return {
        "n": len(values),
        "median": median(values),
        "low": min(values),
        "high": max(values),
        "one_more": one_more(values) if all(map(isfinite, values)) else None,
        "below": [sum(value < each for value in values) for each in theirs],
    }


def one_more(values: list[float]) -> tuple[float, float] | None:
    """Where one more value is, with 95 %, if all are normal draws: x̄ ± t·s·√(1 + 1/n); None below
    three values. All are finite (Hahn & Meeker 1991, Statistical Intervals, section 4.8)."""
    n = len(values)
    if n < SEEDS_FOR_AN_INTERVAL:
        return None
    middle, half = mean(values), float(stdtrit(n - 1, 0.975)) * stdev(values) * sqrt(1 + 1 / n)
    return middle - half, middle + half
