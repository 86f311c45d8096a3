"""Files that others have written: which images a folder holds; reading regular files up to a size.

A pipe would be waited for, and a device read until memory ends.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from pathlib import Path
from typing import BinaryIO

_CHUNK = 1 << 16  # bytes taken from a pipe at a time
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".webp"),
    *(".gif", ".ppm", ".pgm", ".tif", ".tiff"),
)
"""What `data` takes for an image."""


def images_by_class(folder: Path) -> dict[str, list[Path]]:
    """The images in each subfolder, by its name, both sorted; nothing hidden. Raises OSError."""
    found: dict[str, list[Path]] = {}
    for inner in sorted(folder.iterdir()):
        if inner.is_dir() and not inner.name.startswith("."):
            files = (path for path in inner.iterdir() if not path.name.startswith("."))
            found[inner.name] = sorted(p for p in files if p.suffix.lower() in IMAGE_SUFFIXES)
    return found


def opened(path: Path | str, limit: int) -> BinaryIO:
    """A regular file of at most `limit` bytes, to read. Raises OSError, and never waits."""
    file = _open(path)
    try:
        _size(file, limit)
    except OSError:
        file.close()
        raise
    return file


def read(path: Path | str, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes. Raises OSError."""
    content = b""
    with _open(path, buffering=0) as file:  # a buffer costs half as much as all else of a small one
        size = _size(file, limit)
        # Memory for what is there, not for the limit.
        while len(content) <= size and (more := file.read(size + 1 - len(content))):
            content += more
        if len(content) > size:  # it has grown
            content += file.read(limit)
    if len(content) > limit:
        raise _too_large(limit)
    return content


def read_piped(path: Path | str, limit: int, seconds: float) -> bytes:
    """As `read`, but of a pipe as well, which may be silent for so many seconds at a time."""
    with _open(path) as file:
        pipe = stat.S_ISFIFO(os.fstat(file.fileno()).st_mode)
        content = b""
        while pipe and len(content) <= limit:
            if not select.select([file], [], [], seconds)[0]:
                raise OSError(errno.ETIMEDOUT, f"nothing came through this pipe for {seconds:g} s")
            chunk = os.read(file.fileno(), _CHUNK)
            if not chunk:
                return content
            content += chunk
    if pipe:
        raise _too_large(limit)
    return read(path, limit)


def _open(path: Path | str, buffering: int = -1) -> BinaryIO:
    # Without O_NONBLOCK, opening a pipe waits for whoever writes into it.
    nonblocking = getattr(os, "O_NONBLOCK", 0)
    return open(
        path, "rb", buffering, opener=lambda name, flags: os.open(name, flags | nonblocking)
    )


def _size(file: BinaryIO, limit: int) -> int:
    """Bytes of a regular file. Raises OSError where it is none, or has more than `limit`."""
    about = os.fstat(file.fileno())
    if not stat.S_ISREG(about.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    if about.st_size > limit:
        raise _too_large(limit)
    return about.st_size


def _too_large(limit: int) -> OSError:
    return OSError(errno.EFBIG, f"it is larger than {limit:,} bytes")
