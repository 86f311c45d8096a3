"""What a dataset is, whether it fits into memory, and the images that are bundled.

1,000 training and 200 test images of each Fashion-MNIST class are stored in `bundled/` as two
contact sheets that any image viewer opens. Labels follow from the layout: the classes come in the
order of `CLASSES`, each in whole rows. `scripts/make_bundled_data` makes the sheets from the four
original files.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.filesize import decimal
from torch import Tensor

from bnbench.errors import DataError
from bnbench.machine import available_memory

SHARED = 0.05
"""Share of test images that may be training images, too: of published sets fewer are."""
FAR = 5.0
"""So many times another deviation, or so many deviations off, no two parts of one set are."""

# Pixels added up at a time: bounds what `moments` needs in addition to the images.
_COUNTED = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """One part of a dataset, resident in memory, or `mapped`: in a file that is read where needed.

    `pixels` is uint8 or float32 (N, C, H, W); `labels` is int64 (N,).
    """

    pixels: Tensor
    labels: Tensor
    mapped: bool = False

    def to(self, device: torch.device) -> Images:
        """The same images on a device; no copy where they already are there. Mapped pixels stay
        where they are."""
        pixels = self.pixels if self.mapped else self.pixels.to(device)
        return Images(pixels, self.labels.to(device), self.mapped)

    def at(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels and labels of some images, on the device of the labels, as `indices` are."""
        pixels = self.pixels.index_select(0, indices.to(self.pixels.device))
        return pixels.to(self.labels.device), self.labels.index_select(0, indices)

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        # As arrays, which pickle apart from the rest and without a copy.
        return images_of, (self.pixels.numpy(), self.labels.numpy())


def images_of(pixels: NDArray[Any], labels: NDArray[Any], *, mapped: bool = False) -> Images:
    """Arrays (N, C, H, W) and (N,) as tensors, without a copy of the pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an array cannot be written to: nobody does
        pair = torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64, copy=False))
    return Images(*pair, mapped)


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Training and test images, the names of the classes, and per-channel moments.

    `mean` and `std` are of all training pixels, bytes / 255 or floats: the constants that every
    setup shares.
    """

    name: str
    classes: tuple[str, ...]
    train: Images
    test: Images
    mean: tuple[float, ...]
    std: tuple[float, ...]


