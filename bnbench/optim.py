"""Parameter groups, optimizers, and the learning rate as a function of the step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import cache
from math import ceil, cos, pi, sqrt
from typing import Any, Literal

import torch
from torch import nn

LearningRate = Callable[[int], float]
"""The learning rate of step k, k = 0 … total − 1."""


def parameter_groups(
    model: nn.Module, *, weight_decay: float, decay_norm_and_bias: bool
) -> list[dict[str, object]]:
    """Two groups of the parameters that are trained: what decays, and what does not.

    γ, β and biases (every tensor of one axis) do not decay unless asked: decaying them changes
    what a normalization can express, not how large the weights before it grow.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        (decayed if parameter.ndim > 1 or decay_norm_and_bias else free).append(parameter)
    return [
        {"params": group, "weight_decay": decay}
        for group, decay in ((decayed, weight_decay), (free, 0.0))
        if group
    ]


def sgd(groups: Iterable[dict[str, object]], *, momentum: float) -> torch.optim.Optimizer:
    """SGD with heavy-ball momentum; its learning rate is set before every step."""
    kind = _uncompiled(torch.optim.SGD)
    return kind(groups, lr=0.0, momentum=momentum, fused=True)


def adamw(
    groups: Iterable[dict[str, object]], *, betas: tuple[float, float], eps: float
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay; its learning rate is set before every step."""
    kind = _uncompiled(torch.optim.AdamW)
    return kind(groups, lr=0.0, betas=betas, eps=eps, fused=True)


@cache
def _uncompiled(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """A torch optimizer without the wrappers for torch's compiler.

    Their first call imports the compiler, 2.5 s in every process, and nothing is compiled here. The
    methods inside the wrappers are torch's own, so the results keep their bits.
    """
    names = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), methods)


def scaled_lr(
    lr: float,
    *,
    rule: Literal["none", "sqrt", "linear"],
    batch_size: int,
    base_batch_size: int,
) -> float:
    """The peak rate for this batch size.

    linear: Goyal et al. 2017, https://arxiv.org/abs/1706.02677, section 2.1. sqrt: Krizhevsky
    2014, https://arxiv.org/abs/1404.5997, section 5.
    """
    ratio = batch_size / base_batch_size
    match rule:
        case "none":
            return lr
        case "sqrt":
            return lr * sqrt(ratio)
        case "linear":
            return lr * ratio


def warmup_steps(warmup: float, total_steps: int) -> int:
    """Steps of a warm-up that takes the fraction `warmup` of the budget."""
    return ceil(round(warmup * total_steps, 9))  # 0.07 · 100 is 7.000000000000001


def constant(peak: float, *, total_steps: int, warmup: float) -> LearningRate:
    """`peak` throughout, after a linear warm-up."""
    return _with_warmup(lambda _: peak, peak, warmup_steps(warmup, total_steps))


def cosine(peak: float, *, total_steps: int, warmup: float) -> LearningRate:
    """Half a cosine from `peak` towards 0 (Loshchilov & Hutter 2017,
    https://arxiv.org/abs/1608.03983, Eq. 5, without restarts), after a linear warm-up."""
    first = warmup_steps(warmup, total_steps)

    def after(step: int) -> float:
        return 0.5 * peak * (1.0 + cos(pi * (step - first) / (total_steps - first)))

    return _with_warmup(after, peak, first)


def stepwise(
    peak: float,
    *,
    total_steps: int,
    warmup: float,
    milestones: Iterable[float],
    decay: float,
) -> LearningRate:
    """`peak`, times `decay` at each milestone (fractions of the budget), after a warm-up."""
    drops = sorted(round(milestone * total_steps) for milestone in milestones)

    def after(step: int) -> float:
        return peak * decay ** sum(step >= drop for drop in drops)

    return _with_warmup(after, peak, warmup_steps(warmup, total_steps))


def _with_warmup(after: LearningRate, peak: float, first: int) -> LearningRate:
    """A straight line to `peak` over the `first` steps, then `after`."""
    return lambda step: peak * (step + 1) / first if step < first else after(step)
