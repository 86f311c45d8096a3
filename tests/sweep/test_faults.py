"""Every file operation of a small sweep is its last, or fails; run again, nothing is different."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bnbench.config import schema
from bnbench.errors import StorageError
from bnbench.runner import Screen, Stop
from bnbench.store import ExperimentFolder
from bnbench.sweep.jobs import WorkerOptions
from bnbench.sweep.schedule import SweepOutcome, sweep
from tests.executors import InProcess
from tests.injection import Killed, Moment, inject
from tests.runs import evidence, experiment_in, no_norm_config, quiet_console, small_config

TRAIN = schema.TrainConfig(
    steps=4, evaluations=2, evaluation_images=16, log_every=1, checkpoint_every=2
)
RUNS: list[schema.RunConfig] = [small_config(train=TRAIN), no_norm_config(train=TRAIN)]


def swept(experiment: ExperimentFolder) -> SweepOutcome:
    """What `bnbench sweep` does, in this process."""
    experiment.begin("question: none\n")
    executor = InProcess(1, WorkerOptions(), experiment)
    return sweep(RUNS, experiment, executor, Screen(quiet_console(), runs=2), Stop())


def left_behind(experiment: ExperimentFolder) -> dict[str, Any]:
    """All runs' results, events and weights."""
    return {run.name: evidence(run) for run in experiment.runs()}


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after", "torn", errno.ENOSPC, errno.EIO])
def test_every_file_operation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: Moment
) -> None:
    whole = experiment_in(tmp_path / "whole")
    with monkeypatch.context() as patched:
        seen = inject(patched, 0, moment)
        swept(whole)
    undisturbed = left_behind(whole)
    assert len(undisturbed) == 2
    for number in range(1, len(seen) + 1):
        experiment = experiment_in(tmp_path / str(number))
        with monkeypatch.context() as patched:
            inject(patched, number, moment)
            if isinstance(moment, str):
                with pytest.raises(Killed):
                    swept(experiment)
            else:
                # One run fails, or all would; or what failed was but the record of an error.
                with suppress(StorageError):
                    assert len(swept(experiment).failures) <= 1
        again = swept(experiment)
        assert again.failures == [], f"{moment} operation {number}: {seen[number - 1]}"
        assert again.done == 2
        assert left_behind(experiment) == undisturbed, f"{moment} operation {number}"
