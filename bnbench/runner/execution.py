"""One run from start to result: held, resumable, committed.

The order on disk is what makes a kill at any moment harmless: events are appended, a checkpoint
records how many bytes of them belong to it, and going on cuts the file to that length.
"""

from __future__ import annotations

import io
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from itertools import groupby
from math import isfinite
from typing import Any, Protocol

import torch

from bnbench import config as configuration
from bnbench.assemble import Facts, build_run, resolve_device
from bnbench.config import schema
from bnbench.errors import BnbenchError, DataError, Interrupted, RunError, StorageError
from bnbench.events import Diverged, Evaluation, Event, SafePoint
from bnbench.runner.provenance import fingerprint_of, manifest_of, require_same_fingerprint
from bnbench.runner.settings import Executed, Settings
from bnbench.runner.sharing import take_over
from bnbench.runner.views import Views, add_pictures
from bnbench.sinks import MetricsSink
from bnbench.store import ExperimentFolder, Result, RunFolder, Score
from bnbench.train import Run, train


class Build(Protocol):
    """What makes a run from its configuration, as `assemble.build_run` does."""

    def __call__(
        self,
        config: schema.RunConfig,
        device: torch.device,
        *,
        announce: Callable[[str], None] = ...,
    ) -> tuple[Run, Facts]: ...


def execute(
    config: schema.RunConfig,
    experiment: ExperimentFolder,
    settings: Settings,
    build: Build = build_run,
) -> Executed:
    """Train one run to its result, going on from its last commit; a finished run is only read.

    `build` makes the parts that train: the disk protocol does not depend on what they compute.

    Raises HeldError where another process trains it, Interrupted after a stop was requested,
    ConfigError, DataError, StorageError for what a user can mend, and RunError, with the
    traceback kept in `error.json`, for anything else.
    """
    folder = experiment.run(configuration.run_id(config))
    with folder.hold():
        if settings.restart and folder.clear():
            settings.announce(f"{folder.name}: the earlier attempt is thrown away")
        _require_same_identity(folder, config)
        found = folder.result()
        if found is not None:
            return Executed(folder, found, found=True)
        with _failures_recorded(folder):
            result = _execute(config, folder, settings, build)
        if settings.draw is not None and config.probes.chosen():
            add_pictures(folder, settings.draw, settings.announce)
        return Executed(folder, result, found=False)


@contextmanager
def _failures_recorded(folder: RunFolder) -> Iterator[None]:
    """Keep why an attempt failed in the run's folder; make the unexpected presentable."""
    try:
        yield
    except BnbenchError as error:
        _keep_error(folder, error, str(error))
        raise
    except Exception as error:
        _keep_error(folder, error, traceback.format_exc())
        kind = type(error).__name__
        message = (str(error).strip() or kind).splitlines()[0]
        raise RunError(
            f"the run failed: {kind}: {message}",
            do=f"the traceback is in {folder.path / 'error.json'}",
        ) from error


def _keep_error(folder: RunFolder, error: Exception, text: str) -> None:
    record = {
        "error": type(error).__name__,
        "message": str(error),
        "traceback": text,
        # Missing data or a full disk say nothing about the run: the next sweep tries it again.
        "of_the_machine": isinstance(error, DataError | StorageError),
    }
    with suppress(StorageError):  # if the disk is what failed, the error itself says so
        folder.fail(record)


def _require_same_identity(folder: RunFolder, config: schema.RunConfig) -> None:
    """Refuse a folder whose configuration is not the one that its name stands for."""
    text = folder.config_text()
    if text is None:
        return
    try:
        kept = configuration.expand_one(configuration.load_experiment(folder.path / "config.yaml"))
    except BnbenchError as error:
        raise StorageError(
            f"{folder.path / 'config.yaml'} cannot be read back:\n{error}",
            do="train the run again with --restart",
        ) from error
    differences = configuration.differences(kept, config)
    if differences:
        first, *others = differences
        more = f" (and {len(others)} more)" if others else ""
        raise StorageError(
            f"{folder.path / 'config.yaml'} is not the configuration that the folder is named "
            f"after:\n  {first}{more}",
            do="undo the change, or train the run again with --restart",
        )


