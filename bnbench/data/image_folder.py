"""A user's own images: `root/train/<class>/*` and `root/test/<class>/*`.

Each image is turned as its EXIF data say, converted to RGB or gray (transparency is dropped, 16-bit
gray keeps its upper 8 bits), resized so that its short side has the asked size (bilinear with
antialiasing), and cropped in the middle: torchvision's Resize and CenterCrop. Of an animation the
first frame counts.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from bnbench import regular
from bnbench.data.dataset import Dataset, Images, moments, require_memory
from bnbench.data.prepared import cache_folder, prepared
from bnbench.errors import DataError
from bnbench.wording import counted

MAX_BYTES = 1_000_000_000  # of one image file
_NAMED = 10  # faulty files that a message lists before it only counts


Labelled = list[tuple[Path, int]]
"""The image files of one part, class by class, and the label of each."""


def load_image_folder(
    root: Path, *, image_size: int, channels: int, announce: Callable[[str], None]
) -> Dataset:
    """Images of (channels, image_size, image_size); classes are the folders of train, sorted.

    Decoded once and kept in the user's cache, until a file is added, removed or changed.
    """
    root = root.absolute()
    try:
        classes, train, test = _labelled(root)
        require_memory(len(train) + len(test), channels, image_size)
        fingerprint = _fingerprint(root, train + test, classes)
        key = hashlib.sha256(f"{root}\n{image_size}\n{channels}".encode()).hexdigest()[:16]
        kept = cache_folder() / "prepared" / f"image-folder-{key}.zip"

        def make() -> Dataset:
            announce(f"decoding {len(train) + len(test):,} images of {root}")
            return _decode_all(classes, train, test, image_size, channels)

        return prepared(kept, fingerprint, make, announce)
    except OSError as error:
        raise DataError(
            f"the images of {root} cannot be read: {error}", do="make them readable for this user"
        ) from error


# --- what is there ------------------------------------------------------------------------


def _labelled(root: Path) -> tuple[tuple[str, ...], Labelled, Labelled]:
    """The classes, and the images of train and test. The configuration has seen that there are
    some, and of how many classes; a class may be without images in test, not in train."""
    train, test = (regular.images_by_class(root / part) for part in ("train", "test"))
    if unknown := [name for name in test if name not in train]:
        raise DataError(
            f"{root / 'test'} has classes that train has not: {', '.join(unknown)}",
            do="name the class folders of train and test alike",
        )
    if empty := [name for name, paths in train.items() if not paths]:
        raise DataError(
            f"{root / 'train' / empty[0]} holds no images",
            do=f"add images ({', '.join(regular.IMAGE_SUFFIXES)}) or delete the folder",
        )
    labels = list(enumerate(train))
    return (
        tuple(train),
        [(path, label) for label, name in labels for path in train[name]],
        [(path, label) for label, name in labels for path in test.get(name, ())],
    )


def _fingerprint(root: Path, images: Labelled, classes: tuple[str, ...]) -> str:
    """sha256 over names, sizes and modification times: changes when a file does."""
    digest = hashlib.sha256(repr(classes).encode())
    for path, _ in images:
        try:
            about = path.stat()
        except OSError:
            continue  # a dangling link, say: decoding names it, and then nothing is kept
        line = f"{path.relative_to(root)}\0{about.st_size}\0{about.st_mtime_ns}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


# --- decoding -----------------------------------------------------------------------------


def _decode_all(
    classes: tuple[str, ...], train: Labelled, test: Labelled, image_size: int, channels: int
) -> Dataset:
    paths, labels = zip(*train, *test, strict=True)
    pixels = np.empty((len(paths), channels, image_size, image_size), np.uint8)
    faults: dict[Path, str] = {}

    def decode(index: int) -> None:
        try:
            pixels[index] = _decode(paths[index], image_size, channels)
        except Exception as error:  # Pillow's formats raise whatever a damaged file leads to
            faults[paths[index]] = str(error) or type(error).__name__

    # Threads: Pillow lets go of the interpreter's lock while it decodes and resizes.
    # Its warnings (very large, transparency dropped) name no file; what it refuses is named below.
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")
        for _ in pool.map(decode, range(len(paths))):
            pass
    if faults:
        raise _unreadable(faults)
    x, y, n = torch.from_numpy(pixels), torch.tensor(labels), len(train)
    parts = Images(x[:n], y[:n]), Images(x[n:], y[n:])
    return Dataset("image-folder", classes, *parts, *moments(x[:n]))


def _decode(path: Path, image_size: int, channels: int) -> NDArray[np.uint8]:
    """(channels, image_size, image_size) of one file."""
    with regular.opened(path, MAX_BYTES) as file, Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I;16"):
            # Pillow's own conversion would clip everything above to 255.
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        elif image.mode in ("I", "F"):
            raise ValueError(f"pixels of mode {image.mode} (32 bits) have no fixed range")
        image = image.convert("RGB" if channels == 3 else "L")
    width, height = image.size
    short = min(width, height)
    resized = (image_size * width // short, image_size * height // short)
    image = image.resize(resized, Image.Resampling.BILINEAR)
    left, top = (round((side - image_size) / 2) for side in resized)
    image = image.crop((left, top, left + image_size, top + image_size))
    array = np.asarray(image)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def _unreadable(faults: dict[Path, str]) -> DataError:
    lines = [f"{path}: {faults[path]}" for path in sorted(faults)[:_NAMED]]
    if len(faults) > _NAMED:
        lines.append(f"and {len(faults) - _NAMED:,} more")
    lines.insert(0, f"{counted(len(faults), 'image')} cannot be read:")
    return DataError("\n  ".join(lines), do="replace or delete what is listed")
