"""What workers find out before the first run is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bnbench.config import feasible, schema
from bnbench.errors import ConfigError
from bnbench.sweep import jobs
from bnbench.sweep.dispatch import Dispatcher

Refuse = Callable[[Iterable[jobs.Refused]], ConfigError]
"""Makes an error of runs that cannot be trained, with the places in the file that say so."""


def check_networks(
    configs: Iterable[schema.RunConfig], dispatcher: Dispatcher, refuse: Refuse
) -> None:
    """Check each distinct network of these runs. Raises ConfigError with what all cannot do."""
    known: list[schema.RunConfig] = []
    custom: list[jobs.Check] = []
    for same in feasible.networks(configs):
        of_each_setup = tuple({config.setup: config for config in reversed(same)}.values())[::-1]
        if feasible.opaque(same[0]):
            # A job for each: if its worker dies, the culprit is known.
            custom.append(jobs.Check(of_each_setup))
        else:
            known += of_each_setup
    checks = [jobs.Check(tuple(known)), *custom] if known else custom
    refused: dict[jobs.Job, tuple[jobs.Refused, ...]] = dict.fromkeys(checks, ())
    dispatcher.add(checks)
    for job, answer in dispatcher.answers():
        match job, answer:
            case _, jobs.Found(tuple(found)):
                refused[job] = found
            case jobs.Check(dead), jobs.Lost(how):
                keys = ("norm.target", "model.target", "model.name", "norm.kind", "model.kind")
                obstacle = feasible.Obstacle(keys, f"the first step fails: the worker {how}")
                refused[job] = tuple((config, obstacle) for config in dead)
            case _, jobs.Failed(error):
                raise error
            case _:
                pass
    together = [each for found in refused.values() for each in found]
    if together and not dispatcher.stopping:
        raise refuse(together)


def fit_memory(
    config: schema.RunConfig, dispatcher: Dispatcher, say: Callable[[str], None]
) -> None:
    """Ask how many runs like this one fit a GPU, and do no more than these at a time."""
    dispatcher.add([jobs.Fit(config)])
    for _, answer in dispatcher.answers():
        match answer:
            case jobs.Found(int(runs)) if runs < dispatcher.limit:
                say(f"{runs} at a time, as many as the GPU holds")
                dispatcher.limit = runs
            case jobs.Failed(error):
                raise error
            case _:
                pass
