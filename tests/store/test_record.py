"""What the files of a run say, read once and typed."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from bnbench import store
from bnbench.errors import StorageError
from bnbench.store import files
from tests.runs import MANIFEST, a_result

FINISHED = {"event": "finished", "step": 16, "examples": 128, "train_seconds": 1.0}
DIVERGED = a_result(state="diverged", step=3, reason="loss is not finite", scores={})


def begun(path: Path, manifest: dict[str, Any] = MANIFEST) -> store.RunFolder:
    folder = store.RunFolder(path / "bn_s00_01234567")
    folder.begin(config_text="a: 1\n", manifest=manifest)
    (folder.path / "metrics.jsonl").write_bytes(store.encode_records([FINISHED]))
    return folder


@pytest.mark.parametrize(
    "result", [a_result(), DIVERGED, a_result(scores={"val": {}, **a_result().scores})]
)
def test_a_result_is_the_same_after_a_round_trip(tmp_path: Path, result: store.Result) -> None:
    folder = begun(tmp_path)
    folder.finish(result)
    record = store.read(folder)
    assert (record.state, record.result) == (result.state, result)
    kept = json.loads((folder.path / "result.json").read_text())
    sealed = ["config.yaml", "manifest.json", "metrics.jsonl", "metrics_bytes", "result"]
    assert sorted(kept.pop("seal")) == sealed
    assert list(kept.items()) == list(json.loads(json.dumps(result.as_record())).items())


@pytest.mark.parametrize(
    "change",
    [
        {"state": "finished"},
        {"steps": "16"},
        {"wall_seconds": True},
        {"images_per_second": None},
        {"val": {}},
        {"test": None},
        {"train": {"running": 1}},
        {"val": {"running": {"loss": "x", "accuracy": 0.5}}},
        {"test": {"running": {"loss": 0.5}}},
    ],
)
def test_what_is_not_a_result_is_damaged(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = begun(tmp_path)
    (folder.path / "result.json").write_text(json.dumps(a_result().as_record() | change))
    record = store.read(folder)
    assert record.state == "damaged"
    assert record.result is None
    assert record.problem == f"{folder.path / 'result.json'}: not a result"


def test_a_run_says_why_it_failed(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    folder.fail({"message": "broken", "of_the_machine": True})
    record = store.read(folder)
    assert (record.state, record.problem) == ("failed", "broken")
    assert record.error == {"message": "broken", "of_the_machine": True}
    (folder.path / "error.json").write_text("[]")
    assert store.read(folder).state == "damaged"
    folder.finish(DIVERGED)
    record = store.read(folder)
    assert record.result is not None, "the result counts, whatever an earlier attempt left"
    assert record.result.divergence == "step 3: loss is not finite"


def test_manifest_and_events_are_read_when_asked_for(tmp_path: Path) -> None:
    record = store.read(begun(tmp_path))
    assert record.manifest == MANIFEST
    (record.folder.path / "metrics.jsonl").write_text('{"event": "step"}\n{"event": "later"}\n')
    assert list(record.folder.records(without=("step",))) == [{"event": "later"}]


@pytest.mark.parametrize("missing", MANIFEST)
def test_a_manifest_that_lacks_what_readers_rely_on_is_damaged(
    tmp_path: Path, missing: str
) -> None:
    folder = begun(tmp_path, {key: value for key, value in MANIFEST.items() if key != missing})
    found = store.read(folder)
    assert (found.state, found.manifest) == ("damaged", None)
    assert found.problem == f"{folder.path / 'manifest.json'}: does not say what the run is"


def completed(path: Path, *, without: tuple[str, ...] = ()) -> store.RunFolder:
    """A run that has ended; `without`: keys of the seal that earlier versions did not write."""
    folder = begun(path)
    folder.finish(a_result())
    kept = json.loads((folder.path / "result.json").read_text())
    kept["seal"] = {key: value for key, value in kept["seal"].items() if key not in without}
    (folder.path / "result.json").write_text(json.dumps(kept))
    return folder


@pytest.mark.parametrize("without", [(), ("metrics_bytes",), ("metrics_bytes", "metrics.jsonl")])
@pytest.mark.parametrize("whole", [True, False])
def test_events_that_are_not_those_of_the_result(
    tmp_path: Path, without: tuple[str, ...], whole: bool
) -> None:
    """Without reading them, another length is noticed; a digit only where they are read."""
    folder = completed(tmp_path, without=without)
    path = folder.path / "metrics.jsonl"
    content = path.read_bytes()
    assert store.read(folder, whole=whole).state == "completed"
    changed = {
        "another digit": content.replace(b"128", b"129"),
        "no number": content.replace(b"128", b"xyz"),
        "cut": content[:-4],
        "nothing": b"",
    }
    found = {}
    for name, each in changed.items():
        path.write_bytes(each)
        found[name] = store.read(folder, whole=whole).state == "damaged"
    unread = not whole and not without
    assert found == {
        "another digit": not unread and "metrics.jsonl" not in without,
        "no number": not unread,
        "cut": True,
        "nothing": True,
    }


@pytest.mark.parametrize("block", [1, 2, 7, 64, 1000])
def test_events_are_the_same_in_blocks_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(files, "BLOCK", block)
    folder, events = begun(tmp_path), [FINISHED | {"step": step} for step in range(12)]
    path = folder.path / "metrics.jsonl"
    path.write_bytes(store.encode_records(events) + b'{"event": "fini')
    assert list(folder.records()) == events
    assert list(folder.records(without=("finished",))) == []
    content = path.read_bytes()
    assert files.digested(path).digest() == hashlib.sha256(content).digest()
    assert files.digested(path, 77).digest() == hashlib.sha256(content[:77]).digest()
    path.write_bytes(content.replace(b'"step": 7', b'"step": "'))
    with pytest.raises(StorageError, match=r"metrics\.jsonl:8: not a JSON event"):
        list(folder.records())


def test_a_long_file_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK", 2**14)
    folder = begun(tmp_path)
    path = folder.path / "metrics.jsonl"
    path.write_bytes(b'{"event": "step", "what": "is not wanted"}\n' * 100_000)
    tracemalloc.start()
    try:
        assert list(folder.records(without=("step",))) == []
        files.digested(path)
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size / 20
    finally:
        tracemalloc.stop()


def test_a_line_that_never_ends_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK", 10)
    folder = begun(tmp_path)
    with (folder.path / "metrics.jsonl").open("ab") as file:
        file.write(b"0" * 1000)
    assert len(list(folder.records())) == 1, "it may still be written"
    monkeypatch.setattr(files, "SMALL", 500)
    with pytest.raises(StorageError, match=r"metrics\.jsonl:2: longer than 500 bytes"):
        list(folder.records())
