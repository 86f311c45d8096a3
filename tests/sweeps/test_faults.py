"""A file operation of a small sweep is its last, or fails; run again, nothing is different."""

from __future__ import annotations

import errno
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bnbench.config import schema
from bnbench.errors import StorageError
from bnbench.runner.execution import execute
from bnbench.runner.settings import Stop
from bnbench.sinks.terminal import Screen
from bnbench.store import ExperimentFolder
from bnbench.sweeps.jobs import SweepOutcome
from tests.executors import in_process, sweep
from tests.injection import Disk, Failure, Killed, disk, kills
from tests.runs import evidence, experiment_in, no_norm_config, quiet_console, small_config
from tests.stub import build_stub

TRAIN = schema.TrainConfig(
    steps=4, evaluations=2, evaluation_images=16, log_every=1, checkpoint_every=2
)
RUNS: list[schema.RunConfig] = [small_config(train=TRAIN), no_norm_config(train=TRAIN)]


def swept(experiment: ExperimentFolder) -> SweepOutcome:
    """What `bnbench sweep` does, in this process."""
    experiment.begin("question: none\n")
    executor = in_process(experiment)
    return sweep(RUNS, experiment, executor, Screen(quiet_console(), runs=2), Stop())


def stored(experiment: ExperimentFolder) -> dict[str, Any]:
    """All runs' results, events and weights."""
    return {run.name: evidence(run) for run in experiment.runs()}


def disturbed(path: Path, number: int, failure: Failure) -> Disk:
    """A sweep on a disk that fails, then one on a disk that does not; the first disk."""
    experiment = experiment_in(path)
    with disk(path, number, failure) as faulty:
        if isinstance(failure, str):
            with pytest.raises(Killed):
                swept(experiment)
        else:
            # One run fails, or all would; or only the record of an error could not be written.
            with suppress(StorageError):
                assert len(swept(experiment).failures) <= 1
    again = swept(experiment)
    assert again.failures == [], f"{failure} at operation {number}: {faulty.operation}"
    assert again.done == 2
    return faulty


@pytest.mark.slow
@pytest.mark.parametrize("failures", ["kills", "errors"])
def test_every_second_file_operation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: str
) -> None:
    """Those of a run are all tried in `tests/runner`; here, what a sweep makes of them."""
    monkeypatch.setattr(execute, "__defaults__", (build_stub,))
    with disk(tmp_path / "whole") as whole:
        swept(experiment_in(tmp_path / "whole"))
    undisturbed = stored(experiment_in(tmp_path / "whole"))
    assert len(undisturbed) == 2
    numbers = range(1, len(whole.seen) + 1)
    planned: list[tuple[int, Failure]] = (
        kills(whole.seen)
        if failures == "kills"
        else [(number, (errno.ENOSPC, errno.EIO)[number // 2 % 2]) for number in numbers]
    )
    for number, failure in planned[::2]:
        path = tmp_path / f"{number}-{failure}"
        faulty = disturbed(path, number, failure)
        found = stored(experiment_in(path))
        assert found == undisturbed, f"{failure} at operation {number}: {faulty.operation}"
        shutil.rmtree(path)
