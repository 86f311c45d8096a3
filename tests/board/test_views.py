"""TensorBoard's files, rewritten from the folders of runs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from bnbench import store
from bnbench.board.views import (
    Description,
    describe,
    open_view,
    rebuild,
    refresh,
    side_by_side,
    survey,
)
from bnbench.config import files, loading
from bnbench.errors import StorageError
from bnbench.sinks.tensorboard.tabs import ACCURACY_AT_END, DIVERGED_SHARE, METRICS, columns
from bnbench.store import ExperimentFolder, RunFolder
from tests.processes import completed
from tests.studies import DIVERGING, QUESTION, RESUMED


def content(run: RunFolder) -> list[tuple[Any, ...]]:
    """Everything that TensorBoard reads of a run, in order, but for when a file was begun."""
    return [
        (value.tag, event.step, event.wall_time, value.SerializeToString(deterministic=True))
        for path in run.views()
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]


def values(experiment: ExperimentFolder) -> dict[str, tuple[Any, ...]]:
    """What is in each column of the HParams tab."""
    return {column.name: column.values for column in columns(describe(experiment).rows)}


def test_rebuilt_files_say_what_the_run_wrote(own_study: ExperimentFolder) -> None:
    written = {run.name: content(run) for run in own_study.runs()}
    assert all(len(each) > 10 for each in written.values())
    for run in own_study.runs():
        run.clear_views()
    assert rebuild(own_study) == (12, [])
    assert {run.name: content(run) for run in own_study.runs()} == written
    rebuild(own_study)
    assert {run.name: content(run) for run in own_study.runs()} == written, "and nothing twice"


def test_an_interrupted_run_shows_what_it_has(own_study: ExperimentFolder) -> None:
    run = own_study.runs()[0]
    (run.path / "result.json").unlink()
    lines = (run.path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run.path / "metrics.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
    whole = content(run)
    rebuild(own_study)
    found = content(run)
    lost = {tag for tag, *_ in whole} - {tag for tag, *_ in found}
    assert {"_hparams_/session_end_info", "summary/steps", "summary/diverged"} <= lost
    assert found == whole[: len(found)]


def test_a_damaged_run_is_noted_and_the_others_are_rebuilt(own_study: ExperimentFolder) -> None:
    first, second, third, fourth, *_ = own_study.runs()
    lines = (first.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (first.path / "metrics.jsonl").write_text("".join([lines[0], "{\n", *lines[1:]]))
    (second.path / "metrics.jsonl").unlink()
    (third.path / "manifest.json").write_text('{"run": "of long ago"}')
    with fourth.hold():
        done, notes = rebuild(own_study)
    assert done == 8
    said = "\n".join(notes)
    assert f"{first.path / 'metrics.jsonl'}: changed since the run ended" in said
    assert f"{second.path / 'metrics.jsonl'}: nothing is there, but the run has ended" in said
    assert "manifest.json: does not say what the run is" in said
    assert f"{fourth.name} is being trained" in said


def test_a_full_or_read_only_disk_is_a_sentence(
    own_study: ExperimentFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refused)
    done, notes = rebuild(own_study)
    assert done == 0
    assert all("not writable (Read-only file system)" in note for note in notes)
    assert len(notes) == 12


def test_an_experiment_that_grows_tells_every_run(own_study: ExperimentFolder) -> None:
    before = values(own_study)
    assert before["data.batch_size"] == (4, 16)
    assert refresh(own_study) == 0, "all runs say the same already"
    scalars = {run.name: run.views()[-1].read_bytes() for run in own_study.runs()}
    larger = loading.load_experiment(
        own_study.file, loading.Overrides(over=("data.batch_size=4,16,32",))
    )
    own_study.begin(files.dump_experiment(larger))
    assert refresh(own_study) == 12
    assert refresh(own_study) == 0
    after = values(own_study)
    assert after == before | {"data.batch_size": (4, 16, 32)}
    for run in own_study.runs():
        assert len(run.views()) == 2, "the older file is gone"
        assert run.views()[-1].read_bytes() == scalars[run.name]


def test_what_is_described_without_the_experiments_file(own_study: ExperimentFolder) -> None:
    planned = describe(own_study)
    assert planned.question == QUESTION
    own_study.file.unlink()
    found = describe(own_study)
    assert found.question is None
    assert columns(found.rows) == columns(planned.rows)
    own_study.file.write_text("data: {batch_size: many}\n")
    assert columns(describe(own_study).rows) == columns(planned.rows), "a damaged one is as none"


def test_a_run_beside_the_plan_is_described_too(own_study: ExperimentFolder) -> None:
    run = own_study.runs()[0]
    manifest = run.manifest() or {}
    manifest["hparams"]["optim.lr"] = 7.0
    found = describe(own_study, own=manifest)
    (rates,) = [column.values for column in columns(found.rows) if column.name == "optim.lr"]
    assert 7.0 in rates
    assert "optim.lr" not in values(own_study), "the plan varies it with the setup alone"


def test_setups_stand_side_by_side(study: ExperimentFolder) -> None:
    heading, line, *rows = side_by_side(describe(study).rows).splitlines()
    assert [cell.strip() for cell in heading.strip("|").split("|")] == ["", "bn", "gn", "wild"]
    assert set(line) <= set("|- ")
    cells = {}
    for row in rows:
        key, *each = (cell.strip() for cell in row.strip("|").split("|"))
        cells[key] = each
    assert cells["norm.kind"] == ["batch", "group", "none"]
    assert cells["optim.lr"] == ["0.1", "0.1", "1e06"]
    assert cells["norm.groups"] == ["–", "2", "–"]
    assert cells.keys() == {"norm.kind", "norm.momentum", "norm.groups", "optim.lr"}


def test_survey_says_what_is_missing(own_study: ExperimentFolder) -> None:
    assert survey(own_study) == []
    bare, torn, *_ = own_study.runs()
    bare.clear_views()
    path = torn.views()[-1]
    path.write_bytes(path.read_bytes()[:-1])
    command = "bnbench tensorboard --rebuild study"
    assert survey(own_study) == [
        f"{bare.name} has no curves: {command} writes those of runs that have begun",
        f"{torn.name} has a torn event file, which is shown as far as it goes: {command} fixes it",
    ]
    rebuild(own_study)
    assert survey(own_study) == []
    shutil.rmtree(own_study.path)
    own_study.path.mkdir()
    (said,) = survey(own_study)
    assert said.endswith("has no runs yet: they appear as soon as they begin")


def test_a_run_without_a_manifest_is_refused(own_study: ExperimentFolder) -> None:
    run = own_study.runs()[0]
    (run.path / "manifest.json").unlink()
    with pytest.raises(StorageError, match="does not say what the run is"):
        open_view(run)


def test_resumed_and_diverged_runs_are_what_they_are_called(study: ExperimentFolder) -> None:
    """Holds the other tests' assumptions."""
    states = {run.name: store.read(run).state for run in study.runs()}
    assert [name for name, state in states.items() if state == "diverged"] == [
        name for name in states if name.startswith(DIVERGING)
    ]
    attempts = {run.name: (run.manifest() or {})["attempts"] for run in study.runs()}
    assert [name[: len(RESUMED)] for name, count in attempts.items() if count > 1] == [RESUMED]


