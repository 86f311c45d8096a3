"""Faults to plant in a network that has learned, drawn by a seed."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.diagnosis.patients import norms, once
from tests.diagnosis.truth import resized
from tests.diagnosis.zoo import Case, healthy


class Moves(nn.BatchNorm2d):
    """Takes in every batch, in eval mode, too."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if not self.training:
            assert self.running_mean is not None
            self.running_mean.lerp_(x.mean((0, 2, 3)), 0.05)
        return y


class Branch(nn.Module):
    """Scales its inputs in eval mode only."""

    def __init__(self, body: nn.Module, factor: float) -> None:
        super().__init__()
        self.body, self.factor = body, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x if self.training else self.factor * x)  # type: ignore[no-any-return]


def kept(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """The running statistics of every layer that has some."""
    found = (module._buffers for module in model.modules())
    pairs = ((each.get("running_mean"), each.get("running_var")) for each in found)
    return [(mean, var) for mean, var in pairs if mean is not None and var is not None]


@torch.no_grad()
def passed(model: nn.Module, inputs: list[Tensor], momentum: float | None = 0.1) -> None:
    """Passes in training mode, in which torch's layers have this momentum from then on."""
    model.train()
    for layer in norms(model).values():
        layer.momentum = momentum
    for x in inputs:
        model(x)


def stale(case: Case, chance: random.Random) -> None:
    """Statistics of a new layer, and few updates at a small momentum."""
    for mean, variance in kept(case.model):
        mean.zero_(), variance.fill_(1.0)
    count = chance.choice([0, 3, 10, 40])
    at = [k % len(case.train) for k in range(count)]
    passed(case.model, [case.train[k][0] for k in at], chance.choice([0.001, 0.01, 0.1]))


def last_batch(case: Case, chance: random.Random) -> None:
    passed(case.model, [case.train[0][0][: chance.choice([4, 16, 64])]], chance.choice([0.99, 1.0]))


def average_of_all(case: Case, chance: random.Random) -> None:
    """Momentum None, from before the weights moved."""
    early = copy.deepcopy(case.model)
    with torch.no_grad():
        for each in early.parameters():
            each.add_(torch.randn_like(each) * each.std(correction=0) * chance.choice([0.3, 1.0]))
    passed(early, [x for x, _ in case.train], None)
    for mine, its in zip(kept(case.model), kept(early), strict=True):
        mine[0].copy_(its[0]), mine[1].copy_(its[1])
    passed(case.model, [], None)


def never_again(case: Case, chance: random.Random) -> None:
    """Momentum 0, and weights that moved."""
    average_of_all(case, chance)
    passed(case.model, [], 0.0)


def one_layer(case: Case, chance: random.Random) -> None:
    found = kept(case.model)
    if found:
        mean, variance = chance.choice(found)
        variance.mul_(chance.choice([0.02, 0.2, 5.0, 50.0]))
        mean.add_(chance.choice([0.0, 1.0]) * variance.sqrt())


def outlier(case: Case, chance: random.Random) -> None:
    x = case.train[0][0]
    after = [case.train[k % len(case.train)][0] for k in range(chance.choice([5, 20]))]
    passed(case.model, [chance.choice([30.0, 1000.0]) * x, *after])


def moves(case: Case, _: random.Random) -> None:
    for layer in norms(case.model).values():
        if type(layer) is nn.BatchNorm2d:
            layer.__class__ = Moves


def tiny_batches(case: Case, chance: random.Random) -> None:
    """The loader is not as it was in training."""
    case.train[:] = resized(case.train, chance.choice([1, 2, 4]))


def domains(case: Case, chance: random.Random) -> None:
    """Batches by turns from two sources, on which it is trained further."""
    shift = chance.choice([1.0, 3.0])
    case.train[:] = [
        (x * (1 - k % 2) + (k % 2) * (shift - x), y) for k, (x, y) in enumerate(case.train)
    ]
    case.model.train()
    optimizer = torch.optim.SGD(case.model.parameters(), 0.02, 0.9)
    for k in range(60):
        x, y = case.train[k % len(case.train)]
        optimizer.zero_grad()
        F.cross_entropy(case.model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def another_scale(case: Case, chance: random.Random) -> None:
    """Of the evaluation images."""
    factor = chance.choice([0.2, 3.0])
    case.evaluation[:] = [(factor * x, y) for x, y in case.evaluation]


def branch(case: Case, chance: random.Random) -> Case:
    return replace(case, model=Branch(case.model, chance.choice([0.3, 3.0])))


def dropout_before(case: Case, chance: random.Random) -> Case:
    layers = [*cast(nn.Sequential, case.model)]
    layers.insert(1, nn.Dropout(chance.choice([0.3, 0.7])))
    model = nn.Sequential(*layers)
    passed(model, [x for x, _ in case.train])
    return replace(case, model=model)


def tracking_instances(case: Case, _: random.Random) -> None:
    for module in case.model.modules():
        if isinstance(module, nn.InstanceNorm2d):
            module.track_running_stats = True
            module.register_buffer("running_mean", torch.zeros(module.num_features))
            module.register_buffer("running_var", torch.ones(module.num_features))
            module.register_buffer("num_batches_tracked", torch.tensor(0))
    passed(case.model, [x for x, _ in case.train])


FAULTS: list[Callable[[Case, random.Random], Case | None]] = [
    stale, last_batch, average_of_all, never_again, one_layer, outlier, moves, tiny_batches,
    domains, another_scale, branch, dropout_before, tracking_instances,
]  # fmt: skip


@once
def patient(seed: int, *, images: int) -> Case:
    """A network that has learned a little, with up to two faults."""
    case = healthy(seed, steps=60, sizes=(32, 64), images=images)
    chance = random.Random(~seed)
    says = []
    for plant in chance.sample(FAULTS, chance.choice([0, 1, 1, 1, 2])):
        case = plant(case, chance) or case
        says.append(plant.__name__)
    return replace(case, says=f"{case.says}: {', '.join(says) or 'no fault'}")
