"""The arithmetic of budgets: how many steps an epoch, and a run, has."""

from __future__ import annotations

from bnbench.config import schema


def steps_per_epoch(train_images: int, batch_size: int, drop_last: bool) -> int:
    """Optimizer steps of one pass; raises ValueError where not even one batch can be had."""
    steps = train_images // batch_size if drop_last else -(-train_images // batch_size)
    if steps < 1:
        raise ValueError(f"{train_images} training images do not fill a batch of {batch_size}")
    return steps


def total_steps(
    train: schema.TrainConfig, train_images: int, batch_size: int, drop_last: bool
) -> int:
    """Optimizer steps of a run.

    A fraction of an epoch is rounded to whole steps, at least one. A budget of examples is never
    undershot; without `drop_last` an epoch's last batch counts with its own, smaller size.
    """
    epoch = steps_per_epoch(train_images, batch_size, drop_last)
    if train.steps is not None:
        return train.steps
    if train.examples is not None:
        if drop_last:
            return -(-train.examples // batch_size)
        passes, rest = divmod(train.examples, train_images)
        return passes * epoch + -(-rest // batch_size)
    assert train.epochs is not None  # TrainConfig sees to it
    return max(1, round(train.epochs * epoch))


def checkpoint_interval(train: schema.TrainConfig) -> tuple[float | None, int | None]:
    """Seconds between checkpoints and steps between them; at most one is not None."""
    every = train.checkpoint_every
    if isinstance(every, str):
        return float(every.removesuffix("s")), None
    return None, every
