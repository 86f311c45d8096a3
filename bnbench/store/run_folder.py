"""One run, one folder, one holder: its files, how they are read and written."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bnbench.errors import DamagedError, HeldError, StorageError
from bnbench.store import files, lines, record
from bnbench.store.record import Record, Result, damaged

CONFIG = "config.yaml"
MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
CHECKPOINT = "checkpoint.pt"
PREVIOUS = "checkpoint.prev.pt"
RESULT = "result.json"
ERROR = "error.json"
LOCK = "lock"
FIRST_BATCH = "first_batch.png"
PICTURE = "picture_"
EVENT_FILES = "events.out.tfevents.*"
MADE = (RESULT, CHECKPOINT, PREVIOUS, METRICS, ERROR, MANIFEST, CONFIG)
"""What training makes, but for pictures and views; the result first."""
SEALED = (CONFIG, MANIFEST, METRICS)
"""What a result rests on, and what is not written again once there is one."""
METRICS_BYTES = "metrics_bytes"
"""In a seal, how long the events are: that can be compared without reading them."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run. Reading needs no lock; writing needs `hold`."""

    path: Path

    @property
    def name(self) -> str:
        """The run's id."""
        return self.path.name

    @contextmanager
    def hold(self, *, wait_seconds: float = 0.5) -> Iterator[None]:
        """Hold the run, so that no other process trains it; the hold ends with the process.

        The default wait outlasts a `status` that looks at the lock. Raises HeldError.
        """
        from filelock import FileLock, Timeout  # slow to import

        self._make()
        files.status_of(self.path / LOCK)  # raises where it is something else
        lock = FileLock(self.path / LOCK)
        with files.translated(self.path / LOCK):
            try:
                lock.acquire(timeout=wait_seconds, poll_interval=0.05)
            except Timeout:
                holder = "unknown"
                with suppress(StorageError, ValueError):
                    holder = str(int(files.read(self.path / LOCK) or b""))
                raise HeldError(
                    f"{self.path} is held by another process (id {holder})",
                    do="wait for it to end; the same command then goes on from where it stopped",
                ) from None
        with suppress(StorageError):  # only for the sentence above
            files.overwrite(self.path / LOCK, f"{os.getpid()}\n".encode())
        try:
            yield
        finally:
            lock.release()

    def held(self) -> bool:
        """Whether some process trains this run now."""
        if files.status_of(self.path / LOCK) is None:
            return False
        from filelock import FileLock, Timeout  # slow to import: `status` seldom gets here

        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        except OSError:
            return False  # a read-only disk: nobody can hold it
        lock.release()
        return False

    def has_begun(self) -> bool:
        """Whether it says what the run was started with."""
        return (self.path / MANIFEST).exists()

    def is_saved(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return (self.path / CHECKPOINT).exists()

    def committed(self) -> tuple[int | None, ...]:
        """Changes with every commit, and when the run ends."""
        found = (files.status_of(self.path / name) for name in (CHECKPOINT, RESULT))
        return tuple(about and about.st_ino for about in found)

    def config_text(self) -> str | None:
        """The resolved configuration as YAML, or None."""
        content = files.read(self.path / CONFIG)
        try:
            return None if content is None else content.decode()
        except UnicodeDecodeError as error:
            raise damaged(self.path / CONFIG, f"not text ({error.reason})") from error

    def manifest(self) -> Record | None:
        """What the run was started with, or None."""
        path = self.path / MANIFEST
        return record.manifest_in(path, files.read(path))

    def manifest_or_none(self) -> Record | None:
        """The manifest, or None where it is missing or damaged: for what can do without."""
        with suppress(StorageError):
            return self.manifest()
        return None

    def result(self) -> Result | None:
        """How the run ended, or None."""
        found = self._json(RESULT)
        try:
            return None if found is None else Result.from_record(found)
        except ValueError as error:
            raise damaged(self.path / RESULT, str(error)) from error

    def error(self) -> Record | None:
        """Why the last attempt failed, or None."""
        return self._json(ERROR)

    def first_batch(self) -> bytes | None:
        """A PNG of the first images that are trained on, or None where there is no whole one."""
        return self._pictures(FIRST_BATCH).get(FIRST_BATCH)

    def pictures(self) -> dict[str, bytes]:
        """PNGs that were drawn of the run when it had ended, by name; those that are whole."""
        found = self._pictures(f"{PICTURE}*.png").items()
        return {name[len(PICTURE) : -len(".png")]: content for name, content in found}

    def _pictures(self, pattern: str) -> dict[str, bytes]:
        found = self._contents(pattern).items()
        return {name: png for name, png in found if record.is_png(png)}

    def views(self) -> list[Path]:
        """TensorBoard's files, sorted by name."""
        return self._files(EVENT_FILES)

    def records(self, *, without: Collection[str] = ()) -> Iterator[Record]:
        """The events, oldest first. A last line that is still being written is left out.

        `without`: kinds of events that are not wanted; lines of theirs are not even decoded.
        """
        return lines.events(self.path / METRICS, without)

    def latest(self) -> list[Record]:
        """The last few events, whole ones, whatever the length of the file: for a live view."""
        return lines.latest(self.path / METRICS)

    def size(self) -> int:
        """Bytes of all its files."""
        with files.translated(self.path):
            return sum(path.stat().st_size for path in self._files("*"))

    def checkpoint(self, tell: Callable[[str], object] = lambda _: None) -> bytes | None:
        """The last committed state, or the one before where the last is damaged, which is told.

        Raises StorageError where there are checkpoints and none of them is whole.
        """
        damaged: list[str] = []
        for name in (CHECKPOINT, PREVIOUS):
            sealed = files.read(self.path / name)
            content = None if sealed is None else record.unsealed(sealed)
            if content is not None:
                for each in damaged:
                    tell(f"{self.path / each} is damaged: using {name}")
                return content
            damaged += [name] if sealed is not None else []
        if damaged:
            raise DamagedError(
                f"{self.path}: {' and '.join(damaged)} damaged, no whole checkpoint left",
                do="train the run from its beginning with --restart",
            )
        return None

    def begin(self, *, config_text: str, manifest: Record) -> None:
        """Start or resume an attempt: store what is trained, remove the last attempt's error."""
        self._make()
        files.remove_all(self.path, f"*{files.TEMPORARY}")
        if self.config_text() != config_text:
            files.replace_content(self.path / CONFIG, config_text.encode())
        files.replace_content(self.path / MANIFEST, record.encode(manifest))
        files.remove(self.path / ERROR)

    def last_state(self) -> dict[str, bytes] | None:
        """What another folder of the same run can `adopt`: the events, and the last state that was
        committed; None where there is none. Raises StorageError as `checkpoint` does."""
        if (checkpoint := self.checkpoint()) is None:
            return None
        found = {
            METRICS: files.read(self.path / METRICS),
            FIRST_BATCH: self.first_batch(),
            CHECKPOINT: record.sealed(checkpoint),
        }
        return {name: content for name, content in found.items() if content is not None}

    def recover(self, tell: Callable[[str], object]) -> bytes | None:
        """`checkpoint`, to go on from: a damaged one is renamed, so that the next commit does not
        keep it instead of the whole one."""
        told: list[str] = []
        found = self.checkpoint(told.append)
        for warning in told:
            name = CHECKPOINT + files.ending_aside(self.path)
            files.rename(self.path / CHECKPOINT, self.path / name)
            tell(f"{warning}; it is renamed to {name}")
        return found

    def metrics(self, keep: int = 0, checksum: str | None = None) -> files.Appender:
        """`metrics.jsonl` for appending, cut to its first `keep` bytes.

        Raises DamagedError where these are not whole events, or have another checksum.
        """
        path = self.path / METRICS
        for _ in lines.events(path, counted=keep):
            pass  # raises where a line is damaged
        if checksum not in (None, files.digested(path, keep).hexdigest()):
            raise damaged(path, "changed since the checkpoint")
        return files.Appender(path, keep=keep)

    def commit(self, content: bytes) -> None:
        """Make `content` the run's checkpoint; the one before stays as `checkpoint.prev.pt`.

        When this returns it is on the disk. Killed at any moment, one of the two is whole.
        """
        sealed = record.sealed(content)
        files.replace_content(self.path / CHECKPOINT, sealed, before=self.path / PREVIOUS)

    def finish(self, result: Result, *, checksum: str | None = None) -> None:
        """Store the result, sealed with what it rests on: from now on the run is done.

        Raises DamagedError where the events do not have the checksum that is given.
        """
        seal: Record = {name: files.digested(self.path / name).hexdigest() for name in SEALED}
        if checksum not in (None, seal[METRICS]):
            raise damaged(self.path / METRICS, "changed while the run trained")
        about = files.status_of(self.path / METRICS)
        seal[METRICS_BYTES] = 0 if about is None else about.st_size
        files.replace_content(self.path / RESULT, record.encode(result.sealed(seal)))
        with suppress(StorageError):  # it only takes up space
            files.remove(self.path / PREVIOUS)

    def fail(self, error: Record) -> None:
        """Store why this attempt failed, unless the run already has a result."""
        if not (self.path / RESULT).exists():
            files.replace_content(self.path / ERROR, record.encode(error))

    def forget_error(self) -> None:
        """Let the next attempt decide again whether the run fails."""
        files.remove(self.path / ERROR)

    def contents(self) -> dict[str, bytes]:
        """All its files by name, but for the lock and files that are still being written."""
        found = self._contents("*").items()
        left_out = (LOCK, files.TEMPORARY)
        return {name: content for name, content in found if not name.endswith(left_out)}

    def adopt(self, contents: Mapping[str, bytes]) -> None:
        """Store the `contents` of a copy of this folder in which the run has continued.

        Killed at any moment, the run can continue: events are stored before the checkpoint that
        counts them, the result last.
        """
        self._make()
        files.remove_all(self.path, f"*{files.TEMPORARY}")
        if ERROR not in contents:
            files.remove(self.path / ERROR)
        last = (METRICS, PREVIOUS, CHECKPOINT, ERROR, RESULT)
        first = [name for name in contents if name not in last]
        for name in (*first, *(name for name in last if name in contents)):
            files.replace_content(self.path / name, contents[name])
        files.remove_all(self.path, EVENT_FILES, but=contents)
        if RESULT in contents and PREVIOUS not in contents:
            files.remove(self.path / PREVIOUS)

    def keep_first_batch(self, png: bytes) -> None:
        """Keep a picture of the first images that are trained on, which is worth no wait for the
        disk: one that a power cut has torn is not shown."""
        files.replace_content(self.path / FIRST_BATCH, png, synced=False)

    def keep_pictures(self, pngs: Mapping[str, bytes]) -> None:
        """Keep pictures of the run, by name."""
        for name, png in pngs.items():
            files.replace_content(self.path / f"{PICTURE}{name}.png", png)

    def replace_views(self, pattern: str, name: str, content: bytes) -> None:
        """Replace those of TensorBoard's files that match a pattern by this one.

        Of two thousand runs, waiting for the disk would take most of the time, and a view that is
        lost is made again.
        """
        files.replace_content(self.path / name, content, synced=False)
        files.remove_all(self.path, pattern, but=(name,))

    def clear_views(self) -> None:
        """Remove TensorBoard's files: a view, rebuilt from the events."""
        files.remove_all(self.path, EVENT_FILES)

    def _make(self) -> None:
        files.make_folder(self.path, inside=self.path.parent)

    def _files(self, pattern: str) -> list[Path]:
        files.refuse_link(self.path)
        with files.translated(self.path):
            found = sorted(self.path.glob(pattern))
            return [path for path in found if path.is_file() and not path.is_symlink()]

    def _contents(self, pattern: str) -> dict[str, bytes]:
        read = {path.name: files.read(path) for path in self._files(pattern)}
        return {name: content for name, content in read.items() if content is not None}

    def clear(self) -> bool:
        """Throw the earlier attempt away; whether there was one. The lock stays.

        The result is removed first: without it the run counts as unfinished.
        """
        there = any((self.path / name).exists() for name in MADE)
        for name in MADE:
            files.remove(self.path / name)
        for pattern in (FIRST_BATCH, f"{PICTURE}*.png", EVENT_FILES):
            files.remove_all(self.path, pattern)
        return there

    def _json(self, name: str) -> Record | None:
        return record.parsed(self.path / name, files.read(self.path / name))
