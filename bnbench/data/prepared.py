"""Decoded datasets kept on disk, so that the next load neither decodes nor imports torchvision.

A copy is one uncompressed zip: `about.json` and the raw bytes of four arrays. The zip's CRC-32 of
each member is checked while it is read: at 1 GB/s and more it costs a third of a sha256, and what
it has to find is a torn or rotten file, not a forged one.
"""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from bnbench.data.dataset import Dataset, Images
from bnbench.errors import DataError

FORMAT = 1
_READ = 1 << 24  # bytes read at a time: no second copy of a large array is held


def cache_folder() -> Path:
    """The user's cache folder of bnbench, by the custom of the platform. Raises DataError."""
    try:
        home = Path.home()
    except RuntimeError:
        what = "there is no home folder, in which prepared data is kept"
        raise DataError(what, do="set HOME to a folder that can be written to") from None
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "bnbench"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "bnbench"
    # https://specifications.freedesktop.org/basedir-spec: relative paths are to be ignored.
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else home / ".cache") / "bnbench"


def prepared(
    path: Path,
    fingerprint: str,
    make: Callable[[], Dataset],
    announce: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
) -> Dataset:
    """The copy at `path`, if it is of these originals; else what `make` makes, kept for next time.

    `check` may refuse to make it, before any folder is made.
    """
    ready = _read(path, fingerprint, announce)
    if ready is not None:
        return ready
    check()
    with _exclusively(path, announce) as writable:
        # Another process may have prepared it while this one waited.
        ready = _read(path, fingerprint, lambda _: None)
        if ready is None:
            ready = make()
            if writable:
                _keep(path, ready, fingerprint, announce)
    return ready


def _read(path: Path, fingerprint: str, announce: Callable[[str], None]) -> Dataset | None:
    """The copy at `path`; None when there is none, a damaged one, or one of other originals."""
    try:
        with zipfile.ZipFile(path) as archive:
            about = json.loads(archive.read("about.json"))
            if about["format"] != FORMAT or about["fingerprint"] != fingerprint:
                return None
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


def _read_images(archive: zipfile.ZipFile, part: str, about: dict[str, Any]) -> Images:
    shape = about["shape"][part]
    pixels = np.empty(shape, np.uint8)
    labels = np.empty(shape[0], np.int64)
    _fill(archive, f"{part}-pixels", pixels)
    _fill(archive, f"{part}-labels", labels)
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels))


def _fill(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    flat = array.reshape(-1).data.cast("B")
    done = 0
    with archive.open(name) as stream:
        while part := stream.read(_READ):
            flat[done : done + len(part)] = part
            done += len(part)
    if done != len(flat):
        raise ValueError(f"{name} has {done:,} bytes instead of {len(flat):,}")


def _write(archive: zipfile.ZipFile, name: str, tensor: Tensor) -> None:
    flat = tensor.contiguous().numpy().reshape(-1).data.cast("B")
    # A fixed date: the same data make the same file.
    with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as stream:
        for start in range(0, len(flat), _READ):
            stream.write(flat[start : start + _READ])
