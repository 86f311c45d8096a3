"""How large a step is for the direction of a layer's weights.

    effective = lr/‖w‖²,   relative_step = lr·‖g‖/‖w‖

for each trained weight layer, g the gradient of one fixed batch. A layer before a normalization is
scale-free: only the direction of its weights matters, and the first is the rate at which that
direction learns (van Laarhoven 2017, https://arxiv.org/abs/1706.05350, section 2; Hoffer et al.
2018, https://arxiv.org/abs/1803.01814). `lr` is the configured rate of the next step: momentum and
Adam's scaling come on top of it.
"""

from __future__ import annotations

from torch import nn

from bnbench.events import Reading
from bnbench.probes import readings
from bnbench.probes.stand_in import AsInTraining, norm, ratio, stand_in, trained_layers
from bnbench.probes.statistics import Batch


def read(model: nn.Module, how: AsInTraining, batch: Batch, lr: float, step: int) -> list[Reading]:
    """`effective` and `relative_step` of each trained weight layer."""
    with stand_in(model, how, step) as copied:
        weights = copied.weights()
        _, gradient = copied.gradient(*batch)
    found: dict[str, dict[str, float]] = {}
    for layer, weight in trained_layers(model).items():
        size = norm({weight: weights[weight]})
        found[layer] = {
            "effective": ratio(lr, size**2),
            "relative_step": ratio(lr * norm({weight: gradient[weight]}), size),
        }
    return readings("effective_lr", found)
