"""`bnbench sweep FOLDER`: several experiments, and what they share."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from bnbench.store import ExperimentFolder
from tests.commands import bnbench
from tests.runs import write_experiment

A = "setups: {none: {norm: {kind: none}}, bn: {}}\n"
B = "setups: {batch: {norm: {kind: batch}}, gn: {norm: {kind: group, groups: 2}}}\n"


@pytest.fixture(autouse=True)
def _study(own_folder: Path) -> None:
    (own_folder / "study").mkdir()
    write_experiment(own_folder / "study" / "a.yaml", A)
    write_experiment(own_folder / "study" / "b.yaml", B)


def sweep(*arguments: str, code: int = 0) -> tuple[str, str]:
    """What it prints, and what it says beside it."""
    found, out, err = bnbench("sweep", "study", *arguments)
    assert found == code, err
    return out, err


def test_a_run_of_two_experiments_is_trained_once() -> None:
    out, err = sweep()
    assert "a: 2 runs (2 setups × 1 seed)" in err
    assert "b: 2 runs (2 setups × 1 seed)" in err
    assert err.count("taken over") == 1
    assert "report: bnbench report runs/a" in out
    assert "report: bnbench report runs/b" in out
    found = {
        run.name.rsplit("_", 2)[0]: (run.result(), run.manifest() or {})
        for name in ("a", "b")
        for run in ExperimentFolder(Path("runs") / name).runs()
    }
    assert found["bn"][0] == found["batch"][0]
    assert found["batch"][1]["taken_over_from"].startswith("a/bn_s00_")
    assert all("taken_over_from" not in found[name][1] for name in ("none", "bn", "gn"))
    # Again: nothing is missing, nothing is taken over.
    _, err = sweep()
    assert "taken over" not in err


def test_for_programs_and_spreadsheets_each_row_names_its_experiment() -> None:
    out, _ = sweep("--json", "--quiet")
    rows = json.loads(out)
    assert [(row["experiment"], row["setup"]) for row in rows] == [
        *(("a", "none"), ("a", "bn"), ("b", "batch"), ("b", "gn"))
    ]
    out, _ = sweep("--csv", "--quiet")
    assert [row["experiment"] for row in csv.DictReader(out.splitlines())] == ["a", "a", "b", "b"]


def test_a_dry_run_lists_them_all() -> None:
    out, _ = sweep("--dry-run", "--json")
    assert [len(each["runs"]) for each in json.loads(out)] == [2, 2]
    assert not Path("runs/a/experiment.yaml").exists()


def test_the_faults_of_all_files_are_said_before_the_first_run() -> None:
    for name in ("a", "b"):
        write_experiment(Path(f"study/{name}.yaml"), "norm: {kind: bach}\n")
    _, err = sweep(code=2)
    assert "study/a.yaml:" in err
    assert "study/b.yaml:" in err
    assert not Path("runs").exists()


def test_two_files_of_one_name_are_refused() -> None:
    write_experiment(Path("study/b.yaml"), "experiment: a\n")
    _, err = sweep(code=2)
    assert "study/b.yaml and study/a.yaml are both called a" in err


def test_a_fault_of_the_command_line_is_said_once() -> None:
    _, err = sweep("--set", "optim.rl=1", code=2)
    assert err.count("optim.rl is not a key") == 1


def test_a_finished_run_that_records_otherwise_is_said() -> None:
    write_experiment(Path("study.yaml"))
    assert bnbench("train", "study.yaml", "--quiet").code == 0
    assert "settings" not in bnbench("train", "study.yaml", "--quiet").err
    sets = ("--set", "train.evaluations=3", "--set", "train.checkpoint_every=7")
    said = bnbench("train", "study.yaml", "--quiet", *sets)
    assert "was already there" in said.out
    assert said.err == (
        "note: it was trained with other settings: train.evaluations: 2 in the folder, 3 given\n"
        "  they decide no result; --restart trains it again with those that are given\n"
    )
    said = bnbench("sweep", "study.yaml", *sets, "--set", "probes.running_error=true")
    assert (said.code, said.err.splitlines()[:2]) == (
        0,
        [
            "note: 1 finished run kept as trained, with other settings: probes.running_error: "
            'false in the folder, {"every": 2, "images": 1024} given '
            "(--restart trains all runs again)",
            "note: 1 finished run kept as trained, with other settings: train.evaluations: "
            "2 in the folder, 3 given (--restart trains all runs again)",
        ],
    )


def test_a_sweep_that_is_refused_leaves_no_folder() -> None:
    write_experiment(Path("study.yaml"), "setups: {bn: {norm: {kind: group, groups: 3}}}\n")
    assert bnbench("sweep", "study.yaml", "--quiet").code == 2
    assert not Path("runs/study").exists()
