"""The file operations that everything on disk is made of.

Each one is a function of this module, so that a test can make any single one of them fail, tear
or kill. A failing one raises `StorageError` with the path and what to do.

A folder may come from someone else. No operation follows a link below the runs folder, and only
regular files are read. Nothing helps against a process that puts links there meanwhile.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from bnbench import regular
from bnbench.errors import StorageError
from bnbench.wording import printable

TEMPORARY = ".tmp"
ASIDE = ".damaged-"

ABANDONED = 3600.0
"""Seconds after which a temporary file belongs to no writer any more."""

SMALL, LARGE = 2**26, 2**33
"""Bytes that a file may have to be read: of JSON, YAML and pictures; of everything else."""

BLOCK = 2**20
"""Bytes of a long file that are read at a time."""


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
                do = "choose another place (of runs: --runs-dir), or change the permissions"
            case errno.EEXIST | errno.ENOTDIR | errno.EISDIR | errno.ELOOP | errno.ENAMETOOLONG:
                said = f"cannot be used ({said})"
                do = "look at what stands there, or choose another place (of runs: --runs-dir)"
            case _:
                pass
        shown = printable(re.sub(r"\.[0-9a-f]{16}\.tmp$", "", str(path)))
        raise StorageError(f"{shown}: {said}", do=do) from error


def refuse_link(path: Path) -> None:
    """Raise StorageError where `path` is a symbolic link: a foreign folder may lead anywhere."""
    if os.path.islink(path):  # noqa: PTH114  pathlib takes three times as long
        raise StorageError(
            f"{printable(str(path))} is a link, and links inside of a runs folder are not followed",
            do="put there what it leads to, or choose another place with --runs-dir",
        )


def status_of(path: Path) -> os.stat_result | None:
    """What the system says of a regular file in a folder that is no link; None where there is
    none. Raises StorageError for links, pipes, devices and folders."""
    refuse_link(path.parent)
    with translated(path), suppress(FileNotFoundError):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            refuse_link(path)
        if not stat.S_ISREG(status.st_mode):
            raise StorageError(f"{path} is not a regular file", do="remove it")
        return status
    return None


def make_folder(path: Path, *, inside: Path) -> None:
    """Make `path` and its parents; one that exists is fine, but no link from `inside` on."""
    for folder in (path, *path.parents)[: len(path.parts) - len(inside.parts) + 1]:
        refuse_link(folder)
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


@contextmanager
def _written(path: Path, content: bytes, *, synced: bool = True) -> Iterator[Path]:
    """A new file next to `path` that is to take its place; what fails inside leaves none.

    Its name is one that no other process has, and that nobody could foresee. `synced`: wait until
    it is on the disk.
    """
    name = path.name.replace("tfevents", "events")  # TensorBoard shows files named like that
    temporary = path.with_name(f"{name}.{secrets.token_hex(8)}{TEMPORARY}")
    try:
        with translated(temporary), temporary.open("xb") as file:
            file.write(content)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        yield temporary
    except StorageError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)  # on a full disk, its bytes are needed to say why
        raise


def overwrite(path: Path, content: bytes) -> None:
    """Give a file that must stay the same file, as a lock's must, new content."""
    status = status_of(path)
    if status is not None and status.st_nlink > 1:
        raise StorageError(f"{path} is also another file", do="remove it")
    with translated(path), path.open("r+b") as file:
        file.write(content)
        file.truncate()  # at the end: where it is as long as before, the disk has nothing to do


def append(path: Path, content: bytes) -> None:
    """Add to a file that several processes add to, or begin it; what is added stays together."""
    status_of(path)  # raises where it is a link
    with translated(path), path.open("ab", buffering=0) as file:
        file.write(content)


def rename(source: Path, target: Path) -> None:
    """Put `source` in the place of `target`, at once."""
    with translated(target):
        source.replace(target)


def remove(path: Path) -> None:
    """Remove a file, or a link and not what it leads to; one that is not there is fine."""
    refuse_link(path.parent)
    with translated(path):
        path.unlink(missing_ok=True)


def remove_all(folder: Path, pattern: str, *, but: Collection[str] = ()) -> None:
    """Remove what matches a pattern, but for folders and for what is named by its path below."""
    with translated(folder):
        there = sorted(folder.glob(pattern))
    for path in there:
        named = str(path.relative_to(folder)) in but
        if not named and (path.is_symlink() or not path.is_dir()):
            remove(path)


