"""What a function of the user's own returns, as images: datasets, or pairs of arrays.

`(train, test)` or `(train, test, names)`. A dataset has a length and items (image, label), or
dictionaries, as Hugging Face's `datasets` have; an image is Pillow's, an array or a tensor. A pair
is (images, labels). Pixels are uint8, or whole numbers from 0 to 255, or floats, which stay as they
are (fp32); shapes are (C, H, W), (H, W), or (H, W, C) where that cannot be mistaken.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from math import prod
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bnbench.data.dataset import Dataset, Images, images_of, moments
from bnbench.data.in_order import in_order
from bnbench.data.prepared import require_disk
from bnbench.errors import BnbenchError, DataError
from bnbench.machine import fits
from bnbench.wording import cut, sizes

FEW = 4
"""Channels of gray, gray with transparency, colors, colors with transparency."""

PART_BYTES = 1 << 24

IMAGE_NAMES = ("image", "img", "pixel_values", "pixels")
LABEL_NAMES = ("label", "labels", "fine_label", "target")
"""What a dictionary calls its image and its label; the first that it has counts."""

RETURNS = (
    "return (train, test): datasets with a length and items (image, label), or pairs (images, "
    "labels) of arrays or tensors; and, if you like, the names of the classes"
)


def gathered(returned: Any, where: str, scratch: Path) -> Dataset:
    """The images that a function has returned. `where` names it in messages; what does not fit into
    memory is written to a file without a name in the folder `scratch`. Raises DataError."""
    if not isinstance(returned, tuple | list) or len(returned) not in (2, 3):
        raise DataError(f"{where} returned {_kind(returned)}", do=RETURNS)
    parts = []
    for part, source in zip(("train", "test"), returned[:2], strict=True):
        said = f"{where}: {part}"
        pair = isinstance(source, tuple | list) and len(source) == 2
        if pair and isinstance(source[0], np.ndarray | Tensor) and source[0].ndim != 0:
            parts.append(_from_arrays(source[0], source[1], said, scratch))
        elif hasattr(source, "__len__") and hasattr(source, "__getitem__"):
            parts.append(_from_items(source, said, scratch))
        else:
            raise DataError(f"{said} is {_kind(source)}", do=RETURNS)
    train, test = parts
    first, second = (f"{sizes(each.pixels.shape[1:])} {each.pixels.dtype}" for each in parts)
    if first != second:
        said = f"{where}: images of train are {first}, of test {second}".replace("torch.", "")
        raise DataError(said, do="make them alike")
    classes = _class_names(returned, train.labels, test.labels, where)
    return Dataset("custom", classes, train, test, *moments(train.pixels))


# --- arrays ---------------------------------------------------------------------------------------


def _from_arrays(images: Any, labels: Any, said: str, scratch: Path) -> Images:
    pixels, classes = _array(images), _array(labels)
    if pixels.ndim not in (3, 4):
        raise DataError(
            f"{said} has images of the shape {sizes(pixels.shape)}",
            do="give N×C×H×W, N×H×W×C or N×H×W",
        )
    count = len(pixels)
    if classes.shape not in ((count,), (count, 1)):
        raise DataError(
            f"{said} has {count:,} images, and labels of the shape {sizes(classes.shape)}",
            do="give one whole number an image",
        )
    if not count:
        raise DataError(f"{said} has no images")
    if classes.dtype.kind not in "iub":
        raise DataError(
            f"{said} has labels of {classes.dtype}", do="classes are whole numbers from 0"
        )
    of_one = pixels.ndim == 3
    pixels = pixels[:, None] if of_one else _channels_first(pixels, f"{said}: its images are")
    if not pixels.size:
        raise DataError(f"{said} has images of {sizes(pixels.shape[1:])}: empty")
    # torch cannot walk backwards, as images turned by [::-1] do.
    as_they_are = pixels.dtype in (np.uint8, np.float32) and pixels.dtype.isnative
    as_they_are = as_they_are and min(pixels.strides) >= 0
    kept = pixels
    if not as_they_are:
        first = _pixels(pixels[:1], said, 0)
        kept = _room(pixels.shape, first.dtype, scratch, said)
    size = max(1, PART_BYTES // max(1, pixels[0].nbytes))
    for start in range(0, count, size):
        part = _pixels(pixels[start : start + size], said, start)
        if not as_they_are:
            kept[start : start + size] = part
    return images_of(kept, classes.reshape(count))


def _array(values: Any) -> NDArray[Any]:
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu().to_dense()
    # NumPy has no bfloat16.
    array: NDArray[Any] = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return array


def _channels_first(pixels: NDArray[Any], said: str) -> NDArray[Any]:
    """(…, C, H, W) of (…, C, H, W) or (…, H, W, C), a view. `said`: "the image of train[3] is"."""
    first, middle, last = pixels.shape[-3:]
    channels_first = first <= FEW or middle == last
    channels_last = last <= FEW or first == middle
    if channels_first == channels_last:
        raise DataError(
            f"{said} {sizes(pixels.shape)}, of which channels and sides cannot be told",
            do="give C×H×W, with at most 4 channels or equal sides",
        )
    return pixels if channels_first else np.moveaxis(pixels, -1, -3)


def _pixels(values: NDArray[Any], said: str, start: int | None = None) -> NDArray[Any]:
    """The same in uint8 or fp32. `start`: where the first of several images is, for messages."""

    def require(good: NDArray[np.bool_], what: str, do: str) -> None:
        if not good.all():
            bad = int(good.reshape(len(good), -1).all(1).argmin())
            which = "" if start is None else f": image {start + bad}"
            raise DataError(f"{said}{which} has {what}", do=do)

    kind = values.dtype.kind
    if kind == "f":
        with np.errstate(over="ignore"):  # is refused
            values = values.astype(np.float32, copy=False)
        require(np.isfinite(values), "pixels that are not finite", "NaN and infinity train nothing")
        return values
    if kind not in "iub":
        raise DataError(f"{said} has pixels of {values.dtype}", do="uint8 or floats are taken")
    if values.dtype != np.uint8 and values.size:
        what = f"whole numbers from {values.min()} to {values.max()} as pixels"
        require((values >= 0) & (values <= 255), what, "0 to 255 are taken, or floats")
    return values.astype(np.uint8, copy=False)


def _room(shape: tuple[int, ...], dtype: Any, scratch: Path, said: str) -> NDArray[Any]:
    """Memory for it, or else a file without a name."""
    need = prod(shape) * np.dtype(dtype).itemsize
    if fits(need):
        return np.empty(shape, dtype)
    require_disk(scratch, 2 * need, f"{said} ({shape[0]:,} images of {sizes(shape[1:])})")
    scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=scratch) as file:
        os.truncate(file.fileno(), need)
        return np.memmap(file, dtype, "r+", shape=shape)


# --- items ----------------------------------------------------------------------------------------


def _from_items(source: Any, said: str, scratch: Path) -> Images:
    """The images of a dataset with a length; decoded by several processes where that takes long."""
    count = len(source)
    if not count:
        raise DataError(f"{said} has no images")
    first, _ = _item(_at(source, 0, said), f"{said}[0]")
    pixels, labels = _room((count, *first.shape), first.dtype, scratch, said), np.empty(count, int)
    with closing(in_order(_Get(source, said, first), count)) as items:
        for index, item in enumerate(items):
            if isinstance(item, BnbenchError):
                raise item
            pixels[index], labels[index] = item
    return images_of(pixels, labels)


def _at(source: Any, index: int, said: str) -> Any:
    """An item; what the user's code raises says of which."""
    try:
        return source[index]
    except Exception as error:
        error.add_note(f"(for {said}[{index}])")
        raise


