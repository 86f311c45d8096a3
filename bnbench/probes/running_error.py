"""Running error: how far each layer's running statistics are from the population's.

    mean = mean_c |μ_run − μ_pop| / √(σ²_pop + ε)
    variance = mean_c |ln (σ²_run + ε)/(σ²_pop + ε)|

over the channels c of a layer. μ_pop, σ²_pop: pooled over images in batches as in training, with
the present weights (Wu & Johnson 2021, https://arxiv.org/abs/2105.07576, section 3); σ²_pop is
biased, σ²_run, as torch keeps it, an average of unbiased ones. ε is the layer's: what it divides
by is what is compared. "network": the mean over the layers, 0 without any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from bnbench.events import Reading
from bnbench.probes import NETWORK, readings
from bnbench.probes.pooled import PooledStatistics
from bnbench.probes.statistics import Discrepancy, Sample, batch_norm_layers, evaluating


def read(model: nn.Module, how: Discrepancy, population: Sample) -> list[Reading]:
    """`mean` and `variance` of each layer with batch statistics and of the network."""
    layers = batch_norm_layers(model)
    pools: dict[str, PooledStatistics] = {}
    if layers:
        with evaluating(model):
            *_, pools = how.under_batch(model, population)
    return errors_of(layers, pools)


def errors_of(
    layers: Mapping[str, nn.Module], pools: Mapping[str, PooledStatistics]
) -> list[Reading]:
    """The same, of these layers, where the population's statistics are known."""
    found = {name: statistics_error(layer, pools[name]) for name, layer in layers.items()}
    overall = {
        quantity: sum(errors[quantity] for errors in found.values()) / max(len(found), 1)
        for quantity in ("mean", "variance")
    }
    return readings("running_error", found | {NETWORK: overall})


def statistics_error(layer: nn.Module, pool: PooledStatistics) -> dict[str, float]:
    """`mean` and `variance` of one layer against the population's statistics."""
    mean, variance = (
        cast(Tensor, each).to("cpu", torch.float64).flatten()
        for each in (layer.running_mean, layer.running_var)
    )
    eps = cast(float, getattr(layer, "eps", 0.0))
    width = pool.variance + eps
    return {
        "mean": ((mean - pool.mean).abs() / width.sqrt()).mean().item(),
        "variance": ((variance + eps) / width).log().abs().mean().item(),
    }
