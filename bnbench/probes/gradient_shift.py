"""How much a layer's gradient changes when the layers before it have taken their step.

    G_i  = ∇_{W_i} L(W_1 … W_n at step t)
    G'_i = ∇_{W_i} L(W_1 … W_{i−1} at step t + 1, the others at step t), on the same batch

`shift` = ‖G − G'‖, `relative` = ‖G − G'‖/‖G‖, `cos` = the cosine between them, for each weight
layer but the first, which has none before it. The step is the optimizer's own, momentum included,
at the rate of the next step; what follows a weight layer (γ, β) moves with it. Both gradients are
of one fixed batch with the same noise, without dropout. Where a schedule takes the rate to 0, so
does the shift, and the cosine to 1, whatever the network: compare at a constant rate.

Source: Santurkar et al. 2018, https://arxiv.org/abs/1805.11604, definition 2.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnbench.events import Reading
from bnbench.probes import readings
from bnbench.probes.stand_in import AsInTraining, stand_in, trained_layers
from bnbench.probes.statistics import Batch


def read(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    how: AsInTraining,
    batch: Batch,
    lr: float,
    step: int,
) -> list[Reading]:
    """The three measures of each trained weight layer but the first. `lr`: of the next step."""
    found: dict[str, dict[str, float]] = {}
    layers = {weight: layer for layer, weight in trained_layers(model).items()}
    with stand_in(model, how, step, optimizer) as copied:
        before = copied.weights()
        _, gradient = copied.gradient(*batch)
        after = copied.weights_after_step(gradient, lr)
        copied.place(before)
        for number, group in enumerate(_groups(copied.model)):
            weight = group[0]
            if number > 0 and weight in layers:
                _, shifted = copied.gradient(*batch, only=weight)
                found[layers[weight]] = _compared(gradient[weight], shifted[weight])
            copied.place({name: after[name] for name in group})
    return readings("gradient_shift", found)


def _groups(model: nn.Module) -> list[list[str]]:
    """Each weight layer's trained parameters, with all that come before the next one's."""
    starts = set(trained_layers(model).values())
    groups: list[list[str]] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name in starts or not groups:
            groups.append([])
        groups[-1].append(name)
    return groups


def _compared(gradient: Tensor, shifted: Tensor) -> dict[str, float]:
    g, s = gradient.double().flatten(), shifted.double().flatten()
    distance, length = torch.linalg.vector_norm(g - s), torch.linalg.vector_norm(g)
    cosine = g @ s / (length * torch.linalg.vector_norm(s))
    found = {"shift": distance, "relative": distance / length, "cos": cosine}
    return {name: value.item() for name, value in found.items()}
