"""Run folders: states from evidence, checkpoints that survive, errors that say what to do."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import multiprocessing
import os
from multiprocessing.synchronize import Event as ProcessEvent
from pathlib import Path
from typing import Any

import pytest
import torch

from bnbench import store
from bnbench.errors import HeldError, StorageError
from bnbench.store import RunFolder, encode_records
from tests.processes import LIMIT
from tests.runs import MANIFEST, a_result

PICTURE = b"\x89PNG\r\n\x1a\n and so on IEND\xaeB`\x82"
FINISHED = {"event": "finished", "step": 1, "examples": 8, "train_seconds": 0.5}


def lines(*events: dict[str, Any]) -> bytes:
    """Events at the end of a run, but for what they say themselves."""
    return encode_records(FINISHED | each for each in events)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run that has begun."""
    folder = RunFolder(tmp_path / "bn_s00_01234567")
    folder.begin(config_text="a: 1\n", manifest=MANIFEST)
    return folder


def test_states_follow_the_evidence(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run_s00_01234567")
    assert store.read(folder).state == "new"
    folder.begin(config_text="a: 1\n", manifest=MANIFEST)
    assert store.read(folder).state == "new"
    metrics = folder.metrics(keep=0)
    assert store.read(folder).state == "interrupted"
    metrics.append(lines({"event": "finished"}))
    metrics.close()
    folder.fail({"message": "broken"})
    assert store.read(folder).state == "failed"
    folder.begin(config_text="a: 1\n", manifest=MANIFEST)
    assert store.read(folder).state == "interrupted", "a new attempt forgets the last one's error"
    folder.fail({"message": "broken"})
    folder.finish(a_result(state="diverged", step=3, reason="too large", scores={}))
    assert store.read(folder).state == "diverged"
    folder.finish(a_result())
    assert store.read(folder).state == "completed"
    folder.clear()
    assert store.read(folder).state == "new"


def hold(path: Path, held: ProcessEvent, release: ProcessEvent) -> None:
    """Hold a run in a process of its own until told to let go."""
    with RunFolder(path).hold():
        held.set()
        release.wait(LIMIT)


def test_a_held_run_is_running_and_refused_until_its_holder_is_gone(folder: RunFolder) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(folder.path, held, release), daemon=True)
    holder.start()
    assert held.wait(LIMIT)
    assert store.read(folder).state == "running"
    with pytest.raises(HeldError) as refused, folder.hold():
        pytest.fail("two processes hold one run")
    assert str(refused.value) == (
        f"{folder.path} is held by another process (id {holder.pid})\n"
        "  wait for it to end; the same command then goes on from where it stopped"
    )
    assert refused.value.exit_code == 3
    holder.kill()  # the lock dies with its holder
    holder.join()
    with folder.hold():
        pass
    assert store.read(folder).state == "new"


def content(value: float) -> bytes:
    """A small checkpoint, as torch writes it."""
    buffer = io.BytesIO()
    torch.save({"weights": torch.full((64,), value)}, buffer)
    return buffer.getvalue()


def test_the_last_two_checkpoints_are_kept(folder: RunFolder) -> None:
    assert folder.checkpoint() is None
    for value in (1.0, 2.0, 3.0):
        folder.commit(content(value))
    told: list[str] = []
    assert folder.checkpoint(told.append) == content(3.0)
    (folder.path / "checkpoint.pt").unlink()
    assert folder.checkpoint(told.append) == content(2.0)
    assert told == []


def test_torch_reads_a_checkpoint_without_us(folder: RunFolder) -> None:
    folder.commit(content(7.0))
    state = torch.load(folder.path / "checkpoint.pt", weights_only=True)
    assert torch.equal(state["weights"], torch.full((64,), 7.0))


@pytest.mark.parametrize("kept", [0, 1, 100, -65, -64, -40, -1])
def test_a_truncated_checkpoint_falls_back_to_the_one_before(folder: RunFolder, kept: int) -> None:
    folder.commit(content(1.0))
    folder.commit(content(2.0))
    path = folder.path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:kept])
    damaged = path.read_bytes()
    told: list[str] = []
    assert folder.recover(told.append) == content(1.0)
    name = "checkpoint.pt.damaged-1"
    assert told == [f"{path} is damaged: using checkpoint.prev.pt; it is renamed to {name}"]
    # The damaged one must not take the whole one's place at the next commit.
    assert not path.exists()
    assert (folder.path / name).read_bytes() == damaged
    assert folder.recover(told.append) == content(1.0)
    assert len(told) == 1


def test_any_flipped_bit_is_noticed(folder: RunFolder) -> None:
    folder.commit(content(1.0))
    path = folder.path / "checkpoint.pt"
    whole = path.read_bytes()
    for position in range(0, len(whole), 17):
        broken = bytearray(whole)
        broken[position] ^= 1 << (position % 8)
        path.write_bytes(broken)
        with pytest.raises(StorageError) as refused:
            folder.checkpoint()
        assert str(refused.value) == (
            f"{folder.path}: checkpoint.pt damaged, no whole checkpoint left\n"
            "  train the run from its beginning with --restart"
        )


