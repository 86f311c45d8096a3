"""From pixels to batches: splits, order, augmentation, standardization.

Batch k is a function of k and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from bnbench.data.dataset import Images

Order: TypeAlias = Literal["shuffled", "class-sorted", "class-sorted-batches"]
"""Random; by class within an epoch; or random, and by class within each batch, so that an optimizer
step sees the same images and normalization batches are of few classes."""


class Standardize:
    """(x/255 − mean)/std, as one multiply-add: uint8 (n, C, H, W) → float32; of floats,
    (x − mean)/std.

    `mean`, `std`: per channel, (C,); or per pixel, (C, H, W).

    The result has explicit channels-last strides, also where C = 1 makes them ambiguous:
    `.contiguous(memory_format=torch.channels_last)` would leave such a tensor as it is, and a
    convolution would take it for the other format.
    """

    def __init__(self, mean: tuple[float, ...] | Tensor, std: tuple[float, ...] | Tensor) -> None:
        middle, spread = (torch.as_tensor(each, dtype=torch.float64) for each in (mean, std))
        # What is constant has std 0 and becomes 0 everywhere.
        spread = torch.where(spread > 0, spread, 1.0)
        shape = (1, -1, 1, 1) if middle.dim() == 1 else (1, *middle.shape)
        self._scale, self._scale_of_floats, self._shift = (
            each.view(shape).to(torch.float32)
            for each in (1 / (255 * spread), 1 / spread, -middle / spread)
        )

    def to(self, device: torch.device) -> Standardize:
        """The same on a device."""
        moved = copy(self)
        for name, tensor in vars(self).items():
            setattr(moved, name, tensor.to(device))
        return moved

    def __call__(self, pixels: Tensor) -> Tensor:
        scale = self._scale_of_floats if pixels.is_floating_point() else self._scale
        x = pixels.to(torch.float32, memory_format=torch.channels_last, copy=True)
        return x.mul_(scale).add_(self._shift)


class Batches:
    """The training batches of a run, by step: shuffled in every epoch.

    Order and augmentation come from `generator_for("order", epoch)` and
    `generator_for("augment", step)`, which return freshly seeded CPU generators: a resumed run
    sees the batches that it would have seen. The order of an epoch depends neither on the batch
    size nor on the setup. Only the current epoch's order is kept.
    """

    def __init__(
        self,
        images: Images,
        indices: Tensor,
        *,
        batch_size: int,
        drop_last: bool,
        order: Order,
        standardize: Standardize,
        augment: Literal["none", "flip-crop"],
        generator_for: Callable[..., torch.Generator],
        device: torch.device,
    ) -> None:
        n = len(indices)
        self.batch_size = batch_size
        self.steps_per_epoch = n // batch_size if drop_last else -(-n // batch_size)
        if self.steps_per_epoch < 1:
            raise ValueError(f"a batch of {batch_size:,} is more than the {n:,} training images")
        self._images = images.to(device)
        self._indices = indices.cpu()
        self._labels = images.labels.cpu()[self._indices]
        self._order = order
        self._standardize = standardize.to(device)
        self._augment = augment
        self._generator_for = generator_for
        self._epoch = -1
        self._epoch_indices = indices

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (n, C, H, W) float32 channels-last and labels (n,) of one step, counted from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch_indices = self._in_order(epoch).to(self._images.labels.device)
            self._epoch = epoch
        start = position * self.batch_size
        chosen = self._epoch_indices[start : start + self.batch_size]
        if self._order == "class-sorted-batches":
            labels = self._images.labels.index_select(0, chosen)
            chosen = chosen[labels.argsort(stable=True)]
        pixels, labels = self._images.at(chosen)
        if self._augment == "flip-crop":
            pixels = flip_crop(pixels, self._generator_for("augment", step))
        return self._standardize(pixels), labels

    def _in_order(self, epoch: int) -> Tensor:
        n = len(self._indices)
        generator = self._generator_for("order", epoch)
        order = torch.randperm(n, generator=generator)
        if self._order == "class-sorted":
            by_class = self._labels[order].argsort(stable=True)
            # The roll lets another part of the classes fall into the dropped last batch each time.
            offset = int(torch.randint(n, (), generator=generator))
            order = order[by_class].roll(offset)
        return self._indices[order]


def chunks(
    images: Images,
    indices: Tensor,
    *,
    size: int,
    standardize: Standardize,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Standardized images and labels at `indices`, in the given order, `size` at a time.

    The last chunk may be smaller. Nothing is shuffled: indices from `split` and `subset` ascend,
    and some datasets are stored class by class, so an evaluation with batch statistics has to
    permute its indices first.
    """
    images, standardize = images.to(device), standardize.to(device)
    indices = indices.to(images.labels.device)
    for start in range(0, len(indices), size):
        pixels, labels = images.at(indices[start : start + size])
        yield standardize(pixels), labels


# --- augmentation -------------------------------------------------------------------------

# The CIFAR recipe: 4 pixels of padding, a crop of the old size, a flip (He et al. 2015,
# arXiv:1512.03385, section 4.2). As in torchvision's training recipes the padding is black, zero
# before standardization.
PADDING = 4


def flip_crop(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Each image of (n, C, H, W) shifted by up to 4 pixels each way, and mirrored or not.

    Draws, in this order: n row offsets, n column offsets, n flips. `generator` is a CPU one
    whatever the device of the pixels, so that every device sees the same crops.
    """
    n, C, H, W = pixels.shape
    offsets = 2 * PADDING + 1
    top = torch.randint(offsets, (n, 1), generator=generator)
    left = torch.randint(offsets, (n, 1), generator=generator)
    flip = torch.randint(2, (n, 1), generator=generator).bool()
    across = torch.arange(W)
    rows = (top + torch.arange(H)).to(pixels.device)  # (n, H)
    columns = (left + torch.where(flip, across.flip(0), across)).to(pixels.device)  # (n, W)
    padded = F.pad(pixels, (PADDING,) * 4)
    # One flat index per output pixel of a channel: a single gather instead of two.
    places = rows[:, :, None] * (W + 2 * PADDING) + columns[:, None, :]  # (n, H, W)
    flat = padded.flatten(2)  # (n, C, (H+8)·(W+8))
    return flat.gather(2, places.reshape(n, 1, H * W).expand(n, C, H * W)).view(n, C, H, W)


# --- splits -------------------------------------------------------------------------------


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
