"""Decoded datasets kept on disk, so that the next load neither decodes nor imports torchvision.

A copy is one uncompressed zip: `about.json` and the raw bytes of four arrays. The zip's CRC-32 of
each member is checked while it is read: at 1 GB/s and more it costs a third of a sha256, and what
it has to find is a torn or rotten file, not a forged one. What does not fit into memory is mapped.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from rich.filesize import decimal
from torch import Tensor

from bnbench import machine
from bnbench.data.dataset import Dataset, Images, images_of
from bnbench.errors import DataError
from bnbench.machine import fits

FORMAT = 1
_READ = 1 << 24  # bytes read at a time: no second copy of a large array is held


def cache_folder() -> Path:
    """The user's cache folder of bnbench. Raises DataError."""
    folder = machine.cache_folder()
    if folder is None:
        what = "there is no home folder, in which prepared data is kept"
        raise DataError(what, do="set HOME to a folder that can be written to")
    return folder


def require_disk(folder: Path, need: int, what: str) -> None:
    """Raises DataError, with the numbers, where so many bytes do not fit on a folder's disk."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(there).free
    if need > free:
        raise DataError(
            f"{what} needs {decimal(need)} on the disk of {folder}; {decimal(free)} are free",
            do="make room, use fewer or smaller images, or set XDG_CACHE_HOME to a folder on "
            "another disk",
        )


def prepared(
    path: Path,
    fingerprint: str,
    make: Callable[[], Dataset],
    announce: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
    *,
    required: bool = False,
) -> Dataset:
    """The copy at `path`, if it is of these originals; else what `make` makes, kept for next time.

    `check` may refuse to make it, before any folder is made. `required`: the images are read from
    the copy, and DataError is raised where none can be kept.
    """
    ready = _read(path, fingerprint, announce)
    if ready is not None:
        return ready
    check()
    with _exclusively(path, announce) as writable:
        # Another process may have prepared it while this one waited.
        ready = _read(path, fingerprint, lambda _: None)
        if ready is None:
            if required and not writable:
                _refuse(path, f"no prepared copy can be kept in {path.parent}")
            ready = made = make()
            said = partial(_refuse, path) if required else announce
            if writable:
                _keep(path, made, fingerprint, said)
            if required:
                del ready, made  # two of them may not fit into memory
                ready = _read(path, fingerprint, said)
    assert ready is not None, "a copy that was just written is read, or refused"
    return ready


def _refuse(path: Path, what: str) -> None:
    raise DataError(
        what, do=f"make {path.parent} writable, or set XDG_CACHE_HOME to another folder"
    )


def _read(path: Path, fingerprint: str, announce: Callable[[str], None]) -> Dataset | None:
    """The copy at `path`; None when there is none, a damaged one, or one of other originals."""
    try:
        with zipfile.ZipFile(path) as archive:
            about = json.loads(archive.read("about.json"))
            if about["format"] != FORMAT or about["fingerprint"] != fingerprint:
                return None
            values = sum(prod(shape) for shape in about["shape"].values())
            about["mapped"] = not fits(values * _dtype(about).itemsize)
            return Dataset(
                about["name"],
                tuple(about["classes"]),
                _read_images(archive, "train", about),
                _read_images(archive, "test", about),
                tuple(about["mean"]),
                tuple(about["std"]),
            )
    except FileNotFoundError:
        return None
    except Exception as error:  # damaged bytes make zipfile, json and zlib raise a dozen kinds
        announce(f"{path} cannot be read ({error}): making it again")
        return None


def _keep(path: Path, dataset: Dataset, fingerprint: str, announce: Callable[[str], None]) -> None:
    """Write the copy at `path`, whole or not at all; only while its lock is held.

    A copy only saves time: when there is no room for it, that is announced and nothing is raised.
    """
    temporary = path.with_name(path.name + ".tmp")
    parts = {"train": dataset.train, "test": dataset.test}
    about = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "name": dataset.name,
        "classes": dataset.classes,
        "mean": dataset.mean,
        "std": dataset.std,
        "shape": {part: list(images.pixels.shape) for part, images in parts.items()},
    }
    if dataset.train.pixels.dtype != torch.uint8:
        about["dtype"] = "float32"
    try:
        with temporary.open("wb") as stream:
            with zipfile.ZipFile(stream, "w") as archive:
                archive.writestr("about.json", json.dumps(about, indent=1))
                for part, images in parts.items():
                    _write(archive, f"{part}-pixels", images.pixels)
                    _write(archive, f"{part}-labels", images.labels)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        reason = error.strerror or error
        announce(f"no prepared copy of {dataset.name} is kept in {path.parent}: {reason}")


@contextmanager
def _exclusively(path: Path, announce: Callable[[str], None]) -> Iterator[bool]:
    """Hold the lock of `path`, after waiting for it if need be.

    Yields whether a copy can be written: in a folder where not even a lock can be made, none can.
    """
    lock = FileLock(path.with_name(path.name + ".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        announce(f"waiting for another process that prepares {path}")
        lock.acquire()
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _dtype(about: dict[str, Any]) -> np.dtype[Any]:
    return np.dtype(np.float32 if about.get("dtype") == "float32" else np.uint8)


def _read_images(archive: zipfile.ZipFile, part: str, about: dict[str, Any]) -> Images:
    shape, mapped = about["shape"][part], about["mapped"]
    labels = np.array(_member(archive, f"{part}-labels", shape[:1], np.dtype(np.int64)))
    pixels = _member(archive, f"{part}-pixels", shape, _dtype(about), checked=not mapped)
    return images_of(pixels if mapped else np.array(pixels), labels, mapped=mapped)


def _member(
    archive: zipfile.ZipFile,
    name: str,
    shape: list[int],
    dtype: np.dtype[Any],
    *,
    checked: bool = True,
) -> NDArray[Any]:
    """A member, mapped: of what stays on disk only what is used is read, and its CRC is not
    `checked`."""
    member, path = archive.getinfo(name), Path(str(archive.filename))
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)  # APPNOTE.TXT 4.3.7: lengths of name and extra field
        lengths = struct.unpack("<2H", file.read(4))
        if member.file_size != prod(shape) * dtype.itemsize or member.compress_type:
            raise ValueError(f"{name} has {member.file_size:,} bytes")
        start = member.header_offset + 30 + sum(lengths)
        array = np.memmap(file, dtype, "c", start, tuple(shape))
    if checked and zlib.crc32(array.data) != member.CRC:
        raise ValueError(f"the checksum of {name} is another")
    return array


def _write(archive: zipfile.ZipFile, name: str, tensor: Tensor) -> None:
    # A fixed date: the same data make the same file.
    member = zipfile.ZipInfo(name)
    # The header's 30 bytes, the name, 20 bytes of zip64 and this field: data start at a multiple of
    # 64, where floats can be mapped. 0xD935 is what Android's zipalign calls its padding.
    assert archive.fp is not None
    padding = -(archive.fp.tell() + 30 + len(name) + 20 + 4) % 64
    member.extra = struct.pack("<2H", 0xD935, padding) + bytes(padding)
    size = max(1, _READ // max(1, tensor[0].numel() * tensor.element_size()))
    with archive.open(member, "w", force_zip64=True) as stream:
        for part in tensor.split(size):  # type: ignore[no-untyped-call]
            stream.write(part.contiguous().numpy().reshape(-1).data.cast("B"))