class _Get:
    """An item of a dataset, or our own error, which would not be the same from a worker."""

    def __init__(self, source: Any, said: str, first: NDArray[Any]) -> None:
        self._source, self._said, self._first = source, said, first

    def __getitem__(self, index: int) -> tuple[NDArray[Any], int] | BnbenchError:
        said, first = f"{self._said}[{index}]", self._first
        try:
            image, label = _item(_at(self._source, index, self._said), said)
            if image.shape == first.shape and image.dtype == first.dtype:
                return image, label
            raise DataError(
                f"{said} is {sizes(image.shape)} ({image.dtype}), {self._said}[0] "
                f"{sizes(first.shape)} ({first.dtype})",
                do="make them alike, for example with torchvision's Resize, CenterCrop and "
                'image.convert("RGB")',
            )
        except BnbenchError as error:
            return error


def _item(item: Any, said: str) -> tuple[NDArray[Any], int]:
    """The image (C, H, W) and the label of an item. Raises DataError."""
    if isinstance(item, Mapping):
        image, label = _first_of(IMAGE_NAMES, item), _first_of(LABEL_NAMES, item)
        if not (image and label):
            raise DataError(
                f"{said} has {', '.join(map(str, item))}",
                do="rename columns so that they are image and label",
            )
        item = item[image], item[label]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(f"{said} is {_kind(item)}", do="an item is (image, label)")
    return _image(item[0], said), _label(item[1], said)


