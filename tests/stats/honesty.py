"""How often verdicts are wrong where the truth is known, and how often they are right.

Two arms that are the same have differences that are symmetric about 0. Shifted by an edge, they are
those of arms whose true effect is exactly that edge: a verdict beyond it is wrong, and nowhere
would it be wrong more often. `test_honesty` takes few trials, `scripts/make_honesty` many.
"""

from __future__ import annotations

import numpy as np

from bnbench.stats.crossed import crossed_interval
from bnbench.stats.effect import Direction
from tests.stats.many import Mask, adjusted, decided, intervals, outcomes, p_values
from tests.stats.samples import Array, Draw, bimodal, paired_differences

ROWS = 2000
"""Experiments at a time: all sign patterns of ten seeds of these take 16 MB."""
CLAIMS = 5
"""Of a file."""
SMALL, LARGE = 0.5, 4.0
"""Smallest effects, in units of the distribution: below its spread, and well above."""


def unit(draw: Draw) -> float:
    """What a distribution counts in: accuracies in points have some 20 of spread."""
    return 20.0 if draw is bimodal else 1.0


def same_arms(draw: Draw, n: int, count: int, seed: int = 0) -> Array:
    """(count, n) paired differences of two arms that are the same."""
    random = np.random.default_rng([n, count, len(draw.__name__), seed])
    a, b = draw(random, (2, count, n))
    return paired_differences(a, b)


def share(
    outcome: str, rows: Array, smallest: float, direction: Direction = "up", *, claims: int = 1
) -> float:
    """Of files of so many claims (k, n), in how many any of them has the outcome."""
    found = list[Mask]()
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS]
        p = {
            name: adjusted(each.reshape(-1, claims)).reshape(-1)
            for name, each in p_values(part, smallest, direction).items()
        }
        said = outcomes(part, p, smallest=smallest, direction=direction)
        found.append((said == outcome).reshape(-1, claims).any(axis=1))
    return float(np.concatenate(found).mean())


def wrong(draw: Draw, n: int, count: int, *, claims: int = 1) -> dict[str, float]:
    """The share of files with a wrong verdict of each kind: the largest over smallest effects of 0,
    below the spread and above it."""
    rows, most = same_arms(draw, n, count), dict[str, float]()
    for size in (0.0, SMALL, LARGE):
        edge = size * unit(draw)
        above, below = rows + edge, rows - edge
        found = {
            "supported": share("supported", above, edge, claims=claims),
            "either direction": share("supported", above, edge, "two-sided", claims=claims),
            "refuted": share("refuted", below, edge, claims=claims),
            "negligible": max(
                share("negligible", each, edge, claims=claims) for each in (above, below)
            ),
        }
        most = {name: max(most.get(name, 0.0), rate) for name, rate in found.items()}
    return most


def power(draw: Draw, n: int, count: int, smallest: float) -> dict[str, float]:
    """How often an effect of twice the smallest is supported, and its opposite refuted, and one of
    0 negligible; a claim alone in its file."""
    rows, edge = same_arms(draw, n, count, seed=1), smallest * unit(draw)
    return {
        "supported": share("supported", rows + 2 * edge, edge),
        "refuted": share("refuted", rows - 2 * edge, edge),
        "negligible": share("negligible", rows, edge),
    }


def rarely_failing(n: int, count: int) -> float:
    """How often an arm is said to be better that is 3 points better in nine seeds of ten and 27
    points worse in the tenth: equally good in the mean, better in the median."""
    random = np.random.default_rng(n)
    fails = random.random((count, n)) < 0.1
    rows = np.where(fails, -27.0, 3.0) + random.normal(0, 1, (count, n))
    return share("supported", rows, 0.0)


def answers(random: np.random.Generator, n: int, images: int, differ: float) -> Array:
    """(n, images) differences, in points, of two arms that are equally good over all images: some
    are easier for the one, others for the other, by `differ`."""
    hard = random.normal(1, 2, images)
    right = []
    for _ in range(2):
        own = hard + differ * random.normal(0, 1, images)
        logits = own + random.normal(0, 0.05, (n, 1)) + random.normal(0, 1, (n, images))
        right.append(random.random((n, images)) < 1 / (1 + np.exp(-logits)))
    return np.asarray(100.0 * (right[0].astype(np.float64) - right[1]))


def over_images(n: int, images: int, differ: float, count: int) -> dict[str, float]:
    """Of equally good arms, how often one is said to be better, by the interval over seeds alone
    and by that over seeds and images, and how often each interval misses the truth."""
    random = np.random.default_rng([n, images])
    tables = [answers(random, n, images, differ) for _ in range(count)]
    rows = np.array([table.mean(1) for table in tables])
    p = p_values(rows, 0.0, "two-sided")
    found = {}
    for name, (low, high) in {
        "seeds": intervals(rows),
        "seeds and images": tuple(np.array([crossed_interval(table) for table in tables]).T),
    }.items():
        said = decided((low, high), p, smallest=0.0, direction="two-sided")
        found[f"{name}: supported"] = float((said == "supported").mean())
        found[f"{name}: missed"] = float(((low > 0) | (high < 0)).mean())
    return found
