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
    `relative_rise` = max_ρ L / L(w), at most 1 where the loss does not rise. The range compares
    levels: a network that has learned has the lower one, however its loss rises;
    `relative_change_min`, `relative_change_max`: the range of ‖d‖/‖(‖w_l‖·g_l)_l‖;
    `relative_beta_w2` = max_ρ ‖d‖/(ρ·√layers): β·‖w‖², with the layers weighted alike.
These do not change when a layer before a normalization is scaled. `loss`, `gradient`: L(w), ‖g‖.
Where a number is NaN, so are the range and the maximum that it enters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from torch import nn

from bnbench.events import Reading
from bnbench.probes import NETWORK, readings
from bnbench.probes.stand_in import AsInTraining, StandIn, Weights, minus, norm, ratio, stand_in
from bnbench.probes.statistics import Batch


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
        found["relative_rise"] = ratio(found["relative_loss_max"], loss)
    return readings("landscape", {NETWORK: found})


def _raw(
    copied: StandIn, batch: Batch, gradient: Weights, steps: Sequence[float]
) -> dict[str, float]:
    weights, length = copied.weights(), norm(gradient)
    losses, changes = _along(copied, batch, gradient, steps, weights, lambda step, _: step, norm)
    betas = [ratio(each, step * length) for each, step in zip(changes, steps, strict=True)]
    beta = float(np.max(betas))
    found = {"beta": beta, "beta_w2": beta * norm(weights) ** 2}
    return _ranges("", losses, changes) | found


def _relative(
    copied: StandIn, batch: Batch, gradient: Weights, steps: Sequence[float]
) -> dict[str, float]:
    weights = {name: each for name, each in copied.weights().items() if each.ndim > 1}
    sizes = {name: norm({name: each}) for name, each in weights.items()}
    lengths = {name: norm({name: gradient[name]}) for name in weights}
    # A layer without a gradient, or without weights, has no direction to go.
    moving = [name for name in weights if lengths[name] and sizes[name]]

    def factor(step: float, name: str) -> float:
        return step * sizes[name] / lengths[name]

    def weighted(tensors: Weights) -> float:
        return norm({name: tensors[name].double() * sizes[name] for name in moving})

    losses, changes = _along(copied, batch, gradient, steps, moving, factor, weighted)
    layers = len(moving) ** 0.5
    betas = [ratio(each, step * layers) for each, step in zip(changes, steps, strict=True)]
    length = weighted(gradient)
    found = _ranges("relative_", losses, [ratio(each, length) for each in changes])
    return found | {"relative_beta_w2": float(np.max(betas))}


def _along(
    copied: StandIn,
    batch: Batch,
    gradient: Weights,
    steps: Sequence[float],
    moving: Collection[str],
    factor: Callable[[float, str], float],
    size: Callable[[Weights], float],
) -> tuple[list[float], list[float]]:
    """The loss at w − factor·g for each step, and the size of ∇ − g there."""
    weights = copied.weights()
    losses, changes = [], []
    for step in steps:
        copied.place({name: weights[name] - factor(step, name) * gradient[name] for name in moving})
        loss, there = copied.gradient(*batch)
        losses.append(loss)
        changes.append(size(minus(there, gradient)))
    copied.place(weights)
    return losses, changes


def _ranges(prefix: str, losses: list[float], changes: list[float]) -> dict[str, float]:
    return {
        f"{prefix}{name}_{end}": float(extreme(values))
        for name, values in (("loss", losses), ("change", changes))
        for end, extreme in (("min", np.min), ("max", np.max))
    }
