"""What runs will cost, learned from finished ones."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

from bnbench.config import identity, schema
from bnbench.report.study import cell_key
from bnbench.runner.settings import Cost


def cell_of(config: schema.RunConfig) -> str:
    """A run's setup and axis values: seeds differ in their numbers, not in their work."""
    return cell_key(config.setup, identity.point(config))


@dataclass(slots=True)
class Costs:
    """Costs by cell."""

    _known: dict[str, Cost] = field(default_factory=dict)
    _seconds: float = 0.0
    _steps: int = 0

    def learn(self, cell: str, steps: int, cost: Cost) -> None:
        """A run of this cell and this many steps has cost this much. The most expensive seed
        counts: one that diverged early says little about the others."""
        known = self._known.get(cell, cost)
        self._known[cell] = Cost(
            seconds=max(cost.seconds, known.seconds), bytes=max(cost.bytes, known.bytes)
        )
        self._seconds += cost.seconds
        self._steps += steps

    def of(self, cell: str) -> Cost | None:
        """What a run of this cell costs, if one is known."""
        return self._known.get(cell)

    def guess(self, cell: str, steps: int) -> float | None:
        """Seconds of a run, else estimated from what a step costs in other cells; None: unknown."""
        known = self._known.get(cell)
        if known is not None:
            return known.seconds
        return self._seconds / self._steps * steps if self._steps else None


def makespan(seconds: Iterable[float], workers: int) -> float:
    """How long this many workers take, if each free one gets the longest run that is left.

    The rule of Graham 1969 (https://doi.org/10.1137/0117039), within 4/3 of the best order.
    """
    ends = [0.0] * workers
    for each in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)
