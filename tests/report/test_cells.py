"""A cell is what its configuration is: no run of another configuration is in its mean."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnbench.board.bands import write_seed_bands
from bnbench.board.rebuild import rebuild
from bnbench.board.views import describe
from bnbench.config import identity, loading, plans, schema
from bnbench.report.answer import notices
from bnbench.report.compare import compared
from bnbench.report.reading import read_study
from bnbench.report.record import cell_row, flat_row
from bnbench.report.status import as_record, runs_text
from bnbench.store import ExperimentFolder, cell_of
from tests.report.invented import Told, invented, recorded, write_run
from tests.runs import SMALL_YAML

CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "optim.lr": st.sampled_from([0.1, 0.2]),
        "data.batch_size": st.sampled_from([4, 8]),
        "norm": st.sampled_from(["{kind: group, groups: 2}", "{placement: after}"]),
        "train.steps": st.sampled_from([7, 9]),
        "train.log_every": st.sampled_from([1, 2]),  # decides no number
        "optim.weight_decay": st.sampled_from([0.0, 0.1]),
        "setup": st.sampled_from(["mine", "yours"]),  # a name decides none, either
    },
)
RUNS = st.lists(st.tuples(CHANGES, st.integers(0, 2)), min_size=1, max_size=8)


def single(path: Path, changes: Mapping[str, object], seed: int) -> schema.RunConfig:
    """One run of the small file, as `bnbench train --set … --seed …` makes it."""
    changes = dict(changes)
    label = f"setup: {changes.pop('setup')}\n" if "setup" in changes else ""
    (path / "x.yaml").write_text(SMALL_YAML + label)
    sets = tuple(f"{key}={value}" for key, value in changes.items())
    overrides = loading.Overrides(set=sets, seed=seed)
    return plans.expand(loading.load_experiment(path / "x.yaml", overrides)).only()


def accuracy(config: schema.RunConfig) -> float:
    """A test accuracy that belongs to this run alone."""
    return int(identity.identity(config)[:6], 16) / 16**6


@settings(max_examples=25)
@given(RUNS)
def test_single_runs_are_a_row_for_each_configuration(
    drawn: list[tuple[dict[str, object], int]],
) -> None:
    with TemporaryDirectory() as name:
        path = Path(name)
        folder = ExperimentFolder(path / "runs" / "x")
        cells: dict[str, dict[int, float]] = {}
        for changes, seed in drawn:
            config = single(path, changes, seed)
            told = Told(curve=[0.5], test=accuracy(config))
            write_run(config, folder, told)
            cells.setdefault(identity.cell_key(config), {})[seed] = told.test
        study = read_study(folder)
        found = {}
        for cell in study.cells:
            assert len({run.seed for run in cell.runs}) == len(cell.runs), "a seed twice"
            row = cell_row(cell, study)
            assert row["metrics"]["test_accuracy"]["n"] == len(cell.runs)
            found[cell.runs[0].cell] = {run.seed: run.metric("test_accuracy") for run in cell.runs}
            mean = row["metrics"]["test_accuracy"]["mean"]
            assert mean == pytest.approx(fmean(cells[cell.runs[0].cell].values()))
        assert found == {key: pytest.approx(values) for key, values in cells.items()}
        labels = {(cell.setup, repr(cell.point)) for cell in study.cells}
        assert len(labels) == len(cells), "two rows of one name"
        rows = [flat_row(run) for run in study.runs]
        assert len({row["setup"] for row in rows}) == len(cells)
        assert study.others == ()
        # The same in TensorBoard.
        assert write_seed_bands(folder) == []
        bands = [each for each in (folder.path / "seed-bands").iterdir() if each.is_dir()]
        assert len([each for each in bands if each.name != "by-batch-size"]) == len(cells)
        # And in the list of runs.
        states = as_record(folder)["runs"]
        assert len({repr(each["apart"]) for each in states}) <= len(cells)


def two_rates(path: Path, *more: Mapping[str, object]) -> ExperimentFolder:
    """Single runs at two learning rates, both of seed 0."""
    folder = ExperimentFolder(path / "runs" / "x")
    rates: list[Mapping[str, object]] = [{"optim.lr": 0.1}, {"optim.lr": 0.0001}]
    for changes in (*rates, *more):
        config = single(path, changes, 0)
        write_run(config, folder, Told(curve=[0.3, 0.5], test=config.optim.lr))
    return folder


def test_rows_are_named_by_what_differs(tmp_path: Path) -> None:
    folder = two_rates(tmp_path)
    record = recorded(read_study(folder))
    assert {(row["setup"], row["completed"]) for row in record["cells"]} == {
        ("batch-before, optim.lr 0.1", 1),
        ("batch-before, optim.lr 0.0001", 1),
    }
    assert (
        "batch-before, optim.lr 0.1 did best: 10.0 % test accuracy (1 seed, at chance), "
        in " ".join(record["answer"])
    )
    said = runs_text(folder, columns=80)
    assert "optim.lr 0.0001: test accuracy 0.0%" in said
    both = compared([run.name for run in folder.runs()], folder.path.parent)
    assert both["differences"].keys() == {"optim.lr"}


def test_as_few_keys_as_tell_them_apart(tmp_path: Path) -> None:
    folder = two_rates(tmp_path, {"optim.lr": 0.1, "data.batch_size": 4}, {"norm.kind": "none"})
    assert {cell.setup for cell in read_study(folder).cells} == {
        "batch-before, data.batch_size 8, optim.lr 0.1",
        "batch-before, data.batch_size 8, optim.lr 0.0001",
        "batch-before, data.batch_size 4, optim.lr 0.1",
        "none",
    }


def test_a_custom_layer_that_was_edited_is_another_row(tmp_path: Path) -> None:
    layer = tmp_path / "layer.py"
    folder = ExperimentFolder(tmp_path / "runs" / "x")
    for number in range(2):
        layer.write_text(f"class Mine: version = {number}\n")
        config = single(tmp_path, {"norm": f"{{kind: custom, target: {layer}:Mine}}"}, 0)
        write_run(config, folder, Told(test=0.1 + 0.8 * number))
    cells = read_study(folder).cells
    assert sorted(cell.values("test_accuracy")[0] for cell in cells) == pytest.approx([0.1, 0.9])
    assert all(cell.setup.startswith("custom-before, content ") for cell in cells)
    record = compared([run.name for run in folder.runs()], tmp_path / "runs")
    assert record["differences"].keys() == {"content"}


@pytest.mark.parametrize("name", ["zzz_00000000", "aaa_00000000", "mine"])
def test_a_copy_of_a_run_counts_once(tmp_path: Path, name: str) -> None:
    folder = two_rates(tmp_path)
    first, _ = folder.runs()
    shutil.copytree(first.path, folder.path / name)
    study = read_study(folder)
    assert [cell.count("completed") for cell in study.cells] == [1, 1]
    (other,) = study.others
    assert other.folder.name == name
    assert other.reason == f"it is a copy of {first.name}"


def test_a_folder_that_was_renamed_is_shown(tmp_path: Path) -> None:
    folder = invented(tmp_path, f"{SMALL_YAML}seeds: 2\n", lambda _: Told(test=0.5))
    first, _ = folder.runs()
    mine = folder.path / "mine"
    first.path.rename(mine)
    assert f"mine{'damaged':>{len(first.name) + 5}}" in runs_text(folder, columns=80)
    assert f"{mine} holds the run {first.name}" in runs_text(folder, columns=80)
    (other,) = read_study(folder).others
    assert (other.called, other.state) == ("batch-before, seed 0", "damaged")
    assert other.reason == f"its folder, mine, holds the run {first.name}"
    told = [each for each in rebuild(folder)[1] if each.startswith("mine: ")]
    assert told == [f"mine: {mine} holds the run {first.name}"]


def test_a_copy_in_the_place_of_a_planned_run_is_not_that_run(tmp_path: Path) -> None:
    folder = invented(tmp_path, f"{SMALL_YAML}seeds: 2\n", lambda _: Told(test=0.5))
    first, second = folder.runs()
    shutil.rmtree(second.path)
    shutil.copytree(first.path, second.path)
    (cell,) = read_study(folder).cells
    assert [run.state for run in cell.runs] == ["completed", "damaged"]
    assert cell.runs[1].problem == f"{second.path} holds the run {first.name}"
    assert cell.values("test_accuracy") == [0.5]
    assert [run["state"] for run in as_record(folder)["runs"]] == ["completed", "damaged"]
    assert any(f"{second.path} holds the run {first.name}" in each for each in rebuild(folder)[1])
    assert write_seed_bands(folder) == [], "rebuild has told it"


def test_seeds_that_were_evaluated_at_other_points_are_said(tmp_path: Path) -> None:
    text = f"{SMALL_YAML}setups: {{bn: {{}}, none: {{norm: {{kind: none}}}}}}\nseeds: 3\n"
    folder = invented(tmp_path, text, lambda _: Told(curve=[0.3, 0.5]))
    assert read_study(folder).notes == ()
    for run in folder.runs():
        if run.name.startswith("none_s01"):
            shutil.rmtree(run.path)
    config = single(tmp_path, {"norm.kind": "none"}, 1)
    write_run(config, folder, Told(curve=[0.3, 0.4, 0.5]))
    (note,) = read_study(folder).notes
    assert note.startswith("Not all seeds of none were evaluated at the same points of training")
    assert note in [each.text for each in notices(read_study(folder), [], None)]


def test_runs_of_no_file_are_named_with_the_reason(tmp_path: Path) -> None:
    text = f"{SMALL_YAML}setups: {{bn: {{}}, none: {{norm: {{kind: none}}}}}}\nseeds: 2\n"
    folder = invented(tmp_path, text, lambda _: Told(test=0.5))
    rates: list[dict[str, object]] = [{"optim.lr": 0.5}, {"norm.kind": "none", "optim.lr": 0.5}]
    for changes in rates:
        write_run(single(tmp_path, changes, 3), folder, Told(test=0.25))
    study = read_study(folder)
    assert [(cell.setup, len(cell.runs)) for cell in study.cells] == [("bn", 2), ("none", 2)]
    told = [each.text for each in notices(study, [], None) if each.kind == "other"]
    assert told == [
        "Not in this report, since the experiment's file does not describe it: "
        "batch-before, seed 3 (completed, test 25.0 %); "
        "none, optim.lr 0.5, seed 3 (completed, test 25.0 %)"
    ]
    write_run(single(tmp_path, {"optim.lr": 0.25}, 3), folder, Told(test=0.25))
    (last,) = [each.text for each in notices(read_study(folder), [], None) if each.kind == "other"]
    assert last.endswith("does not describe it: 3 runs; the page lists them")
    record = recorded(study)
    assert [each["called"] for each in record["others"]] == [
        "batch-before, seed 3",
        "none, optim.lr 0.5, seed 3",
    ]


def test_more_runs_than_a_sweep_starts_unless_told_to_are_one_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plans.expand.__kwdefaults__ or {}, "max_runs", 5)
    text = f"question: Which?\n{SMALL_YAML}setups: {{bn: {{}}, ln: {{norm: {{kind: layer}}}}}}\n"
    told: dict[int, Told] = {0: Told()}
    folder = invented(tmp_path, f"{text}seeds: 3\n", lambda run: told.get(run.seed))
    study = read_study(folder)
    assert (study.notes, len(study.runs)) == ((), 6)
    assert [len(cell.completed) for cell in study.cells] == [1, 1]
    assert describe(folder).question == "Which?"


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = two_rates(tmp_path)
    first = folder.runs()[0]
    (first.path / "config.yaml").write_text("data: [")
    study = read_study(folder)
    assert len(study.cells) == 1
    assert study.others[0].folder.name == first.name
    assert study.others[0].reason.startswith("its configuration cannot be read: ")


def test_a_renamed_setup_is_one_band(tmp_path: Path) -> None:
    folder = two_rates(tmp_path)
    for setup in ("mine", "yours"):
        config = single(tmp_path, {"optim.lr": 0.3, "setup": setup}, int(setup == "yours"))
        write_run(config, folder, Told())
    write_seed_bands(folder)
    names = {each.name for each in (folder.path / "seed-bands").iterdir()}
    assert names == {"batch-before_lr0.1", "batch-before_lr0.0001", "mine"}
    assert [len(cell.runs) for cell in read_study(folder).cells] == [1, 1, 2]


def test_manifests_of_earlier_versions_are_enough(tmp_path: Path) -> None:
    folder = two_rates(tmp_path)
    kept = ("setup", "seed", "cell", "point", "hparams", "started", "started_utc", "command")
    for run in folder.runs():
        manifest = run.manifest() or {}
        small = {key: manifest[key] for key in (*kept, "versions", "fingerprints")}
        (run.path / "manifest.json").write_text(json.dumps(small))
    assert len(read_study(folder).cells) == 2


def test_a_row_of_tensorboard_is_a_cell(tmp_path: Path) -> None:
    folder = two_rates(tmp_path)
    for seed, setup in enumerate(("mine", "yours")):
        write_run(single(tmp_path, {"optim.lr": 0.3, "setup": setup}, seed), folder, Told())
    names = describe(folder).cells
    assert len(names) == 3, "what is called otherwise is no other"
    assert {cell_of(run.manifest() or {}) for run in folder.runs()} == names.keys()


def test_the_card_of_tensorboard_keeps_single_runs_apart(tmp_path: Path) -> None:
    """Runs of one setup that differ are not one setup with all their values."""
    heading, _, *rows = describe(two_rates(tmp_path)).about.replace("\\", "").splitlines()
    first, *setups = heading.strip("| ").split(" | ")
    assert sorted([first, *setups]) == [
        "batch-before, optim.lr 0.0001",
        "batch-before, optim.lr 0.1",
    ]
    assert [sorted(row.strip("| ").split(" | ")) for row in rows] == [["0.0001", "0.1", "optim.lr"]]
