"""What counts as a step of a training loop."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.optim import Optimizer

from bnbench.watching.stack import in_optimizer

BY_HAND = 2
"""Changes of weights without an optimizer after which they are taken as steps. The first one may be
the climb of SAM, whose step is an optimizer's."""


class Steps:
    """Steps of a network's optimizers that follow passes; two that step together make one. Where
    the weights change and no torch optimizer has made a step, each change is one.

    `by_hand`: whether changes are counted. `weight`: the name of the parameter that is looked at.
    """

    def __init__(self, network: nn.Module) -> None:
        self.by_hand, self.weight = False, ""
        self._network = network
        self._known: WeakKeyDictionary[Optimizer, tuple[int, bool]] = WeakKeyDictionary()
        self._leader: Optimizer | None = None
        self._waiting: set[Optimizer] = set()
        self._changes, self._version, self._by_version = 0, 0, False
        self._last: torch.Tensor | None = None
        for name, each in network.named_parameters():
            if each.requires_grad:
                self.weight, self._last = name, each
        self._kept: torch.Tensor | None = None

    def is_ours(self, optimizer: Optimizer) -> bool:
        """Whether it has parameters of this network."""
        groups = len(optimizer.param_groups)
        known = self._known.get(optimizer)
        if known is None or known[0] != groups:
            ours = {id(each) for each in self._network.parameters()}
            theirs = (id(each) for group in optimizer.param_groups for each in group["params"])
            self._known[optimizer] = known = groups, not ours.isdisjoint(theirs)
        return known[1]

    def made_by(self, optimizer: Optimizer, led: bool) -> int:
        """How many steps more there are after a step of an optimizer of ours. `led`: passes came
        before."""
        if optimizer is self._leader:
            self._waiting.clear()
            return 1
        first, waited = self._leader is None, optimizer in self._waiting
        if not (first or waited or led):
            self._waiting.add(optimizer)
            return 0
        self._leader, self.by_hand, self._kept = optimizer, False, None
        self._waiting.clear()
        # Where no passes are seen, it was not known of the step before that it was one.
        return 2 if waited and not led else 1

    def made_by_hand(self, *, ended: bool = False) -> int:
        """The same when the network is called, or the loop has `ended`, by its weights. Waits for
        the device until one of both ways has counted a step."""
        if self._leader is not None or not self._changed() or in_optimizer():
            return 0
        self._changes += 1
        if self.by_hand:
            return 1
        if self._changes < BY_HAND and not ended:
            return 0
        self.by_hand = True
        return self._changes

    def _changed(self) -> bool:
        """Whether the weight is another than at the last call."""
        now, before = self._last, self._kept
        if now is None:
            return False
        moved, self._version = now._version != self._version, now._version
        if before is not None and (moved or self._by_version):
            self._by_version = True
            return moved
        self._kept = now.detach().clone()  # of changes to weight.data torch keeps no count
        return before is not None and not torch.equal(before, now)
