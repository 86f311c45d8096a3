"""Seeds that are added in looks: how often verdicts are wrong or right then, with how many seeds.

The rule is stated once more, for many files at a time. Beside it stand designs that were not taken:
`exact`, in which the looks before are counted by their joint distribution under tossed signs (Mehta
and others 1994, Exact permutational group sequential tests, Biometrics 50), and `any_time`, a test
by betting that may be looked at after every seed (Ramdas and others 2023,
https://doi.org/10.1214/23-STS894).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bnbench.stats.effect import Direction
from bnbench.stats.looks import planned, shares
from tests.stats.honesty import LARGE, same_arms, unit
from tests.stats.many import adjusted, decided, intervals, p_values
from tests.stats.samples import Array, Draw

FAMILY = 8
MOST = 24
BETS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Stakes, in units of the differences' root mean square: their mean is a mixture."""


class Said(NamedTuple):
    """Of each claim: its outcome, and the number of seeds at which that was found."""

    outcome: npt.NDArray[np.str_]
    seeds: npt.NDArray[np.int64]


def in_looks(
    rows: Array | Callable[[int], Array],
    smallest: float,
    direction: Direction = "up",
    *,
    claims: int = 1,
    numbers: Sequence[int] = (),
    spent: Sequence[float] = (),
) -> Said:
    """Files of so many claims, (k, most) differences, or those that a look at n seeds reads, (k,
    n): undecided ones get further seeds. `numbers`, `spent`: looks and their shares, those of the
    package unless given."""
    numbers = numbers or planned([direction] * claims, MOST)
    spent = spent or shares(len(numbers))
    at = rows if callable(rows) else partial(_first, rows)
    count = len(at(numbers[0]))
    said = np.full(count, "inconclusive", dtype="<U12")
    seeds = np.full(count, numbers[-1])
    kept = dict[str, Array]()
    for n, share in zip(numbers, spent, strict=True):
        undecided = said == "inconclusive"
        if not undecided.any():
            break
        found = p_values(at(n)[undecided], smallest, direction)
        for name, each in found.items():
            kept.setdefault(name, np.ones(count))[undecided] = np.minimum(1, each / share)
        p = {name: adjusted(each.reshape(-1, claims)).reshape(-1) for name, each in kept.items()}
        ends = intervals(at(n), 0.05 * share)
        now = decided(ends, p, smallest=smallest, direction=direction)
        new = undecided & (now != "inconclusive")
        said[new], seeds[new] = now[new], n
    return Said(said, seeds)


def _first(rows: Array, n: int) -> Array:
    return np.asarray(rows[:, :n])


def at_once(rows: Array, smallest: float, n: int, *, claims: int = 1) -> Said:
    """The same with a fixed number of seeds."""
    return in_looks(rows, smallest, claims=claims, numbers=[n], spent=[1.0])


def exact(rows: Array, *, claims: int = 1) -> Said:
    """Supported beyond 0 by p-values alone. At a look the smallest p/share of the looks until then
    is compared with what signs that are tossed give, and later looks keep their shares."""
    numbers = planned(["up"] * claims, rows.shape[1])
    spent = shares(len(numbers))
    tossed = np.random.default_rng(0).choice([1.0, -1.0], (2**12, rows.shape[1]))
    tossed[0] = 1.0
    found = np.ones((len(numbers), len(rows)))
    for start in range(0, len(rows), 500):
        least = np.full((len(rows[start : start + 500]), len(tossed)), np.inf)
        for at, (n, share) in enumerate(zip(numbers, spent, strict=True)):
            sums = rows[start : start + 500, :n] @ tossed[:, :n].T
            p = (sums.argsort(1)[:, ::-1].argsort(1) + 1) / len(tossed)
            least = np.minimum(least, np.maximum(p, 2.0**-n) / share)
            before = (least <= least[:, :1] * (1 + 1e-9)).mean(1)
            found[at, start : start + 500] = before + least[:, 0] * sum(spent[at + 1 :])
    return _settled(found, numbers, claims)


def any_time(rows: Array, *, claims: int = 1) -> Said:
    """Supported beyond 0 by 1/wealth after every seed: each bet λ multiplies it by
    exp(λd)/cosh(λd), of mean 1 under either sign of d."""
    most = rows.shape[1]
    size = np.sqrt(np.cumsum(rows**2, 1) / np.arange(1, most + 1))  # of magnitudes alone
    bets = np.stack([bet * rows / size for bet in BETS])
    wealth = np.exp(np.cumsum(bets - np.log(np.cosh(bets)), 2)).mean(0)
    numbers = range(6, most + 1)
    return _settled(1 / np.maximum.accumulate(wealth, 1)[:, 5:].T, numbers, claims)


def _settled(p: Array, numbers: Sequence[int], claims: int) -> Said:
    """By p-values (looks, k) that hold over all looks."""
    said = np.full(p.shape[1], "inconclusive", dtype="<U12")
    seeds = np.full(p.shape[1], numbers[-1])
    for n, each in zip(numbers, np.minimum.accumulate(p), strict=True):
        low = adjusted(np.minimum(1, each).reshape(-1, claims)).reshape(-1) < 0.05
        new = low & (said == "inconclusive")
        said[new], seeds[new] = "supported", n
    return Said(said, seeds)


def wrong(draw: Draw, count: int, *, claims: int) -> dict[str, float]:
    """Of files of so many claims, in how many any look says of any claim what is not so: A against
    A, and an effect that is exactly the smallest."""
    rows, edge = same_arms(draw, MOST, count), LARGE * unit(draw)

    def share(outcome: str, shift: float, smallest: float, direction: Direction = "up") -> float:
        found = in_looks(rows + shift, smallest, direction, claims=claims).outcome == outcome
        return float(found.reshape(-1, claims).any(axis=1).mean())

    return {
        "supported": share("supported", 0.0, 0.0),
        "either direction": share("supported", 0.0, 0.0, "two-sided"),
        "negligible": share("negligible", edge, edge),
    }
