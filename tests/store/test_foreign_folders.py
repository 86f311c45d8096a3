"""A folder of someone else's: links, pipes and second names in it lead nowhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bnbench import store
from bnbench.board.bands import update_tensorboard
from bnbench.errors import BnbenchError, StorageError
from bnbench.runner.execution import execute
from bnbench.runner.settings import Settings
from bnbench.store import ExperimentFolder, files
from bnbench.store.run_folder import RESULT
from tests.runs import experiment_in, small_config
from tests.stub import build_stub

PRECIOUS = b"precious"
ROUNDS = iter(range(10**6))


def work(experiment: ExperimentFolder) -> None:
    """Write everything that is ever written below an experiment's folder: a run, continued and
    trained again; what all runs share; a report."""

    def train(*, restart: bool) -> None:
        settings = Settings(restart=restart)
        execute(small_config(), experiment, settings, build_stub)

    def spoil() -> None:
        for run in experiment.runs():
            run.fail({"message": "broken"})
            run.keep_pictures({"a": b"png"})
            run.clear()

    number = next(ROUNDS)
    steps: list[Callable[[], object]] = [
        lambda: experiment.begin(f"seeds: {number}\n"),
        lambda: train(restart=False),
        lambda: train(restart=True),
        lambda: update_tensorboard(experiment, lambda _: None),
        lambda: experiment.replace("figures", "*.svg", {f"{number}.svg": b"<svg/>"}),
        lambda: experiment.keep({"report.html": b"<html>", "report.json": b"{}"}),
        spoil,
    ]
    for step in steps:
        with suppress(BnbenchError):
            step()


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder in which everything is written."""
    path = tmp_path_factory.mktemp("worked")
    experiment = experiment_in(path)
    experiment.begin("seeds: 1\n")
    execute(small_config(), experiment, Settings(), build_stub)
    update_tensorboard(experiment, lambda _: None)
    experiment.replace("figures", "*.svg", {"a.svg": b"<svg/>"})
    run = experiment.runs()[0]
    run.keep_pictures({"a": b"png"})
    run.commit(b"first")
    run.commit(b"second")
    (run.path / "error.json").write_text('{"message": "broken"}')
    experiment.keep({"report.html": b"<html>", "report.json": b"{}"})
    return path


@pytest.fixture
def runs(worked: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(worked, tmp_path / "runs"))


def outside(path: Path) -> Path:
    """What must stay as it is: files of all the names that are written or removed somewhere."""
    made = path / "outside"
    names = ("file", "a.svg", "report.html", "x.tmp", "events.out.tfevents.1", RESULT, "lock")
    for name in (*names, "checkpoint.pt", "experiment.yaml", "picture_b.png", "b/bands"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(PRECIOUS)
    return made


def contents(path: Path) -> dict[str, bytes]:
    """Everything below a folder, with the bytes of files."""
    return {
        str(each.relative_to(path)): each.read_bytes() if each.is_file() else b""
        for each in path.rglob("*")
    }


def places(runs: Path) -> Iterator[Path]:
    """Every file and folder of an experiment, the experiment itself first."""
    yield runs / "small"
    yield from sorted((runs / "small").rglob("*"))


def put(kind: str, place: Path, elsewhere: Path) -> None:
    """Put something that is not ours in the place of a file or folder."""
    folder = place.is_dir()
    shutil.rmtree(place) if folder else place.unlink()
    match kind:
        case "link":
            place.symlink_to(elsewhere if folder else elsewhere / "file")
        case "dangling":
            place.symlink_to(elsewhere / "nowhere")
        case "second name" if not folder:
            os.link(elsewhere / "file", place)
        case _:
            os.mkfifo(place)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["link", "dangling", "second name", "pipe"])
def test_nothing_outside_is_written_or_removed(runs: Path, tmp_path: Path, kind: str) -> None:
    """Whatever stands in the place of any file or folder; and nothing waits for a pipe."""
    precious, whole = outside(tmp_path), tmp_path / "whole"
    before = contents(precious)
    runs.rename(whole)
    seen = 0
    for number, place in enumerate([place.relative_to(whole) for place in places(whole)]):
        runs = tmp_path / str(number)
        shutil.copytree(whole, runs)
        put(kind, runs / place, precious)
        work(experiment_in(runs))
        assert contents(precious) == before, place
        shutil.rmtree(runs)
        seen += 1
    assert seen > 20


