"""The files of all runs, written again: by several processes where there are many."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from bnbench import children, garbage
from bnbench.board.bands import Curves, Seed, noted, seed_of, write_seed_bands
from bnbench.board.views import Description, describe, rewritten
from bnbench.errors import BnbenchError, DamagedError, HeldError, RunError
from bnbench.machine import usable_cores
from bnbench.sinks.metrics import to_moments
from bnbench.store import ExperimentFolder, RunFolder, examined
from bnbench.wording import counted

Say = Callable[[str], None]

SHOWN_SECONDS = 3.0
"""How often progress is said."""
WORTH = 500
"""Runs that take a process a few seconds: several times as long as its start."""
AT_ONCE = 10
"""Runs that a process takes in turn: what it says of them fits into a pipe."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What became of a run's files. `seed`: what means need, if it can be read. `note`: why the
    files are as they were."""

    seed: Seed | None
    note: str | None = None
    damaged: bool = False


def rebuild_all(experiments: Sequence[ExperimentFolder], *, show: Say, warn: Say) -> bool:
    """Rewrite the files of all runs and bands; whether every run has them."""
    whole = True
    for each in experiments:
        done, notes, seeds = rebuild(each, warn)
        for line in (*notes, *write_seed_bands(each, seeds)):
            warn(line)
        whole = whole and not notes
        files = "files of 1 run are" if done == 1 else f"files of {done} runs are"
        show(f"{each.path}: TensorBoard's {files} new")
    return whole


def rebuild(
    experiment: ExperimentFolder, show: Say = lambda _: None
) -> tuple[int, list[str], list[Seed]]:
    """Rewrite the files of every run. A run that another process trains or that is damaged keeps
    its own. `show` is told about progress from time to time.

    Returns how many runs have new files, a sentence about each of the others, and what
    `write_seed_bands` takes. Raises RunError where a process ends too early.
    """
    runs = [run for run in experiment.runs() if run.has_begun()]
    processes = min(usable_cores(), len(runs) // WORTH)
    description, shown = describe(experiment), time.monotonic()
    done, damaged, notes, seeds = 0, False, list[str](), list[Seed]()
    with ExitStack() as stack:
        if processes > 1:
            found = stack.enter_context(_in_processes(runs, description, processes))
        else:
            found = (_rewrite(run, description) for run in runs)
        for number, each in enumerate(found):
            if time.monotonic() - shown > SHOWN_SECONDS:
                show(f"{experiment.path}: {number:,} of {counted(len(runs), 'run')}")
                shown = time.monotonic()
            done += each.note is None
            notes += [each.note] if each.note is not None else []
            damaged = damaged or each.damaged
            seeds += [each.seed] if each.seed is not None else []
    if damaged:
        notes.append("bnbench sweep --retry-failed renames damaged files, and trains runs again")
    return done, notes, seeds


def _rewrite(folder: RunFolder, description: Description) -> Rewritten:
    curves = Curves()
    try:
        with folder.hold(wait_seconds=0.0):
            manifest, result = examined(folder)
            if manifest is None:
                return Rewritten(None)
            moments = noted(to_moments(folder.records()), curves)
            rewritten(folder, manifest, description, moments).close()
    except HeldError:
        return Rewritten(seed_of(folder), f"{folder.name} is being trained: it writes its own")
    except DamagedError as error:
        return Rewritten(seed_of(folder), f"{folder.name}: {error.what}", damaged=True)
    except BnbenchError as error:
        return Rewritten(seed_of(folder), f"{folder.name}: {error}")
    if result is None or result.state != "completed":
        return Rewritten(seed_of(folder))
    return Rewritten(Seed(manifest, result.state, curves))


@contextmanager
def _in_processes(
    runs: Sequence[RunFolder], description: Description, number: int
) -> Iterator[Iterator[Rewritten]]:
    """What becomes of the runs, in their order, which so many processes rewrite in turn."""
    context = multiprocessing.get_context("spawn")
    together = [runs[at : at + AT_ONCE] for at in range(0, len(runs), AT_ONCE)]
    started: list[tuple[SpawnProcess, Connection]] = []
    try:
        for at in range(number):
            ours, theirs = context.Pipe(duplex=False)
            arguments = (theirs, together[at::number], description, os.getpid())
            process = context.Process(target=_rewrite_all, args=arguments, name="bnbench rebuild")
            try:
                children.start(process)
            except OSError as error:
                why = f"a process that rewrites files cannot be started: {error.strerror}"
                raise RunError(why, do="free some memory") from error
            theirs.close()  # so that its end of the pipe closes with it
            started.append((process, ours))
        turns = zip(together, cycle(started))
        yield (each for _, process in turns for each in _received(*process))
    finally:
        for process, ours in started:
            process.kill()
            process.join()
            ours.close()


def _received(process: SpawnProcess, connection: Connection) -> list[Rewritten]:
    try:
        found: list[Rewritten] = connection.recv()
    except (EOFError, OSError):
        process.join()
        raise RunError(
            f"a process that rewrites files {children.cause(process.exitcode or 0)}",
            do="the same command begins again; no run is lost",
        ) from None
    return found


def _rewrite_all(
    connection: Connection,
    together: Sequence[Sequence[RunFolder]],
    description: Description,
    parent: int,
) -> None:
    children.belong_to(parent)
    with garbage.uncollected():
        for runs in together:
            connection.send([_rewrite(run, description) for run in runs])
