"""One run from start to result: held, resumable, committed.

The order on disk is what makes a kill at any moment harmless: facts are appended, a checkpoint
records how many bytes of them belong to it, and resuming cuts the file to that length.
"""

from __future__ import annotations

import io
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from math import isfinite
from typing import Any, TypeAlias

import torch

from bnbench import store
from bnbench.assemble import Facts, build_run, checkpoints, resolve_device
from bnbench.assemble.custom import forget, guarded, named
from bnbench.config import datasets, files, identity, schema
from bnbench.errors import (
    BnbenchError,
    DamagedError,
    DataError,
    Interrupted,
    RunError,
    StorageError,
    UsageError,
)
from bnbench.events import Diverged, Evaluation, Moment
from bnbench.guard import Entered, Raised, awaited, foreign_code, items
from bnbench.runner import views
from bnbench.runner.belonging import require_same_identity
from bnbench.runner.provenance import (
    fingerprint_of,
    manifest_of,
    require_same_fingerprint,
    take_over,
)
from bnbench.runner.settings import FAILED, Executed, Settings, Stop, failed
from bnbench.runner.threads import ThreadAdvice, advice_is_due, threads_for
from bnbench.sinks import OptionalSink, Sink
from bnbench.sinks.metrics import MetricsSink
from bnbench.store import Appender, ExperimentFolder, Record, Result, RunFolder, Score
from bnbench.store.run_folder import CHECKPOINT
from bnbench.train import Run, train

Build: TypeAlias = Callable[..., tuple[Run, Facts]]
"""What makes a run from its configuration, with the arguments of `assemble.build_run`."""


def execute(
    config: schema.RunConfig,
    experiment: ExperimentFolder,
    settings: Settings,
    build: Build = build_run,
) -> Executed:
    """Train one run to its result, continuing from its last commit; a finished run is only read.

    `build` makes the parts that train: the disk protocol does not depend on what they compute.

    Raises HeldError where another process trains it, Interrupted after a stop was requested,
    ConfigError, DataError, StorageError for what a user can fix, and RunError, with the
    traceback kept in `error.json`, for anything else.
    """
    folder = experiment.run(identity.run_id(config))
    with folder.hold():
        if settings.restart and folder.clear():
            settings.announce(f"{folder.name}: the earlier attempt is thrown away")
        with _failures_recorded(folder):
            otherwise = require_same_identity(folder, config)
            _, found = store.examined(folder)
            if found is not None:
                return Executed(folder, found, found=True, otherwise=tuple(otherwise))
            result = _attempt(config, folder, settings, build)
        if config.probes.chosen():
            _add_pictures(folder, settings.announce, shown="tensorboard" in config.log)
        return Executed(folder, result, found=False)


@contextmanager
def _failures_recorded(folder: RunFolder) -> Iterator[None]:
    """Keep why an attempt failed in the run's folder; make the unexpected presentable."""
    try:
        try:
            yield
        except BnbenchError:
            raise
        except Exception as error:
            raise failed(Raised(error)) from error
    except UsageError:
        raise  # of the command, as of a device that is not there: says nothing about the run
    except BnbenchError as error:
        cause = error.__cause__ if isinstance(error, RunError) else None
        record = {
            "error": type(cause or error).__name__,
            "message": str(error).removeprefix(FAILED),
            "traceback": "".join(traceback.format_exception(cause)) if cause else str(error),
            # Missing data or a full disk say nothing about the run: the next sweep tries it again.
            "of_the_machine": isinstance(error, DataError | StorageError),
            "damaged": isinstance(error, DamagedError),
        }
        with suppress(StorageError):  # if the disk is what failed, the error itself says so
            folder.fail(record)
        if cause:
            error.do = f"the traceback is in {folder.path / 'error.json'}"
        raise


def _attempt(
    config: schema.RunConfig, folder: RunFolder, settings: Settings, build: Build
) -> Result:
    """Train from the last commit to the result, or take the result over from a sibling."""
    begun = time.perf_counter()
    state = _committed_state(folder, config, settings)
    device = resolve_device(settings.device or config.compute.device, settings.worker)
    made = partial(build, config, device, announce=settings.announce)
    threads = threads_for(config, state, device, settings, lambda: made()[0])
    torch.set_num_threads(threads)
    fingerprint = fingerprint_of(device, threads)
    if state is not None:
        require_same_fingerprint(folder, state["fingerprint"], fingerprint, settings)
    elif (shared := take_over(config, folder, settings, fingerprint)) is not None:
        return shared
    forget()
    run, facts = made()
    if state is not None:
        with foreign_code(failed):
            checkpoints.resume(run, str(folder.path / CHECKPOINT), state)
        begun -= state["wall_seconds"]
    logged = views.LOGGED_AS in (folder.manifest_or_none() or {})
    manifest = manifest_of(config, folder, facts, fingerprint, resumed=state is not None)
    folder.begin(config_text=files.dump(config), manifest=manifest)
    kept = (state["metrics_bytes"], state.get("metrics_sha256")) if state is not None else ()
    with closing(folder.metrics(*kept)) as metrics:
        commits = _Commits(config, fingerprint, folder, run, metrics, begun)
        keep_first_batch = partial(_keep_first_batch, folder, run, facts)
        logs = views.of_log(
            config, folder, settings, resumed=logged, before_tensorboard=keep_first_batch
        )
        sinks = (MetricsSink(metrics), *logs, *_sinks(config, folder, run, settings))
        entered = partial(guarded, config, failed)
        first = awaited(named(config), settings.announce)
        result = _train(run, sinks, commits, settings.stop, entered, first)
    folder.finish(result, checksum=metrics.checksum())
    return result


