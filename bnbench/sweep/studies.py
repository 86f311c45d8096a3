"""Which study of a folder an experiment continues: no other study takes its place by accident."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from bnbench import store
from bnbench.config import experiments, identity, loading, plans, schema
from bnbench.config.faults import Faults
from bnbench.config.schema import BLOCKS
from bnbench.errors import BnbenchError, UsageError
from bnbench.wording import counted, cut

SHOWN = 3
"""Of the keys that differ."""


@dataclass(frozen=True, slots=True)
class Given:
    """An experiment as given, its runs, and the command line's overrides."""

    experiment: experiments.ExperimentConfig
    plan: plans.Plan
    overrides: loading.Overrides

    def under(self, profile: str | None) -> experiments.ExperimentConfig:
        """The same file under another of its profiles, if it has that one."""
        known = (self.experiment.source.data or {}).get("profiles") or {}
        if profile == self.experiment.profile or profile not in known:
            return self.experiment
        sets = (*self.overrides.set, f"profile={json.dumps(profile)}")
        return loading.load_experiment(self.experiment.path, replace(self.overrides, set=sets))


def folder_for(
    given: Given, folder: store.ExperimentFolder, *, into: bool, say: Callable[[str], None]
) -> store.ExperimentFolder:
    """The study in the folder that is continued, or a new one.

    Seeds, setups, values of axes, profiles and claims come and go. Another base or question is
    another study: one next to those that are there if `into`, else UsageError is raised.
    """
    studies = folder.studies()
    differences = [_difference(given, each, say) for each in studies]
    for study, difference in zip(studies, differences, strict=True):
        if difference is None:
            return study
    if not studies:
        return folder
    if into:
        return store.ExperimentFolder(folder.path, studies[-1].study + 1)
    raise UsageError(
        f"{studies[0].file} is another study ({differences[0]})",
        do="give this one a name with --set experiment=NAME, or keep both there with --into",
    )


def _difference(
    given: Given, study: store.ExperimentFolder, say: Callable[[str], None]
) -> str | None:
    """What makes a study another one than is given: runs of it that have begun would drop out of
    all reports, and not since a setup, a value or a seed is left out. None if it is no other."""
    planned = {identity.identity(run)[:8] for run in given.plan.runs}
    there = {run.name.rpartition("_")[2]: run for run in study.runs()}
    if there.keys() <= planned:
        return None
    try:
        old = loading.load_experiment(study.file)
        kept = plans.expand(old, max_runs=plans.size(old)).runs
    except BnbenchError as error:
        say(f"{study.file} cannot be read, and is replaced: {error.what.partition(chr(10))[0]}")
        return None
    digests = {identity.identity(run)[:8]: run for run in kept}
    lost = [digests[each] for each in sorted(there.keys() & digests.keys() - planned)
            if store.read(there[each]).state != "new"]  # fmt: skip
    if not lost:
        return None
    why = _changed(old, given.under(old.profile), lost)
    return f"{why}; {counted(len(lost), 'run')} of it would be in no report" if why else None


def _changed(
    old: experiments.ExperimentConfig,
    new: experiments.ExperimentConfig,
    lost: list[schema.RunConfig],
) -> str | None:
    """What of the base or of a setup has become something else, or the question."""
    swept = {axis.name for axis in old.axes} & {axis.name for axis in new.axes}
    before = _arms(old)
    names = {identity.cell_key(run): name for name, runs in before.items() for run in runs}
    given = {setup.name: setup for setup in new.setups}
    setups = {setup.name: given.get(setup.name, setup) for setup in old.setups}
    changed: dict[str, list[str]] = {}
    for name, run in {names[identity.cell_key(run)]: run for run in lost}.items():
        after = _arms(replace(new, setups=() if name is None else (setups[name],)))[name]
        if not _shapes(before[name], swept) & _shapes(after, swept):
            first = run.model_copy(update={"seed": 0})
            found = (identity.differences(first, each) for each in after)
            changed[name or ""] = min(found, key=len, default=["it cannot be trained now"])
    if changed:
        keys = next(iter(changed.values()))
        more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
        where = f" (setup {', '.join(changed)})" if len(changed) < len(before) else ""
        return "; ".join(keys[:SHOWN]) + more + where
    if old.question and new.question and old.question.split() != new.question.split():
        return f'question: "{old.question}" in the folder, "{new.question}" given'
    every, now = (
        {shape for runs in arms.values() for shape in _shapes(runs, swept)}
        for arms in (before, _arms(new))
    )
    if every & now:
        return None
    names_there, names_given = (
        cut([setup.name for setup in each.setups]) or "none" for each in (old, new)
    )
    return f"setups: {names_there} in the folder, {names_given} given"


def _arms(experiment: experiments.ExperimentConfig) -> dict[str | None, list[schema.RunConfig]]:
    """The first seed of every run that can be trained, by setup."""
    found: dict[str | None, list[schema.RunConfig]] = defaultdict(list)
    crossing = plans.Crossing(replace(experiment, seeds=(0,)), Faults())
    for point, config in crossing.configs(plans.size(experiment)):
        found[point.setup].append(config)
    return found


def _shapes(runs: list[schema.RunConfig], swept: Collection[str]) -> set[str]:
    """What runs are but for the values of axes."""
    return {repr(sorted(_fixed(run, swept))) for run in runs}


def _fixed(run: schema.RunConfig, swept: Collection[str]) -> Iterator[tuple[str, str]]:
    """All that decides the numbers, without axes; of a block whose kind is one, nothing."""
    blocks = {name for name, block in BLOCKS.items() if f"{name}.{block.tag}" in swept}
    for key, value in identity.decisive(run).items():
        if key not in swept and key != "seed" and key.partition(".")[0] not in blocks:
            yield key, repr(value)
