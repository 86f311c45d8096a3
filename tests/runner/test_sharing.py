"""The same run in two experiments is trained once; nearly the same is not the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bnbench.config import loading, schema
from bnbench.errors import StorageError
from bnbench.runner import execution
from bnbench.runner.execution import execute
from bnbench.runner.settings import Settings
from bnbench.store import ExperimentFolder, RunFolder
from tests.injection import Killed, disk, kills
from tests.runs import all_probes, committed_step, evidence, small_config

FIRST = small_config(experiment="first")
SECOND = small_config(experiment="second", setup="other", swept=("optim.lr",))


@pytest.fixture
def source(tmp_path: Path) -> RunFolder:
    """A finished run of the experiment `first`."""
    return execute(FIRST, ExperimentFolder(tmp_path / "first"), Settings()).folder


def refused(*_: Any, **__: Any) -> Any:
    """Stands for `build_run` where nothing is to be trained."""
    raise AssertionError("it was to be taken over")


def take(config: schema.RunConfig, tmp_path: Path, said: list[str] | None = None) -> RunFolder:
    """Take the run over into `second`; to train it would be a mistake."""
    notes: list[str] = [] if said is None else said
    settings = Settings(siblings=(tmp_path / "first",), announce=notes.append)
    return execute(config, ExperimentFolder(tmp_path / "second"), settings, refused).folder


def test_a_finished_run_is_taken_over(tmp_path: Path, source: RunFolder) -> None:
    said: list[str] = []
    folder = take(SECOND, tmp_path, said)
    assert folder.path.parent.name == "second"
    assert folder.name.startswith("other_lr0.05_s00_")
    assert folder.result() == source.result()
    assert list(folder.records()) == list(source.records())
    assert evidence(folder) == evidence(source)
    assert folder.first_batch() == source.first_batch()
    assert committed_step(folder) == committed_step(source)
    assert folder.views()
    manifest = folder.manifest()
    assert manifest is not None
    assert manifest["taken_over_from"] == f"first/{source.name}"
    assert (manifest["setup"], manifest["point"]) == ("other", {"optim.lr": 0.05})
    assert said == [f"{folder.name} is first/{source.name}: taken over"]
    # From now on it is a finished run like any other.
    assert take(SECOND, tmp_path).path == folder.path


NEARLY: dict[str, dict[str, Any]] = {
    "another seed": {"seed": 1},
    "other probes": {"probes": all_probes()},
    "more evaluations": {
        "train": FIRST.train.model_copy(update={"evaluations": 5}),
    },
    "other images to evaluate": {
        "train": FIRST.train.model_copy(update={"evaluation_images": 8}),
    },
}


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("change", NEARLY)
def test_what_would_read_otherwise_is_trained(tmp_path: Path, change: str) -> None:
    with pytest.raises(Exception, match="it was to be taken over"):
        take(SECOND.model_copy(update=NEARLY[change]), tmp_path)


@pytest.mark.parametrize(
    "damage", ["fingerprint", "result", "checkpoint", "metrics", "manifest", "config"]
)
def test_a_doubtful_twin_is_none(tmp_path: Path, source: RunFolder, damage: str) -> None:
    match damage:
        case "fingerprint":
            path = source.path / "manifest.json"
            manifest = json.loads(path.read_text())
            manifest["fingerprints"][0]["cpu_capability"] = "other"
            path.write_text(json.dumps(manifest))
        case "checkpoint":
            content = (source.path / "checkpoint.pt").read_bytes()
            (source.path / "checkpoint.pt").write_bytes(content[:100] + b"x" + content[101:])
        case "metrics":
            content = (source.path / "metrics.jsonl").read_bytes()
            (source.path / "metrics.jsonl").write_bytes(content[:-30])
        case "config":
            (source.path / "config.yaml").write_text("norm: [")
        case _:
            (source.path / f"{damage}.json").unlink()
    with pytest.raises(Exception, match="it was to be taken over"):
        take(SECOND, tmp_path)


def test_the_fingerprint_is_compared_before_the_configuration_is_read(
    tmp_path: Path, source: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def load(path: Path) -> schema.RunConfig:
        read.append(path)
        return FIRST

    monkeypatch.setattr(loading, "load_run", load)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(execution, "fingerprint_of", lambda *_: {"torch": "other"})
        with pytest.raises(Exception, match="it was to be taken over"):
            take(SECOND, tmp_path)
    assert not read
    take(SECOND, tmp_path)
    assert read == [source.path]


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("name", ["begin", "adopt"])
def test_what_is_wrong_with_ones_own_folder_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StorageError("no space left")

    monkeypatch.setattr(RunFolder, name, full)
    with pytest.raises(StorageError, match="no space left"):
        take(SECOND, tmp_path)


@pytest.mark.slow
def test_killed_while_it_is_taken_over(tmp_path: Path, source: RunFolder) -> None:
    with disk(tmp_path / "second") as whole:
        take(SECOND, tmp_path)
    assert len(kills(whole.seen)) > 20
    settings = Settings(siblings=(tmp_path / "first",))
    for number, failure in kills(whole.seen):
        place = tmp_path / f"{number}-{failure}"
        with disk(place, number, failure), pytest.raises(Killed):
            execute(SECOND, ExperimentFolder(place), settings, refused)
        # What was left of it is gone on with: its last state is the source's last.
        folder = execute(SECOND, ExperimentFolder(place), settings).folder
        assert evidence(folder) == evidence(source)
