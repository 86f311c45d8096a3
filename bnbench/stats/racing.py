"""Tuning by racing: a value of the tuned axis that is worse on validation than the best one is
given up after a few seeds, and gets no further ones.

It is shown to be worse if it diverged in two seeds more, or by a one-sided t-test of the paired
differences (F-Race: Birattari and others 2002, GECCO; Hoeffding races: Maron & Moore 1994, NIPS 6).
Test images have no say. What is not given up is trained as without a race, and the choice is among
values with all seeds. `runs/reference/honesty.md` says how often it is another one than that of all
seeds of all values, and what that does to verdicts.

Not taken: giving up a value at a part of its training (successive halving, Jamieson & Talwalkar
2015, https://arxiv.org/abs/1502.07943). Under a cosine schedule a prefix says little: of 28 setups
of the shipped claims the better half after a third of the training lacked the best value by more
than a point in 5 %; to keep three quarters of the values was as sure, and saved 3 % of the CPU. Nor
comparing at each seed, or from two seeds on: of nine seeds values then get 77 % instead of 80 (the
mean of five profiles in `tests/stats/racing.py`, normal deviations; 2026-11-28).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import stdtrit

from bnbench.stats.differences import Array

FIRST, STEP = 3, 2
"""Seeds before values are compared, and from one comparison to the next until the first look."""
LEVEL = 0.02
"""Of each comparison. 0.1 trains fewer seeds, but 8 % of files with eight claims then say something
wrong."""
DIVERGED = 2
"""Seeds more in which a value has diverged: one may be chance."""


def rounds(looks: Sequence[int]) -> tuple[int, ...]:
    """Numbers of seeds after which values are compared: before the first look, and at each."""
    return (*range(FIRST, looks[0], STEP), *looks)


def is_worse(
    other: Mapping[int, float | None], best: Mapping[int, float | None], *, higher: bool
) -> bool:
    """Whether a value is worse than the best one, by the scores of the seeds that both have; None:
    it diverged. `higher`: whether higher scores are better."""
    seeds = other.keys() & best.keys()
    if sum((other[s] is None) - (best[s] is None) for s in seeds) >= DIVERGED:
        return True
    pairs = [(best[s], other[s]) for s in seeds]
    differences: Array = np.array([b - o for b, o in pairs if b is not None and o is not None])
    differences = differences if higher else -differences
    n = len(differences)
    if n < FIRST:
        return False
    error = differences.std(ddof=1) / n**0.5
    return bool(differences.mean() > stdtrit(n - 1, 1 - LEVEL) * error)
