"""TensorBoard's files, rewritten from the folders of runs."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import pytest

from bnbench import store
from bnbench.board.rebuild import rebuild
from bnbench.board.views import (
    Description,
    describe,
    open_view,
    refresh,
    side_by_side,
    survey,
)
from bnbench.config import files, loading
from bnbench.errors import StorageError
from bnbench.sinks.tensorboard.tabs import ACCURACY_AT_END, DIVERGED_SHARE, METRICS, columns
from bnbench.store import ExperimentFolder
from tests.processes import completed
from tests.studies import DIVERGING, QUESTION, RESUMED


def values(experiment: ExperimentFolder) -> dict[str, tuple[Any, ...]]:
    """What is in each column of the HParams tab."""
    return {column.name: column.values for column in columns(describe(experiment).rows)}


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
