"""A replayed step against the same step through autograd, bit for bit."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from math import cos
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bnbench.config import schema
from bnbench.events import Step
from bnbench.replay import Replayed
from bnbench.train import Run, train
from tests.assemble.examples import EXAMPLES, built, config, smooth, synthetic
from tests.runs import all_probes

STEPS = 12
"""Two epochs of five batches, the last of them smaller, and two steps more."""

TRACED = {"frozen", "batch-renorm"}
"""What these compute is decided by a number that a tensor holds."""


def trained(changes: dict[str, Any], *, replayable: bool) -> tuple[Run, list[float], int]:
    """A run at its end; its losses; how often the network was called to train."""
    run = built(
        config(
            **{
                "data": synthetic(batch_size=10, drop_last=False, augment="flip-crop"),
                "train": schema.TrainConfig(steps=STEPS, evaluations=2, log_every=1),
                **changes,
            }
        )
    )
    assert run.replayable
    run.replayable, calls = replayable, 0

    def count(model: nn.Module, _: object) -> None:
        nonlocal calls
        calls += model.training

    run.model.register_forward_pre_hook(count)
    losses = [
        fact.loss
        for each in train(run)
        for fact in getattr(each, "facts", ())
        if isinstance(fact, Step)
    ]
    return run, losses, calls


def traced(changes: dict[str, Any]) -> int:
    """Train with and without replaying: the same bits. How often the network was called."""
    run, losses, calls = trained(changes, replayable=True)
    other, expected, every = trained(changes, replayable=False)
    assert losses == expected
    assert len(losses) == STEPS
    for name, value in other.model.state_dict().items():
        assert torch.equal(run.model.state_dict()[name], value), name
    state, same = other.optimizer.state_dict(), run.optimizer.state_dict()
    assert same["param_groups"] == state["param_groups"]
    for key, kept in state["state"].items():
        for name, value in kept.items():
            assert torch.equal(same["state"][key][name], value), name
    return calls - (every - STEPS)  # evaluations under batch statistics call it, too


CHANGES = [
    *({"norm": each} for each in EXAMPLES["norm"] if not isinstance(each, schema.CustomNormConfig)),
    *(
        {"model": smooth(each)}
        for each in EXAMPLES["model"]
        if not isinstance(each, schema.ForeignModel)
    ),
    *({"optim": each} for each in EXAMPLES["optim"]),
    {"model": schema.PlainModel(widths=(4,), blocks=1, dropout=0.5)},
    {"optim": schema.SGDConfig(train_only="norm")},
    {"compute": schema.ComputeConfig(precision="bf16")},
    {"probes": all_probes()},
]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda each: repr(next(iter(each.values())))[:60])
def test_bits_are_those_of_autograd(changes: dict[str, Any]) -> None:
    """Once for the optimizer's state, and once for each of two shapes; else in each step."""
    norm = changes.get("norm")
    decided = norm is not None and (norm.kind in TRACED or getattr(norm, "momentum", 0) is None)
    assert traced(changes) == (STEPS if decided else 3)


@pytest.mark.parametrize(
    "foreign",
    [
        {"norm": EXAMPLES["norm"][-1]},
        {"model": schema.TimmModel(kind="timm", name="test_resnet")},
    ],
    ids=lambda each: next(iter(each)),
)
def test_code_of_others_is_called_in_each_step(foreign: dict[str, Any]) -> None:
    """It may count its calls, and decide by that."""
    assert not built(config(**foreign)).replayable


# --- what is replayed -----------------------------------------------------------------------------


@dataclass
class Regression:
    """SGD on one weight; `called`: the steps that went through Python; `seeded`: those with random
    numbers of their own."""

    compute: Callable[[Tensor, Tensor], Tensor]
    called: list[int] = field(default_factory=list)
    seeded: list[int] = field(default_factory=list)

    def reseed(self, step: int) -> None:
        self.seeded.append(step)
        torch.manual_seed(step)

    def losses(self, *, replays: bool, steps: int = 5) -> list[float]:
        """Of each step, with images, labels and a rate of its own."""
        weight = torch.tensor(0.5, requires_grad=True)
        optimizer = torch.optim.SGD([weight], lr=0.0, fused=True)

        def update(step: int, images: Tensor, labels: Tensor, lr: float) -> Tensor:
            self.called.append(step)
            self.reseed(step)
            optimizer.param_groups[0]["lr"] = lr
            loss = (self.compute(images, weight) - labels).square().sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            return loss.detach()

        step_of = Replayed(update, self.reseed) if replays else update
        found = []
        for step in range(steps):
            images, labels = torch.full((2,), 1.0 + step), torch.full((2,), -1.0 * step)
            found.append(step_of(step, images, labels, 0.01 * cos(step)).item())
        return found


def test_images_labels_and_rate_are_of_the_step() -> None:
    regression = Regression(torch.mul)
    assert regression.losses(replays=True) == Regression(torch.mul).losses(replays=False)
    assert regression.called == regression.seeded == [0, 1], "nobody draws a number"


def test_random_numbers_are_of_the_step() -> None:
    def noisy(images: Tensor, weight: Tensor) -> Tensor:
        return images * weight + torch.rand(2)

    regression = Regression(noisy)
    assert regression.losses(replays=True) == Regression(noisy).losses(replays=False)
    assert regression.called == [0, 1]
    assert regression.seeded == [0, 1, 2, 3, 4]


def test_what_reads_a_number_is_called_in_each_step() -> None:
    def branching(images: Tensor, weight: Tensor) -> Tensor:
        return images * weight if images[0].item() < 3 else images * weight * 2

    regression = Regression(branching)
    assert regression.losses(replays=True) == Regression(branching).losses(replays=False)
    assert regression.called == [0, 1, 2, 3, 4]


def test_what_is_changed_in_place_is_what_was_given() -> None:
    counted = torch.zeros(())

    def counting(images: Tensor, weight: Tensor) -> Tensor:
        counted.add_(1)
        return images * weight

    assert Regression(counting).losses(replays=True) == Regression(torch.mul).losses(replays=False)
    assert counted.item() == 5


def test_nothing_of_a_step_is_kept_while_it_is_captured() -> None:
    """Else a network that just fits into memory would no longer."""
    alive: list[bool] = []

    def watched(images: Tensor, weight: Tensor) -> Tensor:
        first = images * weight
        kept = weakref.ref(first)
        second = first + 0
        del first
        alive.append(kept() is not None)
        return second

    regression = Regression(watched)
    assert regression.losses(replays=True) == Regression(watched).losses(replays=False)
    assert regression.called == [0, 1]
    assert not any(alive)
