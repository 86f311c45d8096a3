"""A training loop of the user's own: what its normalization layers do, said while it trains."""

from bnbench.watching.watch import Watch as Watch
from bnbench.watching.watch import watch as watch
