"""One run from start to result: held, resumable, committed.

`execution`: the order on disk that makes a kill at any moment harmless. `settings`: how runs are
executed and stopped, and how one ended. `provenance`: versions and fingerprint. `sharing`:
identical runs of several experiments. `rehearsal`: a few steps before a sweep, to see whether a
network can train and what a run will cost.

What needs torch is imported when it is first asked for: the driver of a sweep only hands out runs
and shows them, and never waits for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bnbench.runner.settings import Cost, Executed, Settings, Stop
from bnbench.sinks.terminal import Screen, duration

if TYPE_CHECKING:
    from bnbench.runner.execution import execute
    from bnbench.runner.rehearsal import check, fitting, measure, rehearse

_WITH_TORCH = {
    "check": "rehearsal",
    "execute": "execution",
    "fitting": "rehearsal",
    "measure": "rehearsal",
    "rehearse": "rehearsal",
}


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)


__all__ = [
    "Cost",
    "Executed",
    "Screen",
    "Settings",
    "Stop",
    "check",
    "duration",
    "execute",
    "fitting",
    "measure",
    "rehearse",
]
