"""Which runs are missing, and the executor that trains them here, one after the other."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from errno import EDQUOT, ENOSPC, EROFS

from bnbench.config import RunConfig, run_id
from bnbench.errors import (
    BnbenchError,
    ConfigError,
    DataError,
    Fault,
    HeldError,
    Interrupted,
    StorageError,
    UsageError,
)
from bnbench.runner import Result, Settings, execute, opaque, rehearse
from bnbench.store import ExperimentFolder, RunFolder

HELD_POLL_SECONDS = 1.0
"""How often to look again at runs that another process trains."""


@dataclass(slots=True)
class Outcome:
    """What became of a sweep's runs: each in exactly one of the three."""

    results: list[tuple[RunConfig, Result]] = field(default_factory=list)
    failures: list[tuple[RunConfig, str]] = field(default_factory=list)
    left: list[RunConfig] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Runs that are dealt with."""
        return len(self.results) + len(self.failures)


def sweep(
    runs: Sequence[RunConfig],
    experiment: ExperimentFolder,
    settings: Settings,
    *,
    retry_failed: bool = False,
    fail_fast: bool = False,
    report: Callable[[Outcome], None] = lambda _: None,
) -> Outcome:
    """Train what is missing of `runs`, in their order; finished ones are only read.

    A run that fails is kept as failed and the others go on; it is not tried again unless
    `retry_failed`, or unless data or the disk was what failed. Runs that another process trains
    are waited for at the end. `report` is called after each run.

    Raises Interrupted, and DataError or StorageError where no run could succeed; ConfigError,
    before the first run, where a network that configuration cannot see into cannot train.
    """
    _rehearse(runs, experiment, settings)
    outcome = Outcome()
    waiting = deque(runs)
    held = 0
    while waiting:
        config = waiting.popleft()
        try:
            earlier = _failure_to_keep(experiment.run(run_id(config)))
            if earlier is not None and not (retry_failed or settings.restart):
                outcome.failures.append((config, f"failed before: {earlier}"))
            else:
                outcome.results.append((config, execute(config, experiment, settings)))
        except HeldError:
            waiting.append(config)
            held += 1
            if held >= len(waiting):
                time.sleep(HELD_POLL_SECONDS)
            continue
        except (Interrupted, DataError, UsageError):
            raise
        except BnbenchError as error:
            if _unusable_disk(error):
                raise
            outcome.failures.append((config, str(error)))
            if fail_fast:
                outcome.left = list(waiting)
                report(outcome)
                return outcome
        held = 0
        report(outcome)
    return outcome


def _rehearse(runs: Sequence[RunConfig], experiment: ExperimentFolder, settings: Settings) -> None:
    faults: list[Fault] = []
    for config in runs:
        if config.seed != runs[0].seed or not opaque(config):
            continue
        if experiment.run(run_id(config)).state() != "new":
            continue
        try:
            rehearse(config, settings)
        except ConfigError as error:
            faults.extend(error.faults)
    if faults:
        raise ConfigError(dict.fromkeys(faults))


def _failure_to_keep(folder: RunFolder) -> str | None:
    """Why the run failed, where trying once more would most likely fail in the same way."""
    failure = folder.error() if folder.state() == "failed" else None
    if failure is None or failure.get("of_the_machine"):
        return None
    return str(failure["message"])


def _unusable_disk(error: BnbenchError) -> bool:
    """Whether the next run would fail in the same way."""
    cause = error.__cause__
    return (
        isinstance(error, StorageError)
        and isinstance(cause, OSError)
        and cause.errno in (ENOSPC, EDQUOT, EROFS)
    )
