"""When a study is looked at whose seeds are added until its claims are decided, and what a look may
spend of the 5 % with which a file may say something wrong.

A claim is judged at a few numbers of seeds that are set before the first run. At a look with the
share w, p-values are divided by w and intervals have a confidence of 1 − 0.05·w. The shares sum to
1, so that by Bonferroni's inequality all looks together are wrong as rarely as one is without them,
whatever the looks have to do with each other: also where the median takes the mean's place, or
tuning another learning rate, as seeds are added. Intervals are repeated confidence intervals
(Jennison & Turnbull 1990, https://doi.org/10.1214/ss/1177012099), shares spend the error (Lan &
DeMets 1983, https://doi.org/10.1093/biomet/70.3.659). Holm's correction over claims stays valid
where a decided claim keeps the p-value of its look: a first wrong rejection is one of the m true
nulls at p/w ≤ 0.05/m at some look, which Bonferroni bounds over nulls and looks alike.

The first look has half, so that a large effect costs one seed more than it would alone, the last
one a quarter, and those between share the rest. `scripts/make_honesty` compares that with other
shares, the exact joint distribution of the looks, and a test that is valid at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

from bnbench.stats.effect import Direction
from bnbench.stats.verdict import seeds_to_support

MOST = 24
"""Seeds, unless somebody says otherwise."""
FIRST, LAST = 1 / 2, 1 / 4
GROWTH = 1.25
"""From one look to the next, about: 6, 8, 10, 12, 15, 19, 24."""


def planned(directions: Sequence[Direction], most: int) -> tuple[int, ...]:
    """Numbers of seeds, rising to `most`: the first decides every claim if all its seeds agree.

    `directions`: of the claims that are judged together. Raises ValueError where `most` are too
    few for any verdict.
    """
    needed = seeds_to_support(directions)
    if most < needed:
        raise ValueError(f"{most} seeds decide nothing; {needed} are needed for a verdict")
    first = seeds_to_support(directions, share=FIRST)
    if first >= most:
        return (most,)
    steps = max(1, round(log(most / first) / log(GROWTH)))
    return tuple(
        dict.fromkeys(round(first * (most / first) ** (k / steps)) for k in range(steps + 1))
    )


def shares(count: int) -> tuple[float, ...]:
    """What each of so many looks may spend, in order; together 1."""
    if count < 3:
        return ((1.0,), (FIRST, 1 - FIRST))[count - 1]
    between = (1 - FIRST - LAST) / (count - 2)
    return (FIRST, *[between] * (count - 2), LAST)