def ending_aside(folder: Path) -> str:
    """What is put after the names of damaged files, and stands after none in this folder."""
    with translated(folder):
        there = {path.name.rpartition(ASIDE)[2] for path in folder.glob(f"*{ASIDE}*")}
    return ASIDE + next(str(n) for n in count(1) if str(n) not in there)


def remove_leftovers(folder: Path) -> None:
    """Remove what writers that were killed have left: no write takes as long as `ABANDONED`."""
    with suppress(OSError, StorageError):
        for path in folder.glob(f"*{TEMPORARY}"):
            if time.time() - path.lstat().st_mtime > ABANDONED:
                remove(path)


def replace_content(
    path: Path, content: bytes, *, before: Path | None = None, synced: bool = True
) -> None:
    """Give `path` new content, whole or not at all.

    What was there is kept as `before`, where that is given. `synced`: wait until it is on the disk;
    else a power cut may leave an empty file.
    """
    refuse_link(path.parent)
    with _written(path, content, synced=synced) as temporary:
        if before is not None and path.exists():
            rename(path, before)
        rename(temporary, path)
    if synced:
        sync_folder(path.parent)


def write_new(path: Path, content: bytes) -> None:
    """Write a file of the user's choice that is not there yet, whole or not at all.

    Raises StorageError where it is.
    """
    try:
        with _written(path, content) as temporary:
            if path.exists():
                raise StorageError(f"{path} already exists")
            rename(temporary, path)
        sync_folder(path.parent)
    except StorageError as error:
        raise StorageError(error.what, do="choose another place or name for it") from error


def write_first(path: Path, content: bytes) -> None:
    """Write a file, whole, unless another process was before us."""
    refuse_link(path.parent)
    with _written(path, content) as temporary:
        with translated(path), suppress(FileExistsError):
            path.hardlink_to(temporary)
        remove(temporary)


def read(path: Path, *, follow: bool = False) -> bytes | None:
    """The content of a regular file of a size, or None where there is none.

    `follow`: links, too, since the user has named the file.
    """
    if not follow:
        refuse_link(path.parent)
        refuse_link(path)
    limit = SMALL if path.suffix in (".json", ".yaml", ".png") else LARGE
    with translated(path), suppress(FileNotFoundError):
        return regular.read(path, limit)
    return None


def blocks(path: Path, keep: int | None = None) -> Iterator[bytes]:
    """A regular file, a block at a time, or its first `keep` bytes; none where there is no file."""
    if status_of(path) is None:
        return
    left = LARGE if keep is None else keep
    with translated(path), regular.opened(path, LARGE) as file:
        while block := file.read(min(BLOCK, left)):
            left -= len(block)
            yield block


def tail(path: Path, length: int) -> bytes:
    """The last bytes of a regular file; none where there is no file."""
    if status_of(path) is None:
        return b""
    with translated(path), regular.opened(path, LARGE) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - length))
        return file.read(length)


def digested(path: Path, keep: int | None = None) -> hashlib._Hash:
    """The sha256 of `blocks`."""
    found = hashlib.sha256()
    for block in blocks(path, keep):
        found.update(block)
    return found


class Appender:
    """A file that only grows: append, and say when it must be on the disk."""

    def __init__(self, path: Path, *, keep: int = 0) -> None:
        """Open `path` and cut it to its first `keep` bytes."""
        self.path = path
        self._digest = digested(path, keep)
        status = status_of(path)
        if status is not None and status.st_nlink > 1:  # the other name keeps what it has
            replace_content(path, (read(path) or b"")[:keep])
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
        self._digest.update(content)
        with translated(self.path):
            while content:
                content = content[self._file.write(content) :]

    def sync(self) -> int:
        """Wait until all is on the disk; the length in bytes.

        Raises StorageError where somebody has removed, replaced or cut the file meanwhile.
        """
        with translated(self.path):
            os.fsync(self._file.fileno())
            length, ours = self._file.tell(), os.fstat(self._file.fileno())
            with suppress(FileNotFoundError):
                there = self.path.stat()
                if os.path.samestat(ours, there) and there.st_size == length:
                    return length
        raise StorageError(
            f"{self.path}: removed or changed while the run trained",
            do="the same command goes on from the last checkpoint, if it is as it was then",
        )

    def checksum(self) -> str:
        """The sha256, in hex, of everything that was kept and appended."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
