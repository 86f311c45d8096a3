"""How many threads a run takes: those of its configuration, of its checkpoint, or what is fastest.

Bits depend on the number, so that it never depends on the load of the machine unless asked to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from copy import deepcopy
from dataclasses import replace
from math import inf
from typing import Any

import torch

from bnbench.config import schema
from bnbench.events import Moment
from bnbench.guard import foreign_code
from bnbench.runner.settings import Settings, failed
from bnbench.train import Run, train

MEASURED_SECONDS = 0.4
"""Training that tells the cost of a step: tens of steps, or the three that it takes at least."""

UNCOUNTED = 2
"""The first step allocates and compiles; in the second one its kernels are captured."""

TURNS = 3
"""In how many parts a number of threads takes that time."""

MARGIN = 1.1
"""More threads than another number have to save more than this: they take cores from others."""

WORTH = 1.2
"""How many times as fast more threads have to be to be worth a word."""

LONG_SECONDS = 60.0
"""Runs with less training left than this get no such word."""


def threads_for(
    config: schema.RunConfig,
    state: dict[str, Any] | None,
    device: torch.device,
    settings: Settings,
    make_run: Callable[[], Run],
) -> int:
    """What the configuration asks for; a run that goes on keeps its number if it does not.

    `state`: of the checkpoint that the run goes on from. `make_run`: one to be measured, for auto.
    """
    wanted = config.compute.threads
    if state is not None and (wanted == "auto" or not _asked(config)):
        return int(state["fingerprint"]["threads"])
    if wanted != "auto":
        return wanted
    if settings.threads == 1 or device.type != "cpu":
        return 1
    torch.set_num_threads(1)
    found = fastest(make_run(), settings.threads)
    settings.announce(
        f"compute.threads: auto is {found}, the fastest now of 1 to {settings.threads}"
    )
    return found


def _asked(config: schema.RunConfig) -> bool:
    return "threads" in config.compute.model_fields_set


def fastest(run: Run, most: int) -> int:
    """The fewest threads with which a step of this run takes little more than with the best."""
    doubled = [2**power for power in range(most.bit_length()) if 2**power < most]
    seconds = step_seconds(run, [*doubled, most])
    return min(each for each in seconds if seconds[each] <= MARGIN * min(seconds.values()))


@foreign_code(failed)
def step_seconds(
    run: Run, threads: Sequence[int], *, seconds: float | None = None
) -> dict[int, float]:
    """What a training step takes with each of these numbers of threads, by steps of this run.

    `seconds`: how long each is tried, or a step; `MEASURED_SECONDS` unless given. The numbers take
    turns, so that whatever else the machine does slows all of them. Their first `UNCOUNTED` steps
    come before; infinite where the run has no more.
    """
    seconds = MEASURED_SECONDS if seconds is None else seconds
    before, at = torch.get_num_threads(), run.position
    spent, steps = dict.fromkeys(threads, 0.0), dict.fromkeys(threads, 0)
    try:
        with closing(train(replace(run, evaluate_after=frozenset(), probes={}))) as stated:
            for least in (0.0, *[seconds / TURNS] * TURNS):
                for number in threads:
                    if len(threads) == 1 and spent[number] >= seconds:
                        break  # nothing takes turns with it
                    torch.set_num_threads(number)
                    step, begun = at.step, at.train_seconds
                    enough = step + (1 if least else UNCOUNTED)
                    for _ in stated:
                        if at.step >= enough and at.train_seconds - begun >= least:
                            break
                    if least:
                        spent[number] += at.train_seconds - begun
                        steps[number] += at.step - step
    finally:
        torch.set_num_threads(before)
    return {each: spent[each] / steps[each] if steps[each] else inf for each in threads}


def advice_is_due(config: schema.RunConfig, run: Run, settings: Settings) -> bool:
    """Whether a run that begins has one thread unasked and could have more."""
    on_cpu = next(run.model.parameters()).device.type == "cpu"
    unasked = not _asked(config) and torch.get_num_threads() == 1
    return on_cpu and unasked and settings.threads > 1 and run.position.step == 0


class ThreadAdvice:
    """A view of a run with one thread that says, once, if more would end a long run earlier."""

    def __init__(self, run: Run, most: int, announce: Callable[[str], None]) -> None:
        self._run, self._most, self._announce = run, most, announce
        self._waits = True

    def take(self, moment: Moment) -> None:
        """Measure a copy, once the run has told how long it takes."""
        if not self._waits or moment.train_seconds < MEASURED_SECONDS:
            return
        self._waits = False
        left = moment.train_seconds / moment.step * (self._run.total_steps - moment.step)
        if left < LONG_SECONDS:
            return
        parts = (self._run.model, self._run.optimizer, self._run.position)
        with suppress(Exception), foreign_code(failed):  # copying is the user's code, too
            model, optimizer, at = deepcopy(parts)
            copied = replace(self._run, model=model, optimizer=optimizer, position=at)
            one, most = step_seconds(copied, [1, self._most]).values()
            if one >= WORTH * most:
                self._announce(
                    f"{self._most} threads would be {one / most:.1f} times as fast now: "
                    f"--restart --set compute.threads={self._most} (or auto)"
                )

    def close(self) -> None:
        """Nothing is held."""
