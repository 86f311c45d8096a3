"""Seeds that are added until the claims of a study are decided: when it is looked at, and what each
look asks for. What a look says is in `report.looks`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count, islice

from bnbench import store
from bnbench.config import experiments, schema
from bnbench.config.identity import run_id
from bnbench.errors import UsageError
from bnbench.sweeps.planned import PlannedExperiment
from bnbench.wording import counted, listing


def until_decided(
    experiment: experiments.ExperimentConfig, most: int | None
) -> experiments.ExperimentConfig:
    """The experiment with looks, the last one at `most` seeds; those of its file stay. Values of
    the tuned axis are raced, unless the file says otherwise.

    Seeds go on from the largest of the file. Raises UsageError for one whose seeds are fixed, that
    has no claims, or too few seeds.
    """
    from bnbench.stats.looks import MOST, planned  # SciPy takes a while

    name = experiment.path
    if not experiment.claims:
        raise UsageError(
            f"{name} has no claims: there is nothing to decide",
            do="state some in claims: (bnbench explain claims)",
        )
    if experiment.looks:
        if most not in (None, experiment.looks[-1]):
            raise UsageError(f"{name} has looks up to {experiment.looks[-1]} seeds, not {most}")
        return experiment
    if experiment.registered is not None:
        raise UsageError(
            f"{name} is registered with {counted(len(experiment.seeds), 'seed')}, and so they stay",
            do="sweep it without --until; looks: in a file can be registered, too",
        )
    try:
        numbers = planned([claim.direction for claim in experiment.claims], most or MOST)
    except ValueError as error:
        raise UsageError(f"--max-seeds: {error}") from None
    given = experiment.seeds[: numbers[-1]]
    seeds: experiments.Seeds = range(numbers[-1])
    if not isinstance(given, range):
        after = (seed % 2**63 for seed in count(max(given) + 1))
        others = (seed for seed in after if seed not in given)
        seeds = (*given, *islice(others, numbers[-1] - len(given)))
    tune = experiment.tune
    if tune is not None and "race" not in tune.model_fields_set:
        tune = tune.model_copy(update={"race": True})
    return replace(experiment, seeds=seeds, looks=numbers, tune=tune, overridden=True)


def in_turn(
    each: PlannedExperiment, say: Callable[[str], None]
) -> Iterator[Sequence[schema.RunConfig]]:
    """What is trained, one after the other: all runs, or what look after look asks for, until none
    is lacking that training could give. Runs that were asked for before are among them."""
    if not each.experiment.stages:
        yield each.plan.runs
        return
    from bnbench.report.looks import looks
    from bnbench.report.reading import results_of

    asked = 0
    while True:
        *before, last = looks(results_of(each.experiment, each.plan.runs, each.folder, events=True))
        if len(last.study.runs) == asked:
            return
        if before and last.lacking:
            cells = counted(len(last.study.cells), "cell")
            found, claims = f"{len(last.study.given_up)} of {cells} given up in tuning so far", ""
            if last.claims:
                aims = each.experiment.aims or each.experiment.claims
                undecided = [judged.claim.id for judged in last.claims if judged.open]
                settled = len(aims) - len(undecided)
                found = f"{settled} of {counted(len(aims), 'claim')} settled"
                claims = f", for {listing(undecided, 'and')}"
            more = f"{counted(last.lacking, 'run')} more, to {last.seeds} seeds{claims}"
            say(f"{counted(before[-1].seeds, 'seed')}: {found}; {more}")
        asked = len(last.study.runs)
        yield [run.config for run in last.study.runs]


def possible(each: PlannedExperiment) -> Sequence[schema.RunConfig]:
    """The runs that looks have asked for or still may: all, where there are no looks."""
    if not each.experiment.stages:
        return each.plan.runs
    from bnbench.report.looks import looks, needed
    from bnbench.report.reading import results_of

    study = results_of(each.experiment, each.plan.runs, each.folder, events=True)
    *_, last = looks(study)
    cells = needed(replace(study, given_up=last.study.given_up), last.claims)
    asked = {run.name for run in last.study.runs}
    return [run.config for run in study.runs if run.cell in cells or run.name in asked]


def require_same(
    experiment: experiments.ExperimentConfig,
    old: experiments.ExperimentConfig,
    runs: Sequence[schema.RunConfig],
    study: store.ExperimentFolder,
) -> None:
    """A study keeps its looks, and gets none after it could be judged without.

    `old`, `runs`: as the study's file has them. Raises UsageError.
    """
    before, now = (
        each.looks and (each.looks, tuple(each.seeds), each.raced) for each in (old, experiment)
    )
    if before == now:
        return
    others = f"--set experiment=NAME --set seeds=[{max(old.seeds) + 1}]"
    named = f"or take seeds that nobody has seen, in a study of its own: {others}"
    if before[:2] == now[:2]:
        said = "races" if old.raced else "does not race"
        raise UsageError(
            f"{study.file} {said} what is tuned, and so it stays",
            do=f"go on with tune: {{…, race: {str(old.raced).lower()}}}, {named}",
        )
    if old.looks:
        raise UsageError(
            f"{study.file} has looks at {listing(map(str, old.looks), 'and')} seeds; verdicts are "
            "corrected for these, and would not be for others",
            do=f"go on with --until decided --max-seeds {old.looks[-1]}, {named}",
        )
    from bnbench.stats.verdict import seeds_to_support  # SciPy takes a while

    needed = seeds_to_support([claim.direction for claim in old.claims])
    folders = study.folders_of(map(run_id, runs))
    ended = {
        run.seed
        for run, folder in zip(runs, folders, strict=True)
        if store.read(folder, whole=False).result is not None
    }
    if old.claims and len(ended) >= needed:
        raise UsageError(
            f"{study.file} has {counted(len(ended), 'seed')}, and its verdicts may have been read: "
            "looks are set before",
            do=named.removeprefix("or "),
        )