def _execute(
    config: schema.RunConfig, folder: RunFolder, settings: Settings, build: Build
) -> Result:
    begun = time.perf_counter()
    state = _committed_state(folder, settings)
    device = resolve_device(settings.device or config.compute.device)
    threads = _threads(config, settings, state)
    torch.set_num_threads(threads)
    fingerprint = fingerprint_of(device, threads)
    if state is not None:
        require_same_fingerprint(
            folder,
            state["fingerprint"],
            fingerprint,
            accept=settings.accept_changes,
            announce=settings.announce,
        )
    elif (shared := take_over(config, folder, settings, fingerprint)) is not None:
        return shared
    run, facts = build(config, device, announce=settings.announce)
    if state is not None:
        run.load_state_dict(state["run"])

    manifest = manifest_of(config, folder, facts, fingerprint, resumed=state is not None)
    folder.begin(config_text=configuration.dump(config), manifest=manifest)
    metrics = folder.metrics(keep=0 if state is None else state["metrics_bytes"])
    earlier_seconds = 0.0 if state is None else state["wall_seconds"]

    def wall_seconds() -> float:
        return earlier_seconds + time.perf_counter() - begun

    def commit() -> None:
        folder.commit(
            _serialized(
                {
                    "run": run.state_dict(),
                    "metrics_bytes": metrics.sync(),
                    "wall_seconds": wall_seconds(),
                    "identity": configuration.identity(config),
                    "fingerprint": fingerprint,
                }
            )
        )

    last: list[Event] = []
    with (
        closing(metrics),
        closing(
            Views(
                config,
                folder,
                facts,
                lambda: run.batch_at(0),
                view=settings.view,
                announce=settings.announce,
            )
        ) as views,
        closing(train(run)) as stated,
        settings.stop.deferred(),
    ):
        truth = MetricsSink(metrics)
        due = _CommitSchedule(config)
        pending: list[Event] = []

        def flush() -> None:
            for _, moment in groupby(pending, key=lambda event: event.step):
                events = list(moment)
                truth.take(events)
                views.take(events)
            pending.clear()

        for event in stated:
            if not isinstance(event, SafePoint):
                pending.append(event)
                last.append(event)
                last = [kept for kept in last if kept.step == event.step]
                continue
            flush()
            if settings.stop.exit_code is not None:
                commit()
                raise Interrupted(
                    f"stopped after step {event.step} of {facts.total_steps}; it is saved",
                    do="the same command goes on from there",
                    exit_code=settings.stop.exit_code,
                )
            if due(event.step) or event.step == facts.total_steps:
                commit()
        # No commit after the last events: going on from one would state them again.
        flush()
        metrics.sync()
        result = _result(run, last, wall_seconds())
    folder.finish(result)
    return result


class _CommitSchedule:
    """When the next checkpoint is due, by steps or by seconds."""

    def __init__(self, config: schema.RunConfig) -> None:
        self._seconds, self._steps = configuration.checkpoint_interval(config.train)
        self._last = time.perf_counter()

    def __call__(self, step: int) -> bool:
        if self._steps is not None:
            return step % self._steps == 0
        if self._seconds is None or time.perf_counter() - self._last < self._seconds:
            return False
        self._last = time.perf_counter()
        return True


def _committed_state(folder: RunFolder, settings: Settings) -> dict[str, Any] | None:
    checkpoint = folder.recover()
    if checkpoint is None:
        return None
    if checkpoint.warning is not None:
        settings.announce(f"warning: {checkpoint.warning}")
    state: dict[str, Any] = torch.load(
        io.BytesIO(checkpoint.content), weights_only=True, map_location="cpu"
    )
    return state


def _serialized(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _threads(config: schema.RunConfig, settings: Settings, state: dict[str, Any] | None) -> int:
    """As configured; else as in the attempt that is resumed; else as the caller says."""
    if config.compute.threads != "auto":
        return config.compute.threads
    if state is not None:
        return int(state["fingerprint"]["threads"])
    return settings.threads


def _result(run: Run, last: list[Event], wall_seconds: float) -> Result:
    """How the run ended, from the events of the last moment."""
    at = run.position
    ended = Result(
        state="completed",
        steps=at.step,
        examples=at.examples,
        train_seconds=at.train_seconds,
        evaluation_seconds=at.evaluation_seconds,
        probe_seconds=at.probe_seconds,
        wall_seconds=wall_seconds,
        images_per_second=images_per_second(at.examples, at.train_seconds),
    )
    scores: dict[str, dict[str, Score]] = {}
    for event in last:
        match event:
            case Diverged():
                return replace(ended, state="diverged", step=event.step, reason=event.reason)
            case Evaluation():
                loss = event.loss if isfinite(event.loss) else None
                scores.setdefault(event.split, {})[event.stats] = Score(loss, event.accuracy)
            case _:
                pass
    return replace(ended, scores=scores)


def images_per_second(examples: int, train_seconds: float) -> float:
    """Images trained on per second of training work; 0 where no time has passed."""
    return examples / train_seconds if train_seconds > 0 else 0.0
