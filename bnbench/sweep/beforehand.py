"""What workers find out before the first run is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bnbench.config import schema
from bnbench.errors import ConfigError, Fault
from bnbench.runner import Screen
from bnbench.sweep.jobs import WAIT_SECONDS, Executor, Failed, Fit, Fits, Lost, Rehearse, Said


def rehearse(
    configs: Iterable[schema.RunConfig],
    executor: Executor,
    screen: Screen,
    pause: Callable[[], None],
) -> None:
    """Let each of the runs take one step. `pause` is called again and again, and may raise.

    Raises ConfigError with the faults of all that cannot train.
    """
    waiting = list(configs)
    faults: list[Fault] = []
    while waiting or executor.busy:
        pause()
        while waiting and executor.busy < executor.size:
            executor.give(Rehearse(waiting.pop(0)))
        for job, answer in executor.answers(WAIT_SECONDS):
            match answer:
                case Said(line):
                    screen.print(line)
                case Failed(ConfigError() as error, _):
                    faults.extend(error.faults)
                case Failed(error, _):
                    raise error
                case Lost(_, True):
                    waiting.append(job.config)  # not its fault
                case Lost(how, _):
                    message = f"the first step fails: the worker {how}"
                    faults.append(Fault(where=f"setup {job.config.setup}", message=message))
                case _:
                    pass
    if faults:
        raise ConfigError(dict.fromkeys(faults))


def fit(
    config: schema.RunConfig, executor: Executor, screen: Screen, pause: Callable[[], None]
) -> None:
    """Ask how many runs like this one fit a GPU, and let the executor do no more at a time."""
    executor.give(Fit(config))
    while executor.busy:
        pause()
        for _, answer in executor.answers(WAIT_SECONDS):
            match answer:
                case Fits(int(runs)) if runs < executor.size:
                    screen.print(f"{runs} at a time, as many as the GPU holds")
                    executor.size = runs
                case Failed(error, _):
                    raise error
                case _:
                    pass
