"""What workers find out before the first run is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bnbench import config as configuration
from bnbench.config import schema
from bnbench.errors import ConfigError, Fault
from bnbench.sweep.dispatch import Dispatcher
from bnbench.sweep.jobs import Check, Checked, Failed, Fit, Fits, Job, Lost


def check_networks(configs: Sequence[schema.RunConfig], dispatcher: Dispatcher) -> None:
    """Check each distinct network of these runs.

    Raises ConfigError with the faults of all that cannot train.
    """
    distinct: dict[str, schema.RunConfig] = {}
    for config in configs:
        distinct.setdefault(repr((config.data, config.model, config.norm)), config)
    # One job for each network with code of the user's: if its worker dies, the culprit is known.
    jobs = [Check((config,)) for config in distinct.values() if configuration.opaque(config)]
    faults: dict[Job, list[Fault]] = {job: [] for job in jobs}
    dispatcher.add(jobs)
    for job, answer in dispatcher.answers():
        match job, answer:
            case _, Checked(found):
                faults[job] += found
            case Check((config, *_)), Lost(how, _):
                message = f"the first step fails: the worker {how}"
                faults[job].append(Fault(where=f"setup {config.setup}", message=message))
            case _, Failed(error, _):
                raise error
            case _:
                pass
    all_faults = [fault for each in faults.values() for fault in each]
    if all_faults and not dispatcher.stopping:
        raise ConfigError(dict.fromkeys(all_faults))


def fit_memory(
    config: schema.RunConfig, dispatcher: Dispatcher, say: Callable[[str], None]
) -> None:
    """Ask how many runs like this one fit a GPU, and do no more than these at a time."""
    dispatcher.add([Fit(config)])
    for _, answer in dispatcher.answers():
        match answer:
            case Fits(int(runs)) if runs < dispatcher.limit:
                say(f"{runs} at a time, as many as the GPU holds")
                dispatcher.limit = runs
            case Failed(error, _):
                raise error
            case _:
                pass
