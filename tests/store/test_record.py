"""What the files of a run say, read once and typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bnbench import store
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
    assert sorted(kept.pop("seal")) == ["config.yaml", "manifest.json", "metrics.jsonl", "result"]
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
