"""A run as it was found on disk."""

from __future__ import annotations

from dataclasses import dataclass

from bnbench.store.run_folder import Record, RunFolder, State


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One run: where it is, how it stands, what it was, how it ended."""

    folder: RunFolder
    state: State
    manifest: Record
    result: Record | None


def read_run(folder: RunFolder) -> StoredRun:
    """The run in this folder, from the evidence there. Raises StorageError."""
    return StoredRun(folder, folder.state(), folder.manifest() or {}, folder.result())
