"""Which study of a folder an experiment continues: no other study takes its place by accident."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from bnbench import store
from bnbench.config import experiments, files, loading, plans, schema
from bnbench.config.faults import Faults
from bnbench.config.identity import cell_key, differences, identity, run_id
from bnbench.errors import BnbenchError, ConfigError, DataError, StorageError, UsageError
from bnbench.sweeps import looks
from bnbench.sweeps.planned import PlannedExperiment
from bnbench.wording import counted, cut


def folder_for(each: PlannedExperiment, *, into: bool) -> store.ExperimentFolder:
    """The study in its folder that an experiment continues, or a new one.

    Seeds, setups, values of axes, profiles and claims come and go. Another base or question is
    another study: one next to those that are there if `into`, else UsageError is raised. So it is
    for other looks than the study has.
    """
    studies = each.folder.studies()
    reasons = [_other(each, study) for study in studies]
    for study, reason in zip(studies, reasons, strict=True):
        if reason is None:
            with suppress(ConfigError, DataError, StorageError):  # `begin` sets it aside
                looks.require_same(each.experiment, *_planned(study), study)
            return study
    if not studies:
        return each.folder
    if into:
        return store.ExperimentFolder(each.folder.path, studies[-1].study + 1)
    raise UsageError(
        f"{studies[0].file} is another study ({reasons[0]})",
        do="give this one a name with --set experiment=NAME, or keep both there with --into",
    )


def begin(
    experiment: experiments.ExperimentConfig,
    study: store.ExperimentFolder,
    say: Callable[[str], None],
) -> None:
    """Keep the experiment's file next to its runs. One that cannot be read is not lost."""
    text = files.dump_experiment(experiment)
    if study.content() not in (None, text.encode()):
        try:
            _planned(study)
        except BnbenchError as error:
            why = error.what.partition("\n")[0]
            say(f"{study.file} cannot be read, and is renamed to {study.set_aside()}: {why}")
    study.begin(text)


def throw_away(
    runs: Sequence[schema.RunConfig], experiment: store.ExperimentFolder, say: Callable[[str], None]
) -> None:
    """Remove what there is of these runs. Raises HeldError where another process trains one."""
    cleared = 0
    for folder in experiment.folders_of(map(run_id, runs)):
        if folder.path.exists():
            with folder.hold():
                cleared += folder.clear()
    if cleared:
        say(f"{counted(cleared, 'earlier run')} thrown away")


def _planned(
    study: store.ExperimentFolder,
) -> tuple[experiments.ExperimentConfig, tuple[schema.RunConfig, ...]]:
    """What a study's own file says, and its runs."""
    old = loading.load_experiment(study.file)
    return old, plans.stored(old)


def _other(each: PlannedExperiment, study: store.ExperimentFolder) -> str | None:
    """What makes a study another one: runs of it that have begun would be in no report, and not
    since a setup, a value or a seed is left out. None if it is continued."""
    planned = {identity(run)[:8] for run in each.plan.runs}
    there = {run.name.rpartition("_")[2]: run for run in study.runs()}
    if there.keys() <= planned:
        return None
    try:
        old, runs = _planned(study)
    except BnbenchError:
        return None  # `begin` sets it aside
    known = {identity(run)[:8]: run for run in runs}
    gone = sorted(there.keys() & known.keys() - planned)
    lost = [known[name] for name in gone if store.read(there[name]).state != "new"]
    if not lost:
        return None
    why = _difference(old, loading.under_profile(each.experiment, old.profile), lost)
    return f"{why}; {counted(len(lost), 'run')} of it would be in no report" if why else None


def _difference(
    old: experiments.ExperimentConfig,
    new: experiments.ExperimentConfig,
    lost: list[schema.RunConfig],
) -> str | None:
    """What has become something else, if not only setups, values and seeds are left out: then the
    setups and axes as they were, on the new base, still make the runs that are lost."""
    defined = {each.name: each for each in new.setups}
    setups = tuple(replace(defined.get(each.name, each), axes=each.axes) for each in old.setups)
    as_before = replace(new, setups=setups, axes=old.axes)
    cells = _cells(as_before)
    changed = [run for run in lost if cell_key(run) not in cells]
    if changed:
        first = changed[0].model_copy(update={"seed": new.seeds[0]})
        keys = min((differences(first, each) for each in cells.values()), key=len, default=[])
        names = list(dict.fromkeys(run.setup for run in changed))
        where = f" (setup {cut(names)})" if len(names) < len(old.setups) else ""
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        return ("; ".join(keys[:3]) or "it can no longer be trained") + more + where
    if old.question and new.question and old.question.split() != new.question.split():
        return f'question: "{old.question}" in the folder, "{new.question}" given'
    if {each.name for each in old.setups} & defined.keys() or _cells(old).keys() & _cells(
        new
    ).keys():
        return None
    names_then, names_now = (cut([each.name for each in both.setups]) for both in (old, new))
    return f"setups: {names_then or 'none'} in the folder, {names_now or 'none'} given"


def _cells(experiment: experiments.ExperimentConfig) -> dict[str, schema.RunConfig]:
    """The first seed of each cell that can be trained."""
    crossing = plans.Crossing(experiment, Faults())
    return {cell_key(run): run for _, run in crossing.configs(plans.size(experiment))}