def _train(
    run: Run,
    sinks: tuple[Sink, ...],
    commits: _Commits,
    stop: Stop,
    entered: Entered,
    first: AbstractContextManager[None],
) -> Result:
    """Train to the end; every moment goes to every sink. Raises Interrupted after a commit.

    `entered`: what each step is done in; `first`: what the first one is, too.
    """
    with ExitStack() as stack:
        for sink in sinks:
            stack.enter_context(closing(sink))
        moments = stack.enter_context(closing(train(run)))
        stack.enter_context(stop.deferred())
        beginning = stack.enter_context(ExitStack())
        beginning.enter_context(first)
        for each in items(moments, entered):
            beginning.close()
            if isinstance(each, Moment):
                last = each
                for sink in sinks:
                    sink.take(each)
            elif stop.exit_code is not None:
                commits.commit()
                raise Interrupted(
                    f"stopped after step {each.step} of {run.total_steps}; it is saved",
                    do="the same command goes on from there",
                    exit_code=stop.exit_code,
                )
            elif commits.due(each.step):
                commits.commit()
        # No commit after the last moment: resuming from one would state it again.
        commits.metrics.sync()
        return _result(run, last, commits.wall_seconds())


class _Commits:
    """The checkpoints of an attempt, and its clock.

    `begun`: when the run would have begun, had it never been interrupted.
    """

    def __init__(
        self,
        config: schema.RunConfig,
        fingerprint: Record,
        folder: RunFolder,
        run: Run,
        metrics: Appender,
        begun: float,
    ) -> None:
        self.metrics = metrics
        self._belongs_to = {"identity": identity.identity(config), "fingerprint": fingerprint}
        self._folder, self._run, self._begun = folder, run, begun
        self._seconds, self._steps = datasets.checkpoint_interval(config.train)
        self._last = time.perf_counter()

    def wall_seconds(self) -> float:
        """Since the run began, without the time between attempts."""
        return time.perf_counter() - self._begun

    def due(self, step: int) -> bool:
        """Whether to commit after this step: every so many steps or seconds, and at the end."""
        if step == self._run.total_steps:
            return True
        if self._steps is not None:
            return step % self._steps == 0
        return self._seconds is not None and time.perf_counter() - self._last >= self._seconds

    def commit(self) -> None:
        """Make the present state the one to resume from."""
        with foreign_code(failed):
            of_run = self._run.state_dict()
        if self._run.position.step == self._run.total_steps:
            of_run["optimizer"]["state"] = {}  # no step follows that would need it
        state = {
            "run": of_run,
            "metrics_bytes": self.metrics.sync(),
            "metrics_sha256": self.metrics.checksum(),
            "wall_seconds": self.wall_seconds(),
            **self._belongs_to,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self._folder.commit(buffer.getvalue())
        self._last = time.perf_counter()


def _sinks(
    config: schema.RunConfig, folder: RunFolder, run: Run, settings: Settings
) -> Iterator[Sink]:
    """What the user sees of a run in the terminal."""
    if settings.view is not None:
        opened = partial(settings.view, folder.name, run.total_steps)
        yield OptionalSink(opened, settings.announce)
    if advice_is_due(config, run, settings):
        advice = partial(ThreadAdvice, run, settings.threads, settings.announce)
        yield OptionalSink(advice, settings.announce)


def _keep_first_batch(folder: RunFolder, run: Run, facts: Facts) -> None:
    """The first images, for TensorBoard."""
    from bnbench.sinks.tensorboard.records import first_images  # slow to import

    images, labels = run.batch_at(0)
    names = [facts.classes[label] for label in labels.tolist()]
    folder.keep_first_batch(first_images(images.cpu().numpy(), names))


def _add_pictures(folder: RunFolder, announce: Callable[[str], None], *, shown: bool) -> None:
    """Draw what the probes of a finished run have read, and, if it is `shown`, show it in
    TensorBoard; a failure does not harm the run."""
    from bnbench.board.views import open_view  # slow to import

    try:
        from bnbench.report.figures.probes import probe_pictures

        folder.keep_pictures(probe_pictures(folder))
        if shown:
            open_view(folder).close()
    except Exception as error:
        announce(f"warning: {folder.name}: no pictures of its probes ({error})")


def _committed_state(
    folder: RunFolder, config: schema.RunConfig, settings: Settings
) -> dict[str, Any] | None:
    content = folder.recover(lambda said: settings.announce(f"warning: {said}"))
    if content is None:
        return None
    name = str(folder.path / CHECKPOINT)
    return checkpoints.load_state(name, content, identity.identity(config))


def _result(run: Run, last: Moment, wall_seconds: float) -> Result:
    """How the run ended, from its last moment."""
    at = run.position
    ended = Result(
        state="completed",
        steps=at.step,
        examples=at.examples,
        train_seconds=at.train_seconds,
        evaluation_seconds=at.evaluation_seconds,
        probe_seconds=at.probe_seconds,
        wall_seconds=wall_seconds,
        images_per_second=at.examples / at.train_seconds if at.train_seconds > 0 else 0.0,
    )
    scores: dict[str, dict[str, Score]] = {}
    for fact in last.facts:
        if isinstance(fact, Diverged):
            return replace(ended, state="diverged", step=last.step, reason=fact.reason)
        if isinstance(fact, Evaluation):
            loss = fact.loss if isfinite(fact.loss) else None
            scores.setdefault(fact.split, {})[fact.stats] = Score(loss, fact.accuracy)
    return replace(ended, scores=scores)
