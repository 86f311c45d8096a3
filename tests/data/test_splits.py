"""Stratified splits, counted by hand."""

import pytest
import torch
from torch import Tensor

from bnbench.data.batches import split, subset


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# 50, 30 and 20 images of three classes, mixed.
LABELS = torch.tensor([0, 1, 0, 2, 0, 1, 0, 2, 0, 1] * 10)


def counts(indices: Tensor) -> list[int]:
    return LABELS[indices].bincount(minlength=3).tolist()


@pytest.mark.parametrize(
    ("size", "held"),
    [
        (10, [5, 3, 2]),
        (1, [1, 0, 0]),  # quotas .5 .3 .2
        (3, [1, 1, 1]),  # quotas 1.5 .9 .6: whole parts 1 0 0, then remainders .9 and .6
        (13, [6, 4, 3]),  # quotas 6.5 3.9 2.6: whole parts 6 3 2, then .9 and .6
        (99, [49, 30, 20]),  # quotas 49.5 29.7 19.8: remainders .8 and .7 win
    ],
)
def test_largest_remainders(size: int, held: list[int]) -> None:
    train, validation = split(LABELS, validation_size=size, train_size=None, generator=generator())
    assert counts(validation) == held
    assert counts(train) == [a - b for a, b in zip([50, 30, 20], held, strict=True)]


def test_ties_go_to_the_first_class() -> None:
    labels = torch.arange(4).repeat_interleave(5)
    _, validation = split(labels, validation_size=2, train_size=None, generator=generator())
    assert labels[validation].tolist() == [0, 1]


def test_parts_are_disjoint_ascending_and_complete() -> None:
    train, validation = split(LABELS, validation_size=17, train_size=None, generator=generator())
    assert sorted(train.tolist() + validation.tolist()) == list(range(100))
    assert train.tolist() == sorted(train.tolist())
    assert validation.tolist() == sorted(validation.tolist())


def test_a_smaller_training_set_keeps_the_validation_images() -> None:
    train, validation = split(LABELS, validation_size=20, train_size=None, generator=generator())
    few, same = split(LABELS, validation_size=20, train_size=16, generator=generator())
    assert torch.equal(validation, same)
    assert set(few.tolist()) <= set(train.tolist())
    assert counts(few) == [8, 5, 3]  # quotas 8, 4.8, 3.2


def test_a_split_is_its_generator() -> None:
    first, again, other = (
        split(LABELS, validation_size=20, train_size=None, generator=generator(seed))[1]
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_image_is_held_out_for_some_seed() -> None:
    held = [
        split(LABELS, validation_size=20, train_size=None, generator=generator(seed))[1]
        for seed in range(60)
    ]
    assert len(set(torch.cat(held).tolist())) == 100


def test_subset_is_stratified_and_ascending() -> None:
    chosen = subset(LABELS, 10, generator())
    assert counts(chosen) == [5, 3, 2]
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert subset(LABELS, 100, generator()).tolist() == list(range(100))
    assert not torch.equal(chosen, subset(LABELS, 10, generator(1)))


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"^100 validation images leave none of 100 to train on$"):
        split(LABELS, validation_size=100, train_size=None, generator=generator())
    message = r"^81 training images are more than the 80 that 20 validation images leave of 100$"
    with pytest.raises(ValueError, match=message):
        split(LABELS, validation_size=20, train_size=81, generator=generator())
    with pytest.raises(ValueError, match=r"^a subset of 101 images does not fit into 100$"):
        subset(LABELS, 101, generator())