def _image(image: Any, said: str) -> NDArray[Any]:
    if isinstance(image, Image.Image):
        if image.mode not in ("L", "RGB", "F") and not image.mode.startswith("I"):
            image = image.convert("L" if image.mode in ("1", "LA") else "RGB")
        values = np.asarray(image)
        values = values.transpose(2, 0, 1) if values.ndim == 3 else values[None]
    else:
        values = _array(image)
        if values.dtype.kind not in "fiubc":
            raise DataError(
                f"the image of {said} is {_kind(image)}",
                do="read it first, and return an array, a tensor or a PIL image",
            )
        if values.ndim not in (2, 3):
            raise DataError(
                f"the image of {said} has the shape {sizes(values.shape)}",
                do="give C×H×W, H×W×C or H×W",
            )
        gray = values.ndim == 2
        values = values[None] if gray else _channels_first(values, f"the image of {said} is")
    if not values.size:
        raise DataError(f"the image of {said} is {sizes(values.shape)}: empty")
    return _pixels(values, f"the image of {said}")


def _label(label: Any, said: str) -> int:
    value = _array(label)
    if value.size != 1 or value.dtype.kind not in "iub":
        raise DataError(
            f"the label of {said} is {str(label)[:40]} ({_kind(label)})",
            do="classes are whole numbers from 0",
        )
    return int(value.item())


def _kind(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"of type {type(value).__name__}"


# --- classes --------------------------------------------------------------------------------------


def _class_names(
    returned: Sequence[Any], train: Tensor, test: Tensor, where: str
) -> tuple[str, ...]:
    """The names of the classes, after checking that every label has one."""
    given = returned[2] if len(returned) == 3 else _names(returned[0])
    if len(returned) == 2 and (apart := numbered_otherwise(*returned)):
        raise DataError(
            f"{where}: {apart}",
            do="number the classes alike (the same class folders, in both parts), or return the "
            "names of the classes as a third value",
        )
    if isinstance(given, str) or not isinstance(given, Iterable | None):
        raise DataError(f"{where}: the names of the classes are {_kind(given)}", do=RETURNS)
    names = None if given is None else tuple(map(str, given))
    count = int(train.max()) + 1 if names is None else len(names)
    for part, labels in (("train", train), ("test", test)):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= count:
            wrong = int(((labels < 0) | (labels >= count)).int().argmax())
            known = "" if names is None else f"; the classes are {', '.join(names[:10])}"
            raise DataError(
                f"{where}: labels of {part} are {low} to {high}; {count} classes are numbered 0 to "
                f"{count - 1}",
                do=f"look at {part}[{wrong}], which has {int(labels[wrong])}: number the classes "
                f"from 0, alike in both parts{known}",
            )
    if names is None and count > len(train):  # they are numbers of something else
        raise DataError(
            f"{where}: labels of train go up to {count - 1:,}, of {len(train):,} images",
            do="number the classes from 0, without gaps",
        )
    missing = sorted({*range(count)} - {*train.tolist()})
    if missing:
        raise DataError(
            f"{where}: no image in train is of class {cut([str(each) for each in missing])}",
            do="number the classes from 0, without gaps",
        )
    return tuple(f"class {label}" for label in range(count)) if names is None else names


def _names(source: Any) -> Sequence[Any] | None:
    """The names that a dataset knows: torchvision's `classes`, Hugging Face's features."""
    while source is not None:
        features = getattr(source, "features", None)
        if isinstance(features, Mapping):
            return getattr(features.get(_first_of(LABEL_NAMES, features)), "names", None)
        found = getattr(source, "classes", None)
        if isinstance(found, list | tuple):
            return found
        source = getattr(source, "dataset", None)  # of a Subset
    return None


def numbered_otherwise(train: Any, test: Any) -> str:
    """Which number means another class in each of two datasets, as of folders of which one lacks a
    class; empty where none does, or where names are not known."""
    ours, theirs = (map(str, _names(each) or ()) for each in (train, test))
    for k, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            return f"class {k} is {one} in train, {other} in test"
    return ""


def _first_of(names: Sequence[str], among: Any) -> str:
    return next((name for name in names if name in among), "")
