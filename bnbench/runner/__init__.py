"""One run from start to result: held, resumable, committed.

`execution`: the order on disk that makes a kill at any moment harmless. `settings`: how runs are
executed, and how one ended. `provenance`: versions and fingerprint. `views`: TensorBoard and
terminal, which may fail without harm. `screen`: the terminal that runs share. `stop`: Ctrl-C and
SIGTERM. `sharing`: identical runs of several experiments. `rehearsal`: one step, where only trying
shows whether a network can train, and what a run will cost.

What needs torch is imported when it is first asked for: who only hands out runs and shows them,
as the driver of a sweep does, never waits for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bnbench.runner.screen import Screen, duration
from bnbench.runner.settings import Cost, Executed, Settings
from bnbench.runner.stop import Stop
from bnbench.sinks import View

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
    "View",
    "check",
    "duration",
    "execute",
    "fitting",
    "measure",
    "rehearse",
]
