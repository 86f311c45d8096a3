"""`bnbench report` and `bnbench compare` as they are typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bnbench.store import ExperimentFolder
from tests.commands import bnbench
from tests.report.invented import Told, invented, undrawn
from tests.runs import SMALL_YAML

TEXT = f"{SMALL_YAML}question: Which one?\nsetups: {{none: {{norm: {{kind: none}}}}, bn: {{}}}}\n"
PROBES = {
    ("running_error", "a.norm", "mean"): [1.0, 0.5],
    ("running_error", "b.norm", "mean"): [2.0, float("nan")],
    ("activation_drift", "a.norm", "p15"): [-1.0, -1.0],
    ("activation_drift", "a.norm", "p50"): [0.0, 0.1],
    ("activation_drift", "a.norm", "p85"): [1.0, 1.0],
    ("batch_noise", "network", "noise"): [0.1, 0.2],
}


@pytest.fixture
def folder(own_folder: Path) -> ExperimentFolder:
    return invented(own_folder, TEXT, lambda _: Told(curve=[0.3, 0.5], test=0.5, probes=PROBES))


def test_report_by_name_and_by_folder(folder: ExperimentFolder) -> None:
    for name in ("x", str(folder.path)):
        code, out, err = bnbench("report", name)
        assert (code, err) == (0, "")
        assert out.startswith("Which one?")
        assert "runs/x/report.html" in "".join(out.split("\n"))
        assert max(map(len, out.splitlines())) <= 80
    names = {path.name for path in folder.path.iterdir()}
    assert {"report.html", "report.json", "report.csv", "figures"} <= names
    assert "x" not in {run.name for run in folder.runs()}
    assert len(folder.runs()) == 2, "a report is no run"


def test_report_as_json_prints_the_file_and_nothing_else(folder: ExperimentFolder) -> None:
    code, out, err = bnbench("report", "x", "--json")
    assert (code, err) == (0, "")
    assert out == (folder.path / "report.json").read_text()
    figures = {figure["name"] for figure in json.loads(out)["figures"]}
    assert {"probe-activations", "probe-running-error", "probe-batch-noise"} <= figures
    assert "probe-landscape" not in figures


def test_what_cannot_be_written_is_shown_all_the_same(own_folder: Path) -> None:
    folder = invented(own_folder, TEXT, lambda _: Told())
    with undrawn():
        shown, printed = bnbench("report", "x"), bnbench("report", "x", "--format", "markdown")
        shutil.rmtree(folder.path / "figures")
        (folder.path / "figures").write_text("as on a disk that can only be read")
        code, out, err = bnbench("report", "x")
        assert (code, err.partition(":")[0]) == (4, "runs/x/figures")
        assert shown.out.startswith(out)
        assert shown.out[len(out) :].startswith("page: ")
        assert bnbench("report", "x", "--format", "markdown")[:2] == (4, printed.out)


BEGINNINGS = {"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG"}


def test_figures_are_files_in_the_formats_that_are_asked_for(own_folder: Path) -> None:
    folder = invented(own_folder, TEXT, lambda _: Told())
    code, out, err = bnbench("report", "x", "--figures", "pdf,png")
    assert (code, err) == (0, "")
    drawn = json.loads((folder.path / "report.json").read_text())["figures"]
    assert out.splitlines()[-1] == f"figures: runs/x/figures/*.pdf, *.png ({len(drawn)} of each)"
    found = {path.name: path.read_bytes() for path in (folder.path / "figures").iterdir()}
    assert found.keys() == {f"{each['name']}.{kind}" for each in drawn for kind in BEGINNINGS}
    assert all(found[name].startswith(BEGINNINGS[name[-3:]]) for name in found)
    # The same bytes for the same data; what is printed for programs stays so.
    code, out, err = bnbench("report", "x", "--figures", "pdf", "--json")
    assert json.loads(out)["figures"] == drawn
    assert err == f"figures: runs/x/figures/*.pdf ({len(drawn)} of each)\n"
    name = f"{drawn[0]['name']}.pdf"
    assert (folder.path / "figures" / name).read_bytes() == found[name]


@pytest.mark.parametrize(
    ("asked", "named"), [("jpg", "jpg"), ("pdf,eps", "eps"), ("pdf,", "nothing")]
)
def test_an_unknown_format_of_figures_is_refused(
    folder: ExperimentFolder, asked: str, named: str
) -> None:
    code, out, err = bnbench("report", "x", "--figures", asked)
    assert (code, out) == (2, "")
    assert f"{named} is no format of figures" in err
    assert "pdf, png or svg" in err
    assert not (folder.path / "figures").exists()


def test_what_cannot_be_reported_is_said(folder: ExperimentFolder, tmp_path: Path) -> None:
    code, _, err = bnbench("report", "nothing")
    assert code == 2
    assert "no experiment 'nothing'" in err
    empty = ExperimentFolder(tmp_path / "runs" / "empty")
    empty.begin((folder.path / "experiment.yaml").read_text())
    code, _, err = bnbench("report", "empty")
    assert code == 2
    assert "has no run yet" in err


def test_a_folder_that_has_only_runs_of_no_study_says_which(own_folder: Path) -> None:
    folder = invented(own_folder, TEXT, lambda _: None)
    other = own_folder / "other"
    other.mkdir()
    for run in invented(other, f"{TEXT}seed: 7\n", lambda _: Told(test=0.25)).runs():
        run.path.rename(folder.path / run.name)
    code, _, err = bnbench("report", "x")
    assert code == 2
    assert err == (
        "runs/x has no run of this study yet, but runs that are not of it: "
        "bn, seed 7 (completed), none, seed 7 (completed)\n"
        "  bnbench sweep runs/x/experiment.yaml trains what is missing\n"
    )


def test_a_faulty_file_of_the_experiment_does_not_hide_its_runs(folder: ExperimentFolder) -> None:
    folder.file.write_text("setups: [")
    code, out, err = bnbench("report", "x")
    assert (code, err) == (0, "")
    said = " ".join(out.split())
    assert "The experiment's file cannot be read, so that its question, claims and axes" in said
    assert "runs/x/experiment.yaml:1:10" in said
    assert "bn did best: 50.0 % test accuracy" in said
    record = json.loads((folder.path / "report.json").read_text())
    assert [cell["completed"] for cell in record["cells"]] == [1, 1]
    assert folder.file.read_text() == "setups: ["


def test_an_empty_file_of_the_experiment_is_a_faulty_one(folder: ExperimentFolder) -> None:
    """Else it is the default experiment, of which no run is there."""
    folder.file.write_bytes(b"")
    code, out, err = bnbench("report", "x")
    assert (code, err) == (0, "")
    said = " ".join(out.split())
    assert "its question, claims and axes" in said
    assert "runs/x/experiment.yaml is empty." in said
    assert "bn did best: 50.0 % test accuracy" in said


def test_compare(folder: ExperimentFolder) -> None:
    names = [run.name for run in folder.runs()]
    code, out, err = bnbench("compare", *names)
    assert (code, err) == (0, "")
    assert "norm.kind" in out
    code, out, err = bnbench("compare", *names, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["differences"]["norm.kind"] == ["batch", "none"]
    code, _, err = bnbench("compare", names[0], "nobody")
    assert code == 2
    assert "no run 'nobody'" in err