@pytest.mark.parametrize("place", ["figures", "", "report.html", "seed-bands"])
def test_no_link_of_an_experiment_is_followed(runs: Path, tmp_path: Path, place: str) -> None:
    precious = outside(tmp_path)
    before = contents(precious)
    put("link", runs / "small" / place, precious)
    work(experiment_in(runs))
    assert contents(precious) == before


@pytest.mark.parametrize("name", ["lock", "metrics.jsonl", "checkpoint.pt", ""])
@pytest.mark.parametrize("kind", ["link", "second name"])
def test_no_link_of_a_run_is_followed(runs: Path, tmp_path: Path, name: str, kind: str) -> None:
    precious = outside(tmp_path)
    before = contents(precious)
    put(kind, experiment_in(runs).runs()[0].path / name, precious)
    work(experiment_in(runs))
    assert contents(precious) == before


def test_a_temporary_name_that_is_taken_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(PRECIOUS)
    monkeypatch.setattr("secrets.token_hex", lambda _: "0" * 16)
    (tmp_path / f"report.html.{'0' * 16}.tmp").symlink_to(tmp_path / "file")
    with pytest.raises(StorageError, match=r"report\.html: cannot be used \(File exists\)"):
        files.replace_content(tmp_path / "report.html", b"new")
    assert (tmp_path / "file").read_bytes() == PRECIOUS


def test_what_killed_writers_have_left_is_removed_after_a_while(tmp_path: Path) -> None:
    experiment = ExperimentFolder(tmp_path)
    old, young, outside = (tmp_path / name for name in ("a.1.tmp", "b.2.tmp", "outside"))
    for path in (old, young, outside):
        path.write_bytes(PRECIOUS)
    os.utime(old, (0, 0))
    (tmp_path / "report.html.tmp").symlink_to(outside)
    os.utime(tmp_path / "report.html.tmp", (0, 0), follow_symlinks=False)
    experiment.begin("seeds: 1\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "b.2.tmp", "experiment.yaml", "outside"
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["link", "pipe", "dangling"])
@pytest.mark.parametrize("name", ["result.json", "lock", ""])
def test_what_decides_a_state_is_read_in_the_folder_alone(
    runs: Path, tmp_path: Path, name: str, kind: str
) -> None:
    (run,) = experiment_in(runs).runs()
    (run.path / "error.json").unlink()
    if name == "lock":
        (run.path / "result.json").unlink()
    put(kind, run.path / name, outside(tmp_path))
    if name == "" and kind != "link":
        assert experiment_in(runs).runs() == []
        return
    found = store.read(run)
    assert found.state == "damaged"
    assert (
        "regular file" in str(found.problem) if kind == "pipe" else "a link" in str(found.problem)
    )


def test_files_are_read_up_to_a_size(tmp_path: Path) -> None:
    with (tmp_path / "result.json").open("wb") as file:
        file.truncate(files.SMALL + 1)
    with pytest.raises(StorageError, match=r"result\.json: it is larger than"):
        files.read(tmp_path / "result.json")


def test_an_experiment_that_is_a_link_is_said_and_the_others_are_listed(
    runs: Path, tmp_path: Path
) -> None:
    (runs / "linked").symlink_to(runs / "small")
    assert [each.name for each in store.experiments(runs)] == ["small"]
    found = store.find_experiment(runs, "linked")
    with pytest.raises(StorageError) as refused:
        found.runs()
    assert str(refused.value) == (
        f"{runs / 'linked'} is a link, and links inside of a runs folder are not followed\n"
        "  put there what it leads to, or choose another place with --runs-dir"
    )
    (tmp_path / "by-link").symlink_to(runs)  # the runs folder is the user's own choice
    assert store.read(store.experiments(tmp_path / "by-link")[0].runs()[0]).state == "completed"


def test_a_second_name_of_the_events_keeps_what_it_has(runs: Path, tmp_path: Path) -> None:
    """As in a backup of hard links."""
    (run,) = experiment_in(runs).runs()
    os.link(run.path / "metrics.jsonl", tmp_path / "backup")
    before = (tmp_path / "backup").read_bytes()
    end = before.index(b"\n") + 1
    run.metrics(keep=end).close()
    assert (run.path / "metrics.jsonl").read_bytes() == before[:end]
    assert (tmp_path / "backup").read_bytes() == before
