from __future__ import annotations

import pytest

from bnbench.config import datasets, schema


@pytest.mark.parametrize(
    ("images", "batch", "drop_last", "steps"),
    [(100, 10, True, 10), (105, 10, True, 10), (105, 10, False, 11), (5, 10, False, 1)],
)
def test_steps_per_epoch(images: int, batch: int, drop_last: bool, steps: int) -> None:
    assert datasets.steps_per_epoch(images, batch, drop_last) == steps


def test_no_batch_can_be_had() -> None:
    with pytest.raises(ValueError, match="5 training images do not fill a batch of 10"):
        datasets.steps_per_epoch(5, 10, True)


@pytest.mark.parametrize(
    ("train", "drop_last", "steps"),
    [
        (schema.TrainConfig(), True, 30),
        (schema.TrainConfig(epochs=2.5), True, 25),
        (schema.TrainConfig(epochs=0.001), True, 1),
        (schema.TrainConfig(epochs=2), False, 22),
        (schema.TrainConfig(steps=7), True, 7),
        (schema.TrainConfig(examples=101), True, 11),
        (schema.TrainConfig(examples=105), False, 11),
        (schema.TrainConfig(examples=106), False, 12),
        (schema.TrainConfig(examples=210), False, 22),
    ],
)
def test_total_steps(train: schema.TrainConfig, drop_last: bool, steps: int) -> None:
    assert datasets.total_steps(train, 105, 10, drop_last) == steps


@pytest.mark.parametrize(
    ("every", "expected"),
    [("30s", (30.0, None)), ("0.5s", (0.5, None)), (200, (None, 200)), (None, (None, None))],
)
def test_checkpoint_interval(every: str | int | None, expected: object) -> None:
    assert datasets.checkpoint_interval(schema.TrainConfig(checkpoint_every=every)) == expected
