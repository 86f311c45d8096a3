"""What is legal and can train, but should be known to be risky."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from bnbench.config import schema
from bnbench.config.faults import named_setups
from bnbench.config.feasible import planned_steps
from bnbench.wording import counted


@dataclass(slots=True)
class Risks:
    """Legal choices worth a warning, with the setups that make them."""

    decayed: dict[str, None] = field(default_factory=dict)
    alone: dict[str, None] = field(default_factory=dict)
    unsettled: dict[str, None] = field(default_factory=dict)
    never_moved: dict[str, None] = field(default_factory=dict)
    worst: tuple[float, int, float] = (0.0, 0, 0.0)  # share, steps, momentum
    earliest: tuple[float, float] = (math.inf, math.inf)  # freeze_after, steps

    def add(self, config: schema.RunConfig) -> None:
        """Looks at one feasible run."""
        norm = config.norm
        if isinstance(norm, schema.NoNorm):
            return
        if config.optim.decay_norm_and_bias and config.optim.weight_decay > 0:
            self.decayed[config.setup] = None
        if not isinstance(norm, schema.BatchStatistics):
            return
        if (getattr(norm, "batch_size", None) or config.data.batch_size) == 1:
            self.alone[config.setup] = None
        steps = planned_steps(config)
        if isinstance(norm, schema.FrozenNormConfig):
            updates = round(norm.freeze_after * steps)
            if updates == 0:
                self.never_moved[config.setup] = None
                self.earliest = min(self.earliest, (norm.freeze_after, steps))
                return
            steps = updates
        if norm.momentum is not None and steps * norm.momentum < 1:
            self.unsettled[config.setup] = None
            share = (1 - norm.momentum) ** steps
            self.worst = max(self.worst, (share, steps, norm.momentum))

    def warnings(self) -> tuple[str, ...]:
        """One sentence each."""
        result = []
        if self.unsettled:
            share, steps, momentum = self.worst
            result.append(
                f"norm.momentum {momentum:g}: after {counted(steps, 'optimizer step')} the running "
                f"statistics are still {100 * share:.3g} % their initial value "
                f"({named_setups(self.unsettled)})"
            )
        if self.never_moved:
            after, total = self.earliest
            result.append(
                f"norm.freeze_after {after:g}: of {counted(int(total), 'optimizer step')} none "
                "comes before the freeze: the running statistics stay at mean 0 and variance 1 "
                f"({named_setups(self.never_moved)})"
            )
        if self.decayed:
            result.append(
                "optim.decay_norm_and_bias: weight decay pulls γ and β towards zero too "
                f"({named_setups(self.decayed)})"
            )
        if self.alone:
            result.append(
                "batch statistics over 1 image: batch norm trains as instance norm "
                f"({named_setups(self.alone)})"
            )
        return tuple(result)
