"""Batch k is a function of k: order, rotation, augmentation and standardization."""

import hashlib
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from bnbench.data.batches import Batches, Order, Standardize, chunks, flip_crop
from bnbench.data.dataset import Images, pixel_moments

CPU = torch.device("cpu")


def generator_for(*words: object) -> torch.Generator:
    digest = hashlib.sha256(repr(words).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:6], "big"))


def numbered(n: int, channels: int = 1) -> Images:
    """Image i has i in every pixel, so that a batch says which images it holds."""
    pixels = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, channels, 4, 6)
    return Images(pixels.contiguous(), torch.arange(n) % 5)


def make(
    n: int = 50,
    *,
    batch_size: int = 8,
    drop_last: bool = True,
    order: Order = "shuffled",
    augment: Literal["none", "flip-crop"] = "none",
    indices: Tensor | None = None,
) -> Batches:
    return Batches(
        numbered(n),
        torch.arange(n) if indices is None else indices,
        batch_size=batch_size,
        drop_last=drop_last,
        order=order,
        standardize=Standardize((0.0,), (1 / 255,)),  # leaves the values as they are
        augment=augment,
        generator_for=generator_for,
        device=CPU,
    )


def members(batch: tuple[Tensor, Tensor]) -> list[int]:
    images, labels = batch
    found = [round(value) for value in images[:, 0, 0, 0].tolist()]
    assert labels.tolist() == [value % 5 for value in found]
    return found


def epoch(batches: Batches, number: int) -> list[int]:
    steps = batches.steps_per_epoch
    return [
        image
        for step in range(number * steps, (number + 1) * steps)
        for image in members(batches(step))
    ]


@pytest.mark.parametrize("order", get_args(Order))
def test_an_epoch_holds_every_image_once(order: Order) -> None:
    batches = make(drop_last=False, order=order)
    assert batches.steps_per_epoch == 7
    assert len(members(batches(6))) == 2
    for number in range(3):
        assert sorted(epoch(batches, number)) == list(range(50))


def test_only_the_given_indices_are_served() -> None:
    indices = torch.tensor([3, 4, 9, 20, 31, 49])
    assert sorted(epoch(make(batch_size=2, indices=indices), 0)) == indices.tolist()


@pytest.mark.parametrize("order", get_args(Order))
def test_no_image_is_always_dropped(order: Order) -> None:
    batches = make(batch_size=7, order=order)
    assert batches.steps_per_epoch == 7  # 49 of 50
    dropped = [set(range(50)) - set(epoch(batches, number)) for number in range(12)]
    assert all(len(images) == 1 for images in dropped)
    assert len(set.union(*dropped)) > 6
    assert set.intersection(*dropped) == set()


def test_epochs_differ_and_seeds_repeat() -> None:
    batches = make()
    assert epoch(batches, 0) != epoch(batches, 1)
    assert epoch(make(), 1) == epoch(batches, 1)


def test_the_order_does_not_depend_on_the_batch_size() -> None:
    small, large = make(batch_size=5), make(batch_size=25)
    for number in range(2):
        assert epoch(small, number) == epoch(large, number)


def test_class_sorted_is_sorted_up_to_a_rotation() -> None:
    batches = make(batch_size=5, order="class-sorted")
    orders = [epoch(batches, number) for number in range(6)]
    starts = set()
    for order in orders:
        labels = [image % 5 for image in order]
        rotations = [k for k in range(50) if sorted(labels) == labels[k:] + labels[:k]]
        assert len(rotations) == 1
        starts.add(rotations[0])
    assert len(starts) > 1
    by_class = [[image for image in order if image % 5 == 0] for order in orders]
    assert any(sorted(a) == sorted(b) and a != b for a, b in pairwise(by_class))


def test_class_sorted_batches_are_the_shuffled_ones_each_sorted() -> None:
    shuffled, sorted_ = make(), make(order="class-sorted-batches")
    for step in range(12):
        found = members(sorted_(step))
        assert found != members(shuffled(step))
        assert sorted(found) == sorted(members(shuffled(step)))
        assert [image % 5 for image in found] == sorted(image % 5 for image in found)


@pytest.mark.parametrize("augment", ["none", "flip-crop"])
def test_random_access_equals_sequential_access(augment: Literal["none", "flip-crop"]) -> None:
    straight = make(augment=augment)
    expected = [straight(step) for step in range(18)]
    jumping = make(augment=augment)
    for step in (17, 0, 6, 5, 12, 1, 17, 11, 0):
        images, labels = jumping(step)
        assert torch.equal(images, expected[step][0])
        assert torch.equal(labels, expected[step][1])


def test_a_batch_may_be_changed_without_changing_the_data() -> None:
    batches = make()
    before = batches(0)[0].clone()
    batches(0)[0].zero_()
    assert torch.equal(batches(0)[0], before)


def test_a_batch_larger_than_the_data() -> None:
    message = r"^a batch of 51 is more than the 50 training images$"
    with pytest.raises(ValueError, match=message):
        make(batch_size=51)
    assert make(batch_size=51, drop_last=False).steps_per_epoch == 1


