"""Runs of a sweep without training: who does what with them is scripted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bnbench.config import files, identity, schema
from bnbench.runner.settings import Stop
from bnbench.sinks.terminal import Screen
from bnbench.store import ExperimentFolder
from bnbench.sweeps.jobs import (
    Answer,
    Failed,
    Job,
    SweepOutcome,
    Train,
    Trained,
)
from tests.executors import Behaviour, Scripted, sweep
from tests.runs import a_result, end, small_config

RESULT = a_result()


def trained(_: Job) -> list[Answer]:
    """Every run succeeds."""
    return [Trained(RESULT, found=False)]


def seeds(count: int, **changes: Any) -> list[schema.RunConfig]:
    """One cell's runs."""
    return [small_config(seed=seed, **changes) for seed in range(count)]


def finish(experiment: ExperimentFolder, config: schema.RunConfig, **changes: Any) -> None:
    """Let a run have a result on disk."""
    folder = experiment.run(identity.run_id(config))
    end(folder, files.dump(config), replace(RESULT, **changes))


def run_sweep(
    runs: list[schema.RunConfig],
    experiment: ExperimentFolder,
    behaviour: Behaviour,
    screen: Screen,
    *,
    size: int = 1,
    checks: bool = False,
    **options: Any,
) -> tuple[SweepOutcome, Scripted]:
    executor = Scripted(experiment, behaviour, size, checks=checks)
    return sweep(runs, experiment, executor, screen, Stop(), **options), executor


def failing(bad: schema.RunConfig, error: Exception, *, hopeless: bool = False) -> Behaviour:
    """All runs succeed but one."""

    def behave(job: Job) -> list[Answer]:
        if isinstance(job, Train) and job.config == bad:
            return [Failed(error, hopeless)]  # type: ignore[arg-type]
        return [Trained(RESULT, found=False)]

    return behave
