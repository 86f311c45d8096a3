"""One run from start to result: held, resumable, committed.

`execute`: the order on disk that makes a kill at any moment harmless. `provenance`: versions and
fingerprint. `views`: TensorBoard and terminal, which may fail without harm. `screen`: the terminal
that runs share. `stop`: Ctrl-C and SIGTERM. `rehearsal`: one step, where only
trying shows whether a network can train.
"""

from bnbench.runner.execute import Result, Settings, execute
from bnbench.runner.rehearsal import opaque, rehearse
from bnbench.runner.screen import Screen
from bnbench.runner.stop import Stop

__all__ = ["Result", "Screen", "Settings", "Stop", "execute", "opaque", "rehearse"]
