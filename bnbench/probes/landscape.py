"""How smooth the loss is along its gradient, raw and scale-free.

Raw: in w − η·g, with g = ∇L(w), for each η of a grid:
    `loss_min`, `loss_max`: the range of L(w − η·g);
    `change_min`, `change_max`: the range of ‖∇L(w − η·g) − g‖ (gradient predictiveness);
    `beta` = max_η ‖∇L(w − η·g) − g‖ / (η·‖g‖), and `beta_w2` = beta·‖w‖².
Source: Santurkar et al. 2018, https://arxiv.org/abs/1805.11604, section 3.1.

A layer before a normalization is scale-free: ten times its weights give the same function and a
tenth of its gradient, so that raw numbers compare scales. Hence the same at matched relative steps
ρ, each layer by itself: w_l − ρ·‖w_l‖·g_l/‖g_l‖ (Li et al. 2018, https://arxiv.org/abs/1712.09913,
section 4, layer by layer), weights only: γ, β and biases stay. With d_l = ‖w_l‖·(∇_l − g_l):
    `relative_loss_min`, `relative_loss_max`: the range of L;
    `relative_change_min`, `relative_change_max`: the range of ‖d‖/‖(‖w_l‖·g_l)_l‖;
    `relative_beta_w2` = max_ρ ‖d‖/(ρ·√layers): β·‖w‖², with the layers weighted alike.
These do not change when a layer before a normalization is scaled. `loss`, `gradient`: L(w), ‖g‖.
Where a number is NaN, so are the range and the maximum that it enters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from bnbench.events import Reading
from bnbench.probes import NETWORK, readings
from bnbench.probes.discrepancy import Batch
from bnbench.probes.stand_in import AsInTraining, StandIn, Weights, minus, norm, ratio, stand_in


def read(
    model: nn.Module,
    how: AsInTraining,
    batch: Batch,
    steps: Sequence[float],
    relative_steps: Sequence[float],
    step: int,
) -> list[Reading]:
    """The ranges and the smoothness of the network; η from `steps`, ρ from `relative_steps`."""
    with stand_in(model, how, step) as copied:
        loss, gradient = copied.gradient(*batch)
        found = {"loss": loss, "gradient": norm(gradient)}
        found |= _raw(copied, batch, gradient, steps)
        found |= _relative(copied, batch, gradient, relative_steps)
    return readings("landscape", {NETWORK: found})


def _raw(
    copied: StandIn, batch: Batch, gradient: Weights, steps: Sequence[float]
) -> dict[str, float]:
    weights = copied.weights()
    losses, changes, betas = [], [], []
    length = norm(gradient)
    for step in steps:
        copied.place({name: each - step * gradient[name] for name, each in weights.items()})
        loss, there = copied.gradient(*batch)
        change = norm(minus(there, gradient))
        losses.append(loss)
        changes.append(change)
        betas.append(ratio(change, step * length))
    copied.place(weights)
    beta = float(np.max(betas))
    return {
        "loss_min": float(np.min(losses)),
        "loss_max": float(np.max(losses)),
        "change_min": float(np.min(changes)),
        "change_max": float(np.max(changes)),
        "beta": beta,
        "beta_w2": beta * norm(weights) ** 2,
    }


def _relative(
    copied: StandIn, batch: Batch, gradient: Weights, steps: Sequence[float]
) -> dict[str, float]:
    weights = {name: each for name, each in copied.weights().items() if each.ndim > 1}
    sizes = {name: norm({name: each}) for name, each in weights.items()}
    lengths = {name: norm({name: gradient[name]}) for name in weights}
    # A layer without a gradient, or without weights, has no direction to go.
    moving = {name: each for name, each in weights.items() if lengths[name] and sizes[name]}

    def weighted(tensors: Weights) -> float:
        return norm({name: tensors[name].double() * sizes[name] for name in moving})

    losses, changes, betas = [], [], []
    length = weighted(gradient)
    for step in steps:
        copied.place(
            {
                name: each - step * sizes[name] / lengths[name] * gradient[name]
                for name, each in moving.items()
            }
        )
        loss, there = copied.gradient(*batch)
        change = weighted(minus(there, gradient))
        losses.append(loss)
        changes.append(ratio(change, length))
        betas.append(ratio(change, step * len(moving) ** 0.5))
    copied.place(weights)
    return {
        "relative_loss_min": float(np.min(losses)),
        "relative_loss_max": float(np.max(losses)),
        "relative_change_min": float(np.min(changes)),
        "relative_change_max": float(np.max(changes)),
        "relative_beta_w2": float(np.max(betas)),
    }
