"""Which images train and which validate: stratified by class, drawn by a given generator."""

from __future__ import annotations

import torch
from torch import Tensor


def split(
    labels: Tensor,
    *,
    validation_size: int,
    train_size: int | None,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Training and validation indices: disjoint, ascending, each stratified by class.

    The validation images are drawn first: they stay the same whatever `train_size` is.
    Raises ValueError when the sizes do not fit.
    """
    total = len(labels)
    rest = total - validation_size
    if rest < 1:
        raise ValueError(
            f"{validation_size:,} validation images leave none of {total:,} to train on"
        )
    if train_size is not None and train_size > rest:
        raise ValueError(
            f"{train_size:,} training images are more than the {rest:,} that "
            f"{validation_size:,} validation images leave of {total:,}"
        )
    queues = _shuffled_by_class(labels, generator)
    held = _shares([len(queue) for queue in queues], validation_size)
    left = [queue[count:] for queue, count in zip(queues, held, strict=True)]
    kept = _shares([len(queue) for queue in left], rest if train_size is None else train_size)
    return _take(left, kept), _take(queues, held)


def subset(labels: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Positions in `labels` of a stratified subset, ascending.

    Raises ValueError when `size` is more than there is.
    """
    if size > len(labels):
        raise ValueError(f"a subset of {size:,} images does not fit into {len(labels):,}")
    queues = _shuffled_by_class(labels, generator)
    return _take(queues, _shares([len(queue) for queue in queues], size))


def _shuffled_by_class(labels: Tensor, generator: torch.Generator) -> list[Tensor]:
    """The indices of each class, in random order, from one permutation of them all."""
    labels = labels.cpu()
    order = torch.randperm(len(labels), generator=generator)
    return [order[labels[order] == label] for label in sorted(set(labels.tolist()))]


def _shares(counts: list[int], size: int) -> list[int]:
    """`size` divided in proportion to `counts` by largest remainder; ties go to the first class."""
    total = sum(counts)
    shares = [size * count // total for count in counts]
    remainders = [size * count % total for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda index: -remainders[index])
    for index in by_remainder[: size - sum(shares)]:
        shares[index] += 1
    return shares


def _take(queues: list[Tensor], counts: list[int]) -> Tensor:
    """The first `counts` of each queue, sorted."""
    heads = [queue[:count] for queue, count in zip(queues, counts, strict=True)]
    return torch.cat(heads).sort().values