# --- flip-crop ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 1, 28, 28), (40, 3, 8, 6), (1, 2, 3, 3)])
def test_flip_crop_against_a_loop_over_pixels(shape: tuple[int, int, int, int]) -> None:
    n, channels, height, width = shape
    pixels = torch.randint(1, 256, shape, generator=generator_for("pixels"), dtype=torch.uint8)
    result = flip_crop(pixels, generator_for("draws"))

    draws = generator_for("draws")
    top = torch.randint(9, (n,), generator=draws).tolist()
    left = torch.randint(9, (n,), generator=draws).tolist()
    flip = torch.randint(2, (n,), generator=draws).tolist()
    expected = torch.zeros(shape, dtype=torch.uint8)
    for i in range(n):
        for y in range(height):
            for x in range(width):
                row = y + top[i] - 4
                column = (width - 1 - x if flip[i] else x) + left[i] - 4
                if 0 <= row < height and 0 <= column < width:
                    expected[i, :, y, x] = pixels[i, :, row, column]
    assert torch.equal(result, expected)
    assert result.dtype == torch.uint8
    assert channels == result.shape[1]


def test_flip_crop_draws_each_shift_and_both_sides_equally_often() -> None:
    mark = torch.zeros(1, 1, 17, 17, dtype=torch.uint8)
    mark[0, 0, 8, 8], mark[0, 0, 8, 7] = 255, 100  # the second pixel tells the sides apart
    result = flip_crop(mark.expand(8100, 1, 17, 17), generator_for("draws"))[:, 0]
    places = (result == 255).nonzero()[:, 1:] - 8  # (8100, 2)
    shifts = (places + 4) @ torch.tensor([9, 1])
    counts = shifts.bincount(minlength=81)
    assert len(counts) == 81
    # 100 expected in each of 81 cells: chi-squared has mean 80 and standard deviation 12.6.
    assert ((counts - 100) ** 2 / 100).sum() < 80 + 5 * 12.6
    flipped = (result.flatten(1).argmax(1).unsqueeze(1) + 1).clamp(max=288)
    share = (result.flatten(1).gather(1, flipped) == 100).float().mean()
    assert abs(share - 0.5) < 0.03


def test_padding_is_black_before_standardization() -> None:
    white = Images(torch.full((64, 1, 8, 8), 255, dtype=torch.uint8), torch.zeros(64).long())
    batches = Batches(
        white,
        torch.arange(64),
        batch_size=64,
        drop_last=True,
        order="shuffled",
        standardize=Standardize((0.25,), (0.5,)),
        augment="flip-crop",
        generator_for=generator_for,
        device=CPU,
    )
    assert set(batches(0)[0].flatten().tolist()) == {-0.5, 1.5}  # (0 − 0.25)/0.5 and (1 − 0.25)/0.5


# --- standardize, chunks ------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_standardize_against_float64(channels: int) -> None:
    mean, std = (0.2867, 0.44, 0.9)[:channels], (0.354, 0.2, 0.01)[:channels]
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, channels, 16, 16)
    result = Standardize(mean, std)(levels)
    for channel in range(channels):
        exact = (levels[0, channel].double() / 255 - mean[channel]) / std[channel]
        difference = (result[1, channel].double() - exact).abs()
        assert float(difference.max()) <= 2e-7 * (1 + mean[channel] / std[channel] * 2)
    assert result.dtype == torch.float32


@pytest.mark.parametrize("channels", [1, 3])
def test_images_have_explicit_channels_last_strides(channels: int) -> None:
    """With the strides of the other format, a convolution would answer in that format."""
    pixels = torch.zeros(2, channels, 4, 6, dtype=torch.uint8)
    images = Standardize((0.5,) * channels, (1.0,) * channels)(pixels)
    assert images.stride() == (24 * channels, 1, 6 * channels, channels)


def test_a_constant_channel_becomes_zero() -> None:
    assert Standardize((1.0,), (0.0,))(torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)).eq(0).all()


def test_pixels_have_mean_0_and_deviation_1_each() -> None:
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (5000, 2, 3, 4), generator=random, dtype=torch.uint8)
    pixels[:, 1, 2, 3] = 7  # constant
    numbers = pixels.numpy().astype(np.float64) / 255
    mean, std = pixel_moments(pixels)
    np.testing.assert_allclose(mean.numpy(), numbers.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std.numpy(), numbers.std(0), rtol=1e-9, atol=1e-9)
    x = Standardize(mean, std)(pixels).double().numpy()
    expected = (numbers - numbers.mean(0)) / np.where(numbers.std(0) > 1e-9, numbers.std(0), 1)
    np.testing.assert_allclose(x, expected, atol=1e-6)


def test_chunks_keep_the_given_order() -> None:
    indices = torch.tensor([4, 2, 9, 9, 0])
    served = list(
        chunks(
            numbered(10), indices, size=2, standardize=Standardize((0.0,), (1 / 255,)), device=CPU
        )
    )
    assert [members(chunk) for chunk in served] == [[4, 2], [9, 9], [0]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_sees_the_same_batches() -> None:
    settings = {"batch_size": 8, "drop_last": True, "order": "shuffled", "augment": "flip-crop"}
    on_cpu, on_gpu = (
        Batches(
            numbered(50, 3),
            torch.arange(50),
            standardize=Standardize((0.4,) * 3, (0.2,) * 3),
            generator_for=generator_for,
            device=device,
            **settings,  # type: ignore[arg-type]
        )
        for device in (CPU, torch.device("cuda"))
    )
    for step in (0, 7, 3):
        images, labels = on_gpu(step)
        assert images.is_cuda
        torch.testing.assert_close(images.cpu(), on_cpu(step)[0])
        assert torch.equal(labels.cpu(), on_cpu(step)[1])
