"""Faults that show in other modes or other batches, each planted in a network that has learned, and
the same network without it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import bnbench
from bnbench.diagnosis import Diagnosis
from tests.diagnosis.patients import (
    BATCH,
    loader,
    network,
    norms,
    pictures,
    recalibrated,
    steps,
    trained,
)

SMALL = 512


def diagnosed(model: nn.Module, batches: object = None) -> Diagnosis:
    return bnbench.diagnose(model, batches or loader(count=SMALL), images=SMALL)  # type: ignore[arg-type]


class Branch(nn.Module):
    """Scales its inputs in eval mode, or in both."""

    def __init__(self, *, both: bool = False) -> None:
        super().__init__()
        self.body, self.both = network(), both

    def forward(self, x: Tensor) -> Tensor:
        if self.both or not self.training:
            x = (x - x.amin((1, 2, 3), keepdim=True)) / 3
        return self.body(x)  # type: ignore[no-any-return]


def branch(*, both: bool = False) -> Diagnosis:
    return diagnosed(steps(Branch(both=both), 60))


class Moves(nn.BatchNorm2d):
    """Takes in every batch, in eval mode, too."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if not self.training:
            assert self.running_mean is not None
            self.running_mean.lerp_(x.mean((0, 2, 3)), 0.01)
        return y


def moves() -> Diagnosis:
    model = trained()
    norms(model)["4"].__class__ = Moves
    return diagnosed(model)


def halves(apart: float) -> list[tuple[Tensor, Tensor]]:
    """Batches by turns from two sources, whose pictures differ in contrast and brightness."""
    x, y, *_ = pictures()
    found = []
    for k in range(16):
        part = slice(k * BATCH, k * BATCH + BATCH)
        found.append((x[part] * (1 - 1.4 * apart * (k % 2)) + 2 * apart * (k % 2), y[part]))
    return found


def domains(apart: float = 1.0) -> Diagnosis:
    batches = halves(apart)
    model = steps(network(), 200, batch=lambda k: batches[k % len(batches)])
    return diagnosed(model, batches)


def outlier(factor: float = 1000.0) -> Diagnosis:
    model = trained().train()
    x, *_ = pictures()
    with torch.no_grad():
        model(factor * x[:BATCH])
        for k in range(20):
            model(x[k * BATCH : k * BATCH + BATCH])
    return diagnosed(model)


def dropped(share: float = 0.7) -> Diagnosis:
    """Statistics were gathered with dropout on, as in training."""
    layers = list(trained().children())
    layers[3:3] = [nn.Dropout(share)]
    layers[7:7] = [nn.Dropout(share)]
    return diagnosed(recalibrated(nn.Sequential(*layers)))


def features(count: int) -> tuple[nn.Module, DataLoader[tuple[Tensor, ...]]]:
    """A network that has one value per channel and image; the loader's last batch."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10)
    )
    x, y, *_ = pictures()
    return steps(model, 60), DataLoader(TensorDataset(x[:count], y[:count]), batch_size=BATCH)


def last_of_one(count: int = SMALL + 1) -> Diagnosis:
    return diagnosed(*features(count))


def unexplained(factor: float = 300.0) -> Diagnosis:
    """One image in 256 is far brighter: it decides the population's variance, and not that of most
    batches."""
    x, y, *_ = pictures()
    x = x.clone()
    x[::256] *= factor

    def drawn(k: int) -> tuple[Tensor, Tensor]:
        at = k * BATCH % 8192
        return x[at : at + BATCH], y[at : at + BATCH]

    model = steps(network(), 200, batch=drawn)
    return diagnosed(model, DataLoader(TensorDataset(x[:1024], y[:1024]), batch_size=BATCH))


class Sequences(nn.Module):
    """(N, 28, T), rows of a picture one after the other."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv1d(28, 32, 3), nn.BatchNorm1d(32)
        self.out = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.conv(x)).relu().mean(2))  # type: ignore[no-any-return]


def padded(longest: int = 40) -> Diagnosis:
    """Each picture is followed by zeros, up to the longest of its batch."""
    x, y, *_ = pictures()
    batches = []
    for k in range(12):
        part = slice(k * BATCH, k * BATCH + BATCH)
        length = 28 + (longest - 28) * (k % 3 + 1) // 3
        # The last picture fills the batch: it is repeated.
        rows = nn.functional.pad(x[part, 0], (0, length - 28))
        rows[-1] = x[part, 0][-1].repeat(1, 2)[:, :length] + 3
        batches.append((rows, y[part]))
    return diagnosed(steps(Sequences(), 150, batch=lambda k: batches[k % 12]), batches)


def at_chance(*, seed: int = 0) -> Diagnosis:
    return diagnosed(recalibrated(network(seed=seed)))


PATIENTS: dict[Callable[[], Diagnosis], str] = {
    branch: "mode-branch",
    moves: "statistics-moved-in-eval",
    domains: "mixed-domains",
    outlier: "outlier-batch",
    dropped: "dropout-before-norm",
    last_of_one: "small-last-batch",
    padded: "padding-counted",
    at_chance: "at-chance",
    unexplained: "unexplained-gap",
}


CONTROLS: list[Callable[[], Diagnosis]] = [
    lambda: branch(both=True),
    lambda: domains(0.0),
    lambda: outlier(1.0),
    lambda: dropped(0.0),
    lambda: padded(28),
    lambda: unexplained(1.0),
    lambda: last_of_one(SMALL),
]