def test_metrics_torn_at_every_byte_of_the_last_line(folder: RunFolder) -> None:
    step = {"event": "step", "step": 1, "examples": 8, "train_seconds": 0.5, "lr": 0.1}
    records = [step | {"loss": None, "loss_max": None}, step | {"loss": 1, "loss_max": 1, "é": 1}]
    file = folder.metrics(keep=0)
    file.append(encode_records(records))
    length = file.sync()
    file.close()
    path = folder.path / "metrics.jsonl"
    whole = path.read_bytes()
    assert length == len(whole)
    assert list(folder.records()) == records
    first = len(encode_records(records[:1]))
    for size in range(first, len(whole)):
        path.write_bytes(whole[:size])
        assert list(folder.records()) == records[:1]


def test_a_damaged_line_in_the_middle_is_said(folder: RunFolder) -> None:
    path = folder.path / "metrics.jsonl"
    path.write_bytes(lines(FINISHED) + b'{"step\n' + lines(FINISHED))
    with pytest.raises(StorageError, match=r"metrics\.jsonl:2: not a JSON event"):
        list(folder.records())


def test_appending_goes_on_behind_what_is_kept(folder: RunFolder) -> None:
    file = folder.metrics(keep=0)
    file.append(encode_records([{"event": "a"}, {"event": "b"}, {"event": "c"}]))
    file.close()
    file = folder.metrics(keep=30)
    file.append(encode_records([{"event": "new"}]))
    assert file.sync() == 47
    path = folder.path / "metrics.jsonl"
    assert path.read_bytes() == encode_records([{"event": "a"}, {"event": "b"}, {"event": "new"}])
    assert file.checksum() == hashlib.sha256(path.read_bytes()).hexdigest()
    file.close()


@pytest.mark.parametrize(
    "content", [b"", b'{"a": 1}\n', b'{"a": 1}\n{"a": 2} ', b"\0" * 18, b"7\n" * 9]
)
def test_events_that_a_checkpoint_counts_must_be_there(folder: RunFolder, content: bytes) -> None:
    path = folder.path / "metrics.jsonl"
    path.write_bytes(content)
    with pytest.raises(StorageError) as refused:
        folder.metrics(keep=18)
    said = str(refused.value).splitlines()
    assert said[0].startswith(f"{path}:")
    assert said[1:] == ["  train the run again with --restart"]
    assert path.read_bytes() == content, "what is left is not touched"


def test_events_are_strict_json() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_records([{"loss": float("nan")}])


def test_begin_removes_left_over_temporary_files(folder: RunFolder) -> None:
    left = folder.path / "checkpoint.pt.tmp"
    left.write_bytes(b"half")
    folder.begin(config_text="a: 1\n", manifest=MANIFEST)
    assert not left.exists()


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (
            errno.ENOSPC,
            "no space left on the disk\n  free some space and run the same command again: it "
            "goes on from the last checkpoint",
        ),
        (
            errno.EROFS,
            "not writable (Read-only file system)\n  choose another place (of runs: --runs-dir), "
            "or change the permissions",
        ),
        (errno.EIO, "Input/output error"),
    ],
)
def test_what_the_disk_says_becomes_a_sentence(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    folder.commit(content(1.0))

    def broken(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", broken)
    with pytest.raises(StorageError) as refused:
        folder.commit(content(2.0))
    assert str(refused.value) == f"{folder.path / 'checkpoint.pt'}: {message}"
    assert refused.value.exit_code == 4
    assert folder.checkpoint() == content(1.0), "what was committed stays readable"


def test_damaged_json_names_the_file(folder: RunFolder) -> None:
    (folder.path / "result.json").write_text("{")
    with pytest.raises(StorageError, match=r"result\.json: not JSON"):
        folder.result()
    (folder.path / "result.json").write_text("[]")
    with pytest.raises(StorageError, match=r"result\.json: not a JSON object"):
        folder.result()


def test_json_files_are_replaced_whole(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.finish(a_result(steps=1))

    def torn(descriptor: int) -> None:
        os.ftruncate(descriptor, 1)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", torn)
    with pytest.raises(KeyboardInterrupt):
        folder.finish(a_result(steps=2))
    assert json.loads((folder.path / "result.json").read_text())["steps"] == 1


def test_views_are_replaced_by_pattern_and_cleared(folder: RunFolder) -> None:
    folder.replace_views("*.hparams", "events.out.tfevents.0.a.hparams", b"first")
    (folder.path / "events.out.tfevents.1.host").write_bytes(b"scalars")
    folder.replace_views("*.hparams", "events.out.tfevents.0.b.hparams", b"second")
    assert [(path.name, path.read_bytes()) for path in folder.views()] == [
        ("events.out.tfevents.0.b.hparams", b"second"),
        ("events.out.tfevents.1.host", b"scalars"),
    ]
    folder.keep_first_batch(PICTURE[:-1])
    assert folder.first_batch() is None, "a torn one is as none"
    folder.keep_first_batch(PICTURE)
    assert folder.first_batch() == PICTURE
    folder.clear_views()
    assert folder.views() == []
    assert folder.first_batch() == PICTURE, "what views are made from stays"
    folder.clear()
    assert folder.first_batch() is None
