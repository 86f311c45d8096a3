"""Training loops as people write them, and what may be wrong with them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from tests.watching.loops import Net, backward, data, epoch, epochs_by_hand, optimizer, step

Loop = Callable[[Net], None]


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
    epochs_by_hand(model)
    model.eval()
    epochs_by_hand(model)


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
