"""What an experiment's file cannot show even if every run succeeds, and what to change."""

from __future__ import annotations

from collections.abc import Iterator

from bnbench.config import claims, loading, metrics, plans, schema
from bnbench.config.experiments import Claim, ExperimentConfig
from bnbench.config.identity import cell_key, point
from bnbench.report.objections import moved
from bnbench.report.study import ordered
from bnbench.stats.verdict import SEEDS_FOR_A_VERDICT, seeds_to_support
from bnbench.wording import counted, in_words, listing

ENOUGH_VALUES = 3
"""Of an axis that is tuned: of two, each is an end of the grid, and better ones may be outside."""


def shortfalls(experiment: ExperimentConfig, plan: plans.Plan) -> list[tuple[str, str]]:
    """What cannot be decided from the runs of a file, each with what to change."""
    return [*too_few_seeds(experiment, plan), *_claims(experiment, plan.runs)]


def too_few_seeds(experiment: ExperimentConfig, plan: plans.Plan) -> Iterator[tuple[str, str]]:
    """Too few seeds for the claims, or for a verdict on what is compared."""
    seeds, number = len(experiment.seeds), len(experiment.claims)
    needed = seeds_to_support([claim.direction for claim in experiment.claims])
    compares = number or len({cell_key(run) for run in plan.runs}) > 1
    if seeds >= needed or not compares:
        return
    what = f"{counted(seeds, 'seed')}: {needed} are needed for a verdict"
    if number and seeds >= SEEDS_FOR_A_VERDICT:
        what = (
            f"{seeds} seeds cannot decide {counted(number, 'claim')} after the correction for "
            f"their number: {needed} are needed"
        )
    profiles = (experiment.source.data or {}).get("profiles") or {}
    enough = [
        name for name in profiles if len(loading.under_profile(experiment, name).seeds) >= needed
    ]
    do = f"write seeds: {needed}"
    yield what, f"{do}, or take --set profile={enough[0]}" if enough else do


def _claims(
    experiment: ExperimentConfig, runs: tuple[schema.RunConfig, ...]
) -> Iterator[tuple[str, str]]:
    """What keeps single claims from being decided, whatever the numbers will be."""
    doubted = dict[str, str]()
    for claim, reason in claims.doubts(experiment.claims, runs, experiment.tune):
        doubted[claim.id] = reason
        yield f"claim {claim.id} cannot be judged: {reason}", "name other setups or values in it"
    for claim in experiment.claims:
        if claim.id not in doubted:
            for what, do in _of_one(claim, experiment.tune, runs):
                yield f"claim {claim.id} cannot be decided: {what}", do


def _of_one(
    claim: Claim, tune: schema.TuneConfig | None, runs: tuple[schema.RunConfig, ...]
) -> Iterator[tuple[str, str]]:
    metric = claim.measured
    sides = {arm: claims.runs_of(claim, arm, runs) for arm in claim.better_arms + claim.worse_arms}
    axis = metrics.LR if isinstance(metric, metrics.UsableLr) else claim.slope_over
    if axis is None and tune is not None:
        axis = tune.axis
        fixed = {arm for arm in sides if axis in claim.at | dict(arm.at)}
        values = {arm: _values(axis, of) for arm, of in sides.items() if arm not in fixed}
        sure = moved(claim, tune) != 0 and len(values) == 1  # one end alone may still decide
        for arm, tried in values.items():
            if len(tried) == 2 and ordered(tried) and not sure:
                ends = listing(map(in_words, tried), "and")
                what = f"{arm} is tuned over {ends}, and an end of the grid proves no optimum"
                yield what, f"give {axis} {ENOUGH_VALUES} values or more, or one"
        numbers = {str(arm): len(tried) for arm, tried in values.items()}
        if len(set(numbers.values())) > 1:
            what = f"unequal trials to choose {axis} from ({plans.in_short(numbers)})"
            yield what, f"give each setup as many values of {axis}"
    elif axis is not None:
        for arm in (arm for arm, of in sides.items() if len(_values(axis, of)) < 2):
            what = f"{arm} has one value of {axis}, and {claim.metric} is taken over several"
            yield what, f"give {axis} several values"
    every = [run for of in sides.values() for run in of]
    if isinstance(metric, metrics.ToTarget) and any(run.train.evaluations < 2 for run in every):
        what = "the target must be reached at two evaluations in a row, and there is one"
        yield what, "write train: {evaluations: 10}"
    probe = metric.probe if isinstance(metric, metrics.ProbeReading) else None
    if lacking := [run for run in every if probe and probe not in run.probes.chosen()]:
        yield f"{lacking[0].setup} does not measure {probe}", f"write probes: {{{probe}: true}}"


def _values(axis: str, runs: list[schema.RunConfig]) -> list[object]:
    """The distinct values of an axis that has a meaning in these runs."""
    values = [point(run).get(axis) for run in runs]
    return list({repr(value): value for value in values if value is not None}.values())
