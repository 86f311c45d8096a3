"""Which runs of an experiment are missing, and who trains them.

`local`: here, one after the other.
"""

from bnbench.sweep.local import Outcome, sweep

__all__ = ["Outcome", "sweep"]