def test_nothing_of_it_needs_torch(own_study: ExperimentFolder) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from bnbench.board.views import refresh, survey\n"
        "from bnbench.cli import app\n"
        "from bnbench.store import ExperimentFolder\n"
        f"place = {str(own_study.path)!r}\n"
        "try: app(['tensorboard', '--rebuild', place])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "study = ExperimentFolder(Path(place))\n"
        "refresh(study), survey(study)\n"
        "print(sorted({'torch', 'tensorflow', 'matplotlib', 'pandas'} & sys.modules.keys()))"
    )
    assert completed(sys.executable, "-c", code).stdout.splitlines() == [
        f"{own_study.path}: TensorBoard's files of 12 runs are new",
        "[]",
    ]


def test_a_metric_that_cannot_differ_is_no_column(own_study: ExperimentFolder) -> None:
    assert describe(own_study).metrics == tuple(METRICS)
    for run in own_study.runs():
        if run.name.startswith("wild"):
            shutil.rmtree(run.path)
    left = tuple(tag for tag in METRICS if tag != DIVERGED_SHARE)
    assert describe(own_study).metrics == left, "nothing diverged"
    rows = [{"setup": "gn", "norm.kind": "group"}, {"setup": "none", "norm.kind": "none"}]
    assert Description(rows=tuple(rows)).metrics == (
        ACCURACY_AT_END,
        "summary/test_running_loss",
        "summary/val_running_accuracy",
    ), "nothing has a gap, and all kinds of statistics say the same"
    mine = {"setup": "mine", "norm.kind": "custom"}
    assert Description(rows=(mine, *rows)).metrics == left, "it may have one"


def test_a_row_is_named_without_its_hash_where_that_is_enough() -> None:
    cells = {"1": "bn_bs004_01234567", "2": "bn_bs016_89abcdef", "3": "bn_bs016_00000000"}
    assert Description(cells=cells).groups == cells | {"1": "bn_bs004"}
