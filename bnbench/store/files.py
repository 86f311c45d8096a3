"""The file operations that everything on disk is made of.

Each one is a function of this module, so that a test can make any single one of them fail, tear
or kill. A failing one raises `StorageError` with the path and what to do.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bnbench.errors import StorageError

TEMPORARY = ".tmp"


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn an operating system's error about `path` into a sentence with what to do."""
    try:
        yield
    except OSError as error:
        said, do = f"{error.strerror or error}", None
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                said = "no space left on the disk"
                do = (
                    "free some space and run the same command again: it goes on from the last "
                    "checkpoint"
                )
            case errno.EROFS | errno.EACCES | errno.EPERM:
                said = f"not writable ({said})"
                do = "choose another place with --runs-dir, or change the permissions"
            case errno.EEXIST | errno.ENOTDIR | errno.EISDIR | errno.ELOOP | errno.ENAMETOOLONG:
                said = f"cannot be used ({said})"
                do = "look at what stands there, or choose another place with --runs-dir"
            case _:
                pass
        raise StorageError(f"{path}: {said}", do=do) from error


def make_folder(path: Path) -> None:
    """Make `path` and its parents; one that exists is fine."""
    with translated(path):
        path.mkdir(parents=True, exist_ok=True)


def sync_folder(path: Path) -> None:
    """Make renames inside `path` survive a power cut."""
    with translated(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file and wait until it is on the disk; what fails leaves no file."""
    try:
        with translated(path), path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except StorageError:
        with suppress(OSError):
            path.unlink(missing_ok=True)  # on a full disk, its bytes are needed to say what failed
        raise


def overwrite(path: Path, content: bytes) -> None:
    """Give a file that must stay the same file, as a lock's must, new content."""
    with translated(path), path.open("r+b") as file:
        file.truncate()
        file.write(content)


def rename(source: Path, target: Path) -> None:
    """Put `source` in the place of `target`, at once."""
    with translated(target):
        source.replace(target)


def remove(path: Path) -> None:
    """Remove a file; one that is not there is fine."""
    with translated(path):
        path.unlink(missing_ok=True)


def replace_content(path: Path, content: bytes) -> None:
    """Give `path` new content, whole or not at all, and wait until it is on the disk."""
    # A name of our own: two sweeps may begin the same experiment at once.
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    write_synced(temporary, content)
    rename(temporary, path)
    sync_folder(path.parent)


def write_new(path: Path, content: bytes) -> None:
    """Write a file that is not there yet, whole or not at all. Raises StorageError where it is."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        write_synced(temporary, content)
        if path.exists():
            raise StorageError(f"{path} already exists")
        rename(temporary, path)
        sync_folder(path.parent)
    except StorageError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageError(error.what, do="choose another place or name for it") from error


def read(path: Path) -> bytes | None:
    """The content of a file, or None where there is none."""
    with translated(path), suppress(FileNotFoundError):
        return path.read_bytes()
    return None


class Appender:
    """A file that only grows: append, and say when it must be on the disk."""

    def __init__(self, path: Path, *, keep: int) -> None:
        """Open `path` and cut it to its first `keep` bytes."""
        self.path = path
        with translated(path):
            # Without a buffer, so that nothing that could not be written is tried again by `close`.
            self._file = path.open("ab", buffering=0)
            try:
                self._file.truncate(keep)
                self._file.seek(keep)
            except OSError:
                self._file.close()
                raise

    def append(self, content: bytes) -> None:
        """Hand `content` to the operating system."""
        with translated(self.path):
            while content:
                content = content[self._file.write(content) :]

    def sync(self) -> int:
        """Wait until all is on the disk; the length in bytes."""
        with translated(self.path):
            os.fsync(self._file.fileno())
            return self._file.tell()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
