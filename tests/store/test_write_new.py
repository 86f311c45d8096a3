"""A new file of the user's: whole or not at all, and never over another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnbench.errors import StorageError
from bnbench.store import files, write_new


def test_a_new_file_is_written(tmp_path: Path) -> None:
    write_new(tmp_path / "new.pt", b"content")
    assert (tmp_path / "new.pt").read_bytes() == b"content"
    assert [path.name for path in tmp_path.iterdir()] == ["new.pt"]


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    path.write_bytes(b"old")
    with pytest.raises(StorageError, match="already exists"):
        write_new(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["old.pt"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        write_new(tmp_path / "none" / "new.pt", b"content")
    assert "choose another place" in str(caught.value)


def test_what_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(source: Path, target: Path) -> None:
        raise StorageError(f"{target}: not renamed from {source}")

    monkeypatch.setattr(files, "rename", fails)
    with pytest.raises(StorageError, match="not renamed"):
        write_new(tmp_path / "new.pt", b"content")
    assert list(tmp_path.iterdir()) == []


def test_two_processes_replace_the_same_file_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one replaces it just before our rename: the last one wins, and neither fails."""
    path, rename = tmp_path / "experiment.yaml", files.rename

    def after_the_other(source: Path, target: Path) -> None:
        monkeypatch.setattr(files, "rename", rename)
        files.replace_content(path, b"theirs")
        rename(source, target)

    monkeypatch.setattr(files, "rename", after_the_other)
    files.replace_content(path, b"ours")
    assert path.read_bytes() == b"ours"
    assert list(tmp_path.iterdir()) == [path]
