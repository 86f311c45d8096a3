"""Training loops as people write them, and of which there is nothing to say."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.watching.loops import CLASSES, Net, backward, data, epoch, optimizer, step

Loop = Callable[[Net], None]


def _plain(model: Net) -> None:
    by = optimizer(model)
    for _ in range(10):
        model.train()
        epoch(model, by)
        model.eval()
        with torch.no_grad():
            for x, _ in data():
                model(x)


def _zeroed_late(model: Net) -> None:
    by = optimizer(model)
    for _ in range(10):
        for x, y in data():
            loss = F.cross_entropy(model(x), y)
            by.zero_grad()
            backward(loss)
            by.step()


def _checkpointed(model: Net) -> None:
    by = optimizer(model)
    for _ in range(10):
        for x, y in data():
            by.zero_grad()
            hidden: Tensor = checkpoint(model.backbone, x, use_reentrant=False)
            backward(F.cross_entropy(model.head(model.neck(hidden)), y))
            by.step()


def _averaged(model: Net) -> None:
    by = optimizer(model)
    average = copy.deepcopy(model)
    for _ in range(10):
        epoch(model, by)
        with torch.no_grad():
            for ours, theirs in zip(average.parameters(), model.parameters(), strict=True):
                ours.lerp_(theirs, 0.1)
            average(next(iter(data()))[0])  # its own statistics


def _closure(model: Net) -> None:
    by = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(10):
        for x, y in data():

            def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
                by.zero_grad()
                loss = F.cross_entropy(model(x), y)
                backward(loss)
                return loss

            by.step(closure)


def _frozen_all_along(model: Net) -> None:
    by = optimizer(model)
    for _ in range(10):
        model.train()
        model.backbone.eval()
        epoch(model, by)


def _two_views(model: Net) -> None:
    """Contrastive: two views, one loss; later parts of the network alone."""
    by = optimizer(model)
    for _ in range(3):
        for x, _ in data():
            by.zero_grad()
            backward((model(x) - model(x + 1)).square().mean())
            by.step()
    for x, _ in data():
        by.zero_grad()
        backward((model(x) - model.head(model.neck(model.backbone(x)))).square().mean())
        by.step()


def _climbing(model: Net) -> None:
    """Sharpness-aware: the gradient where it is steepest nearby."""
    by = optimizer(model)
    for x, y in (batch for _ in range(3) for batch in data()):
        backward(F.cross_entropy(model(x), y))
        climbed = []
        with torch.no_grad():
            for each in model.parameters():
                climbed.append((each, 0.01 * each.grad))  # type: ignore[operator]
                each.add_(climbed[-1][1])
        by.zero_grad()
        backward(F.cross_entropy(model(x), y))
        with torch.no_grad():
            for each, by_how_much in climbed:
                each.sub_(by_how_much)
        by.step()
        by.zero_grad()


def _searching(model: Net) -> None:
    by = torch.optim.LBFGS(model.parameters(), 0.1, max_iter=4)
    for x, y in (batch for _ in range(2) for batch in data()):

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            by.zero_grad(set_to_none=False)
            loss = F.cross_entropy(model(x), y)
            backward(loss)
            return loss

        by.step(closure)  # type: ignore[no-untyped-call]


def _attacked(model: Net) -> None:
    by = optimizer(model)
    for x, y in (batch for _ in range(2) for batch in data()):
        away = torch.zeros_like(x, requires_grad=True)
        for _ in range(3):
            (slope,) = torch.autograd.grad(F.cross_entropy(model(x + away), y), away)
            away.data.add_(slope.sign(), alpha=0.01)
        step(model, by, x + away.detach(), y)


class Made(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 192), nn.BatchNorm1d(192), nn.Unflatten(1, (3, 8, 8))
        )

    def forward(self, z: Tensor) -> Tensor:
        found: Tensor = self.layers(z)
        return found


def _adversarial(model: Net) -> None:
    """The model tells real images from made ones: a backward pass for each, one step."""
    maker = Made()
    mine, makers = optimizer(model), optimizer(maker)
    for x, _ in (batch for _ in range(3) for batch in data()):
        mine.zero_grad()
        backward(F.softplus(-model(x)).mean())
        made = maker(torch.randn(len(x), 4))
        backward(F.softplus(model(made.detach())).mean())
        mine.step()
        makers.zero_grad()
        backward(F.softplus(-model(made)).mean())
        makers.step()


def _both_in_one(model: Net) -> None:
    """Two parts of the model that take turns, of which one passes without a gradient."""
    body, head = (optimizer(each) for each in (model.backbone, model.neck))
    for x, y in (batch for _ in range(3) for batch in data()):
        hidden = model.backbone(x)
        head.zero_grad()
        backward(F.cross_entropy(model.head(model.neck(hidden.detach())), y))
        backward(-model.head(model.neck(1 - hidden.detach())).logsumexp(1).mean())
        head.step()
        step(model, body, x, y)


def _with_a_critic(model: Net) -> None:
    """Another network learns from what the model gives, twice for each step of the model."""
    critic = nn.Linear(CLASSES, 1)
    mine, critics = optimizer(model), optimizer(critic)
    for x, _ in (batch for _ in range(3) for batch in data()):
        for _ in range(2):
            critics.zero_grad()
            backward(critic(model(x).detach()).square().mean())
            critics.step()
        mine.zero_grad()
        backward(critic(model(x)).mean())
        mine.step()


def _checkpointed_by_function(model: Net) -> None:
    by = optimizer(model)
    for x, y in (batch for _ in range(3) for batch in data()):
        by.zero_grad()
        hidden: Tensor = checkpoint(model.neck, model.backbone(x), use_reentrant=True)
        backward(F.cross_entropy(model.head(hidden), y))
        by.step()


HEALTHY: dict[str, Loop] = {
    "plain": _plain,
    "zeroed late": _zeroed_late,
    "checkpointed": _checkpointed,
    "checkpointed by a function": _checkpointed_by_function,
    "averaged": _averaged,
    "closure": _closure,
    "frozen all along": _frozen_all_along,
    "two views": _two_views,
    "climbing": _climbing,
    "searching": _searching,
    "attacked": _attacked,
    "adversarial": _adversarial,
    "both in one": _both_in_one,
    "with a critic": _with_a_critic,
}