def moments(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and biased standard deviation per channel, from (N, C, H, W): of uint8 / 255, or floats.

    Of bytes, the sums are exact whole numbers, so that the difference of squares below cancels
    nothing and every machine gets the same doubles.
    """
    N, _, H, W = pixels.shape
    total = N * H * W
    if pixels.is_floating_point():
        means, spreads = _float_moments(pixels, (0, 2, 3))
        return tuple(means.flatten().tolist()), tuple(spreads.flatten().tolist())
    first, second = (each.sum((1, 2)).tolist() for each in _sums(pixels))
    mean = tuple(each / (255 * total) for each in first)
    variances = [total * s - f * f for f, s in zip(first, second, strict=True)]
    return mean, tuple(math.sqrt(each) / (255 * total) for each in variances)


def doubts(dataset: Dataset) -> Iterator[str]:
    """What makes numbers on the test images mean something else, where the parts come from code
    of the user's: the same images in both, or pixels of another scale."""
    train, test = dataset.train.pixels.numpy(), dataset.test.pixels.numpy()
    there = {hash(image.tobytes()) for image in train}
    seen = sum(hash(image.tobytes()) in there for image in test)
    if seen > SHARED * len(test):
        yield f"{seen:,} of {len(test):,} test images are training images, too"
    both = zip(dataset.mean, dataset.std, *moments(dataset.test.pixels), strict=True)
    for mean, std, other_mean, other_std in both:
        if abs(mean - other_mean) > FAR * std or other_std > FAR * std or std > FAR * other_std:
            yield (
                f"pixels of test have mean {other_mean:.3g} and deviation {other_std:.3g}, of "
                f"train {mean:.3g} and {std:.3g}: are they scaled alike?"
            )
            return  # one channel tells it


def pixel_moments(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased standard deviation over the images, as `moments`: (C, H, W) fp64, from
    (N, C, H, W)."""
    if pixels.is_floating_point():
        mean, spread = _float_moments(pixels, (0,))
        return mean[0], spread[0]
    N = len(pixels)
    first, second = _sums(pixels)
    mean, spread = first.to(torch.float64), (N * second - first.square()).to(torch.float64).sqrt()
    return mean / (255 * N), spread / (255 * N)


def _sums(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over the images of bytes and of their squares: (C, H, W) int64. They are exact: fp64
    holds every whole number up to 2⁵³."""
    first = second = torch.zeros((), dtype=torch.float64)
    for part in _parts(pixels):
        values = part.to(torch.float64)
        first, second = first + values.sum(0), second + values.square().sum(0)
    return first.to(torch.int64), second.to(torch.int64)


def _float_moments(pixels: Tensor, over: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean and biased standard deviation over these dimensions, which are kept, in fp64; the images
    are passed twice, so that nothing cancels."""
    values = math.prod(pixels.shape[each] for each in over)
    first = [part.to(torch.float64).sum(over, keepdim=True) for part in _parts(pixels)]
    mean = torch.stack(first).sum(0) / values
    second = [
        (part.to(torch.float64) - mean).square().sum(over, keepdim=True) for part in _parts(pixels)
    ]
    return mean, (torch.stack(second).sum(0) / values).sqrt()


def _parts(pixels: Tensor) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...]
    parts = pixels.split(max(1, _COUNTED // pixels[0].numel()))  # type: ignore[no-untyped-call]
    return parts


def require_memory(images: int, channels: int, image_size: int) -> None:
    """Raises DataError, with the numbers, when that many uint8 images do not fit."""
    need = images * channels * image_size**2
    free = available_memory()
    if free is not None and need > free:
        raise DataError(
            f"{images:,} images of {channels}×{image_size}×{image_size} need {decimal(need)}; "
            f"{decimal(free)} are free",
            do="use fewer or smaller images (data.image_size), or a machine with more memory",
        )


# --- the bundled images ------------------------------------------------------------------

BUNDLED = Path(__file__).parent / "bundled"
# https://github.com/zalandoresearch/fashion-mnist, "Labels"
CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
SIDE = 28  # pixels of a tile
COLUMNS = 100  # tiles in a row of a sheet
ROWS_PER_CLASS = {"train": 10, "test": 2}

# sha256 of the decoded gray values of each sheet, row by row: what scripts/make_bundled_data says.
PIXELS_SHA256 = {
    "train": "a559e830f1ef9b7e4e79f76a57bf4814dded62e54a014e791ffc85f4c43ff094",
    "test": "142b02526e9ce037aef4ce6cb2d78629b2dade896e65c5b1fe4f041c3c10ab2e",
}
# The 10,000 bundled training images / 255; tests/data/test_fashion12k.py recomputes them.
MEAN = (0.2866816471588636,)
STD = (0.3540125726600868,)


def load_fashion_mnist_12k() -> Dataset:
    """10,000 training and 2,000 test images, 1×28×28; needs neither network nor torchvision."""
    return Dataset(
        "fashion-mnist-12k", CLASSES, _read_sheet("train"), _read_sheet("test"), MEAN, STD
    )


def sheet_path(part: str) -> Path:
    """The file of the contact sheet of `train` or `test`."""
    return BUNDLED / f"fashion-mnist-12k-{part}.png"


def _read_sheet(part: str) -> Images:
    path = sheet_path(part)
    rows = ROWS_PER_CLASS[part] * len(CLASSES)
    try:
        with Image.open(path) as image:
            sheet = np.asarray(image)
        if hashlib.sha256(np.ascontiguousarray(sheet).data).hexdigest() != PIXELS_SHA256[part]:
            raise ValueError("its pixels are not the bundled ones")
    except FileNotFoundError:
        raise DataError(f"{path} is missing", do="reinstall bnbench") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}", do="reinstall bnbench") from error
    tiles = sheet.reshape(rows, SIDE, COLUMNS, SIDE).transpose(0, 2, 1, 3)
    labels = np.arange(len(CLASSES)).repeat(ROWS_PER_CLASS[part] * COLUMNS)
    return images_of(tiles.reshape(rows * COLUMNS, 1, SIDE, SIDE), labels)
