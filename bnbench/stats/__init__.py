"""Numbers in, statistics with their uncertainty out; no files, no torch.

`means`: the mean of replicates with its interval. `differences`: what can be said of paired
differences: intervals, the sign-flip test, Holm's correction, how many seeds would do. `verdict`:
what they mean for a claim. Nothing here imports `scipy.stats`: it takes a second.
"""

from bnbench.stats.differences import (
    Alternative,
    Interval,
    MedianInterval,
    holm,
    median,
    median_interval,
    paired_t_interval,
    probability_of_superiority,
    seeds_needed,
    sign_flip,
    slope,
)
from bnbench.stats.means import Mean, mean
from bnbench.stats.verdict import (
    CONFIDENCE,
    LEVEL,
    SEEDS_FOR_A_VERDICT,
    Direction,
    Effect,
    Leaning,
    Method,
    Outcome,
    Verdict,
    effect,
    judge,
)

__all__ = [
    "CONFIDENCE",
    "LEVEL",
    "SEEDS_FOR_A_VERDICT",
    "Alternative",
    "Direction",
    "Effect",
    "Interval",
    "Leaning",
    "Mean",
    "MedianInterval",
    "Method",
    "Outcome",
    "Verdict",
    "effect",
    "holm",
    "judge",
    "mean",
    "median",
    "median_interval",
    "paired_t_interval",
    "probability_of_superiority",
    "seeds_needed",
    "sign_flip",
    "slope",
]
