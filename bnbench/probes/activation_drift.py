"""How the distributions of activations move from one reading to the next, and in one step.

    mean_drift = mean_c |μ_c(t) − μ_c(t−k)| / σ_c(t−k),   std_drift = mean_c |ln σ_c(t)/σ_c(t−k)|

over the channels c of the raw output of each weight layer but the last, and of each normalization
layer; t − k is the reading before. μ, σ: over fixed images in batches as in training, with noise
where the network has some.

After a BatchNorm μ = β and σ = |γ|, whatever comes in: its drift is |Δβ|/|γ|, small by
construction. Ioffe & Szegedy draw that; how a layer's input moves is seen in the raw outputs.

What accumulates grows with k, and fresh noise at each step does not: which of two
networks drifts more may depend on how far apart readings are. `step_mean_drift`, `step_std_drift`
are the same from t to t + 1: the optimizer's own step along the gradient of the first of these
batches, at the rate of the next step, and the noise of step t + 1.

Where an activation follows, also `p15`, `p50`, `p85`: percentiles of its input, of the middle
channel, in its own unit. Channels are exchangeable when they are initialized, so any fixed one is
typical; it is the same in every setup.

Source: Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167, section 4.1 and figure 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from bnbench.events import Reading
from bnbench.probes import readings
from bnbench.probes.pooled import PooledStatistics
from bnbench.probes.stand_in import AsInTraining, StandIn, stand_in, weight_layers
from bnbench.probes.statistics import Batch, Sample

ACTIVATIONS = (
    *(nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid),
    *(nn.ELU, nn.Hardswish, nn.Hardtanh, nn.Mish, nn.PReLU, nn.Softplus),  # of custom networks
)
PERCENTILES = (15, 50, 85)


def read(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    how: AsInTraining,
    images: Sample,
    batch_size: int,
    lr: float,
    memory: dict[str, Tensor],
    step: int,
) -> list[Reading]:
    """Drifts and percentiles of each layer; the first reading has no drift since the one before.

    `lr`: of the next step. `memory`: means and deviations of the reading before, by layer, (2, C).
    They are replaced by those of this reading.
    """
    with stand_in(model, how, step, optimizer) as copied:
        watched = [*list(weight_layers(copied.model))[:-1], *how.normalization]
        pools, units = _distributions(copied, watched, images.batches(batch_size))
        _, gradient = copied.gradient(*next(iter(images.batches(batch_size))))
        copied.weights_after_step(gradient, lr)
        copied.step += 1
        later, _ = _distributions(copied, watched, images.batches(batch_size))
    found: dict[str, dict[str, float]] = {}
    for name, pool in pools.items():
        now = _moments(pool)
        before = memory.get(name)
        found[name] = _drift("step_", now, _moments(later[name]))
        if before is not None and before.shape == now.shape:
            found[name] |= _drift("", before, now)
        if name in units:
            values = np.percentile(units[name].numpy(), PERCENTILES)
            found[name] |= {f"p{p}": float(v) for p, v in zip(PERCENTILES, values, strict=True)}
        memory[name] = now
    return readings("activation_drift", found)


def _moments(pool: PooledStatistics) -> Tensor:
    return torch.stack((pool.mean, pool.variance.sqrt()))


def _drift(prefix: str, before: Tensor, now: Tensor) -> dict[str, float]:
    (mean_before, std_before), (mean, std) = before, now
    return {
        f"{prefix}mean_drift": ((mean - mean_before).abs() / std_before).mean().item(),
        f"{prefix}std_drift": (std / std_before).log().abs().mean().item(),
    }


def _distributions(
    copied: StandIn, watched: Iterable[str], batches: Iterable[Batch]
) -> tuple[dict[str, PooledStatistics], dict[str, Tensor]]:
    """Statistics of each watched layer's output, and all values of the middle channel of those
    outputs that are the input of an activation."""
    pools: dict[str, PooledStatistics] = {}
    middles: dict[str, list[Tensor]] = {}
    feeding: set[str] = set()
    outputs: dict[int, tuple[Tensor, str]] = {}  # of the current pass, by identity

    def take(name: str, _: nn.Module, __: object, output: Tensor) -> None:
        outputs[id(output)] = output, name
        values = output.detach().movedim(1, -1).reshape(1, -1, output.shape[1]).float()
        mean = values.mean(1)  # two passes: `var_mean` is slow along rows
        variance = (values - mean.unsqueeze(1)).square().mean(1)
        pools.setdefault(name, PooledStatistics()).add(mean, variance, values.shape[1])
        middles.setdefault(name, []).append(values[0, :, values.shape[2] // 2].cpu())

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs and id(inputs[0]) in outputs:
            feeding.add(outputs[id(inputs[0])][1])

    with ExitStack() as hooks, torch.no_grad():
        for name in watched:
            module = copied.model.get_submodule(name)
            hooks.enter_context(module.register_forward_hook(partial(take, name)))
        for module in copied.model.modules():
            if isinstance(module, ACTIVATIONS):
                hooks.enter_context(module.register_forward_pre_hook(note))
        for images, _ in batches:
            outputs.clear()
            copied.output(images)
    if not feeding:  # activations inside of norms, or functions: their input is the raw output
        feeding = pools.keys() & weight_layers(copied.model).keys()
    return pools, {name: torch.cat(middles[name]) for name in pools if name in feeding}
