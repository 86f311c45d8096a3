"""Experiments: runs are found by their hash, experiments by name or path."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bnbench.errors import StorageError, UsageError
from bnbench.store import ExperimentFolder, experiments, find_experiment


def begin(experiment: ExperimentFolder, run_id: str) -> None:
    """Leave a trace of a run."""
    experiment.run(run_id).begin(config_text="", manifest={})


def test_a_renamed_setup_loses_nothing(tmp_path: Path) -> None:
    experiment = ExperimentFolder(tmp_path / "study")
    begin(experiment, "old-name_s00_01234567")
    assert experiment.run("new-name_s00_01234567").name == "old-name_s00_01234567"
    assert experiment.run("new-name_s00_89abcdef").name == "new-name_s00_89abcdef"


def test_only_run_folders_count_as_runs(tmp_path: Path) -> None:
    experiment = ExperimentFolder(tmp_path / "study")
    experiment.begin("seeds: 1\n")
    begin(experiment, "b_s00_01234567")
    begin(experiment, "a_s00_89abcdef")
    (experiment.path / "seed-bands").mkdir()
    (experiment.path / "empty_s00_00000000").mkdir()
    assert [run.name for run in experiment.runs()] == ["a_s00_89abcdef", "b_s00_01234567"]
    assert (experiment.path / "experiment.yaml").read_text() == "seeds: 1\n"


def test_a_file_says_what_the_first_writer_wrote(tmp_path: Path) -> None:
    """However many write it at the same time, all read the same, whole."""
    experiment = ExperimentFolder(tmp_path / "study")
    contents = [str(each).encode() * 10_000 for each in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda each: experiment.settled("a/first.json", each), contents))
    assert len(found) == 1
    assert found < set(contents)
    assert [path.name for path in (experiment.path / "a").iterdir()] == ["first.json"]
    (experiment.path / "link.json").symlink_to("a/first.json")
    with pytest.raises(StorageError, match="link"):
        experiment.settled("link.json", b"{}")


def test_experiments_are_found_by_name_and_by_path(tmp_path: Path) -> None:
    for name in ("second", "first"):
        begin(ExperimentFolder(tmp_path / name), "a_s00_01234567")
    (tmp_path / "reference").mkdir()
    assert [each.name for each in experiments(tmp_path)] == ["first", "second"]
    assert find_experiment(tmp_path, "first").path == tmp_path / "first"
    assert find_experiment(Path("elsewhere"), str(tmp_path / "first")).name == "first"


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        find_experiment(tmp_path, "study")
    assert str(refused.value) == (
        f"no experiment 'study' in {tmp_path}\n  there is none yet: train something first"
    )
    begin(ExperimentFolder(tmp_path / "other"), "a_s00_01234567")
    with pytest.raises(UsageError, match="there is: other"):
        find_experiment(tmp_path, "study")
    missing = tmp_path / "nowhere"
    with pytest.raises(StorageError) as absent:
        find_experiment(missing, "study")
    assert str(absent.value) == (
        f"{missing}: no such folder\n"
        "  train something first, or name another folder with --runs-dir"
    )
    assert experiments(missing) == []


def test_views_of_an_experiment_are_exactly_those_given(tmp_path: Path) -> None:
    folder = ExperimentFolder(tmp_path)
    folder.replace("means", "**/file", {"a/file": b"1", "b/c/file": b"2"})
    (tmp_path / "means" / "a" / "note.txt").write_text("of a user")
    folder.replace("means", "**/file", {"b/c/file": b"3", "d/file": b"4"})
    found = sorted(tmp_path.rglob("*"))
    assert {
        str(path.relative_to(tmp_path)): path.read_bytes() for path in found if path.is_file()
    } == {
        "means/a/note.txt": b"of a user",
        "means/b/c/file": b"3",
        "means/d/file": b"4",
    }
    assert folder.runs() == []
