"""Training loops as people write them, with a small network, and what may be wrong with them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

CLASSES = 4


class Net(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.neck = nn.Sequential(nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(dropout), nn.Linear(24, CLASSES)
        )

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.neck(self.backbone(x)))
        return found


NORMS = ("backbone.1", "neck.1")


def network(dropout: float = 0.0) -> Net:
    torch.manual_seed(0)
    return Net(dropout)


def data(
    examples: int = 64, size: int = 16, shuffle: bool = False
) -> DataLoader[tuple[Tensor, ...]]:
    random = torch.Generator().manual_seed(1)
    y = torch.arange(examples) % CLASSES
    x = torch.randn(examples, 3, 8, 8, generator=random) + y.view(-1, 1, 1, 1) / 3
    return DataLoader(TensorDataset(x, y), size, shuffle=shuffle)


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), 0.01)


def backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def step(model: nn.Module, by: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    by.zero_grad()
    backward(F.cross_entropy(model(x), y))
    by.step()


def epoch(model: nn.Module, by: torch.optim.Optimizer) -> None:
    for x, y in data():
        step(model, by, x, y)


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


def by_hand(model: Net) -> None:
    """A step without an optimizer, as tutorials make it."""
    for each in model.parameters():
        if each.grad is not None:
            each.data.sub_(0.1 * each.grad)
            each.grad = None


def _by_hand(model: Net) -> None:
    for x, y in (batch for _ in range(2) for batch in data()):
        backward(F.cross_entropy(model(x), y))
        by_hand(model)


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


def _left_in_eval(model: Net) -> None:
    by = optimizer(model)
    epoch(model, by)
    model.eval()
    epoch(model, by)


def _not_frozen_any_more(model: Net) -> None:
    by = optimizer(model)
    model.backbone.eval()
    for _ in range(2):
        epoch(model, by)
        model.train()


def _validated_in_train(model: Net) -> None:
    by = optimizer(model)
    for _ in range(2):
        epoch(model, by)
        with torch.no_grad():
            model(next(iter(data()))[0])


def _validated_with_gradients(model: Net) -> None:
    by = optimizer(model)
    for _ in range(3):
        epoch(model, by)
    model(next(iter(data()))[0])
    epoch(model, by)


def _validated_at_the_end(model: Net) -> None:
    epoch(model, optimizer(model))
    for x, _ in data():
        model(x)


def _skipped(model: Net) -> None:
    by = optimizer(model)
    for number, (x, y) in enumerate(batch for _ in range(3) for batch in data()):
        loss = F.cross_entropy(model(x), y)
        if number == 6:  # as where the loss is not finite
            continue
        by.zero_grad()
        backward(loss)
        by.step()


def _twice(model: Net) -> None:
    model.forward = lambda x: model.head(model.neck(model.neck(model.backbone(x))))  # type: ignore
    epoch(model, optimizer(model))


def _twice_in_parts(model: Net) -> None:
    by = optimizer(model)
    for x, y in data():
        by.zero_grad()
        backward(F.cross_entropy(model.head(model.neck(model.neck(model.backbone(x)))), y))
        by.step()


def _accumulated(model: Net) -> None:
    by = optimizer(model)
    for x, y in data():
        by.zero_grad()
        for part in range(4):
            backward(F.cross_entropy(model(x[part::4]), y[part::4]))
        by.step()


def _accumulated_later(model: Net) -> None:
    by = optimizer(model)
    for _ in range(2):
        epoch(model, by)
    _accumulated(model)


def _by_hand_in_eval(model: Net) -> None:
    _by_hand(model)
    model.eval()
    _by_hand(model)


def _batch_of_one(model: Net) -> None:
    by = optimizer(model)
    for x, y in data(examples=33):
        step(model, by, x, y)


def _all_of_one(model: Net) -> None:
    by = optimizer(model)
    for x, y in data(examples=4, size=1):
        step(model, by, x, y)


def _infinite(model: Net) -> None:
    by = optimizer(model)
    epoch(model, by)
    with torch.no_grad():
        model(torch.full((4, 3, 8, 8), torch.inf))
    model.eval()
    by.zero_grad()
    by.step()


def _nan_weights(model: Net) -> None:
    by = optimizer(model)
    epoch(model, by)
    with torch.no_grad():
        model.neck[0].weight[0] = torch.nan  # type: ignore[operator]
    epoch(model, by)


FAULTS: dict[str, tuple[Loop, set[tuple[str, int, int]]]] = {
    "left in eval": (_left_in_eval, {("frozen", 2, 5)}),
    "not frozen any more": (_not_frozen_any_more, {("no-longer-frozen", 1, 5)}),
    "validated in train": (_validated_in_train, {("moved-without-gradients", 2, 4)}),
    "validated with gradients": (_validated_with_gradients, {("moved-without-gradients", 2, 12)}),
    "validated at the end": (_validated_at_the_end, {("moved-without-gradients", 2, 4)}),
    "a loss left out": (_skipped, {("moved-without-gradients", 2, 6)}),
    "called twice": (_twice, {("reused-layer", 1, 1)}),
    "called twice in parts": (_twice_in_parts, {("reused-layer", 1, 1)}),
    "accumulated": (_accumulated, {("micro-batches", 2, 1)}),
    "accumulated later": (_accumulated_later, {("micro-batches", 2, 9)}),
    "a batch of one": (_batch_of_one, {("small-last-batch", 1, 3)}),
    "all of one": (_all_of_one, {("batch-too-small", 1, 1)}),
    "infinite": (
        _infinite,
        {("overflowed-variance", 2, 5), ("moved-without-gradients", 2, 4), ("frozen", 2, 5)},
    ),
    "nan in the weights": (_nan_weights, {("non-finite", 1, 5)}),
    "by hand in eval": (_by_hand_in_eval, {("frozen", 2, 9)}),
}
"""With what is said of how many layers, and at which step."""
