"""How values are distributed: parameters and running statistics of each normalization layer
(`weight` is γ, `bias` is β), and the input of each activation on one fixed batch, as in training.

Bins are of equal width between the smallest and the largest value; values that are not finite are
left out.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from bnbench.events import Histogram
from bnbench.probes.activation_drift import ACTIVATIONS
from bnbench.probes.stand_in import AsInTraining, stand_in
from bnbench.probes.statistics import Batch

BINS = 30
"""As many as TensorBoard draws."""


def read(model: nn.Module, how: AsInTraining, batch: Batch, step: int) -> list[Histogram]:
    """Of each normalization layer's floating-point state, and of each activation's input."""
    found: dict[tuple[str, str], Tensor] = {}
    for layer in how.normalization:
        for name, values in model.get_submodule(layer).state_dict().items():
            if values.is_floating_point() and values.numel() > 1:
                found[layer, name] = values
    with stand_in(model, how, step) as copied:

        def take(layer: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs:
                found[layer, "input"] = inputs[0].detach()

        for layer, module in copied.model.named_modules():
            if isinstance(module, ACTIVATIONS):
                module.register_forward_pre_hook(partial(take, layer))
        with torch.no_grad():
            copied.output(batch[0])
    made = (histogram(layer, name, values) for (layer, name), values in found.items())
    return [each for each in made if each is not None]


def histogram(layer: str, name: str, values: Tensor) -> Histogram | None:
    """The distribution of all elements of a tensor; None where none of them is finite."""
    flat = values.detach().double().cpu().numpy().ravel()
    flat = flat[np.isfinite(flat)]
    if not len(flat):
        return None
    counts, edges = np.histogram(flat, bins=BINS)
    return Histogram(
        probe="histograms",
        layer=layer,
        name=name,
        low=float(edges[0]),
        high=float(edges[-1]),
        counts=tuple(counts.tolist()),
    )
