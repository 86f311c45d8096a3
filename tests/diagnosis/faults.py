"""Faults that loaders or running statistics show, each planted in a network that has learned."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import bnbench
from bnbench.diagnosis import Diagnosis
from tests.diagnosis.patients import (
    BATCH,
    IMAGES,
    Pairs,
    eval_loader,
    loader,
    network,
    norms,
    pictures,
    recalibrated,
    steps,
    trained,
)


def diagnosed(
    model: nn.Module, train: Pairs | None = None, evaluation: Pairs | None = None
) -> Diagnosis:
    return bnbench.diagnose(model, train or loader(), evaluation or eval_loader(), images=IMAGES)


def non_finite() -> Diagnosis:
    model = trained()
    with torch.no_grad():
        model.get_parameter("3.weight")[2, 1, 0, 0] = float("nan")
    return diagnosed(model)


def no_running_statistics() -> Diagnosis:
    model = network(tracks=False)
    model.load_state_dict(trained().state_dict(), strict=False)
    return diagnosed(model)


def never_updated() -> Diagnosis:
    model = network()
    model.load_state_dict(dict(trained().named_parameters()), strict=False)
    return diagnosed(model)


def momentum_is_0() -> Diagnosis:
    return diagnosed(steps(network(momentum=0.0), 40))


def frozen() -> Diagnosis:
    early, model = steps(network(), 15), trained()
    for name, kept in norms(early).items():
        if name == "4":
            norms(model)[name].load_state_dict(
                {**norms(model)[name].state_dict(), **dict(kept.named_buffers())}
            )
    return diagnosed(model)


def keras_momentum() -> Diagnosis:
    """As after a last step: the running statistics are the last batch's."""
    model = trained().train()
    x, *_ = pictures()
    for each in norms(model).values():
        each.momentum = 0.99
    with torch.no_grad():
        model(x[:16])
    return diagnosed(model)


def too_few_steps() -> Diagnosis:
    return diagnosed(steps(network(), 10))


def too_slow() -> Diagnosis:
    return diagnosed(steps(network(momentum=0.001), 100))


def class_by_class() -> Diagnosis:
    """Each training batch is of one class, which the network reads off the other images."""
    x, y, *_ = pictures()

    def one_class(k: int) -> tuple[Tensor, Tensor]:
        inside = (y == k * 7 % 10).nonzero().flatten()
        at = k * BATCH % (len(inside) - BATCH)
        chosen = inside[at : at + BATCH]
        return x[chosen], y[chosen]

    return diagnosed(steps(network(), 150, batch=one_class), loader(by_class=True))


def averaged_weights() -> Diagnosis:
    """Weights half-way between two moments of training, statistics of the first one."""
    model, later = trained(), steps(trained(), 60, lr=0.2)
    with torch.no_grad():
        for one, other in zip(model.parameters(), later.parameters(), strict=True):
            one.lerp_(other, 0.5)
    return diagnosed(model)


def pairs() -> Diagnosis:
    """Batches of two and (N, C) inputs: each feature becomes 1 or −1, whatever it was."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 64, bias=False),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    x, y, *_ = pictures()
    steps(model, 400, lr=0.01, batch=lambda k: (x[2 * k : 2 * k + 2], y[2 * k : 2 * k + 2]))
    return diagnosed(model, loader(2))


def another_scale() -> Diagnosis:
    return diagnosed(trained(), evaluation=eval_loader(lambda x: 2 * x + 1))


def dead_channels() -> Diagnosis:
    model = trained()
    with torch.no_grad():
        model.get_parameter("3.weight")[:4] = 0
    return diagnosed(recalibrated(model))


def tiny_weights() -> Diagnosis:
    model = trained()
    with torch.no_grad():
        model.get_parameter("3.weight").mul_(1e-3)
    return diagnosed(recalibrated(model))


PATIENTS: dict[Callable[[], Diagnosis], str] = {
    non_finite: "non-finite",
    no_running_statistics: "no-running-statistics",
    never_updated: "never-updated",
    momentum_is_0: "never-updated",
    frozen: "frozen",
    keras_momentum: "momentum-too-high",
    too_few_steps: "stale",
    too_slow: "stale",
    class_by_class: "non-iid-batches",
    averaged_weights: "mismatched",
    pairs: "batch-too-small",
    another_scale: "distribution-shift",
    dead_channels: "dead-channels",
    tiny_weights: "eps-dominates",
}
