"""Runs side by side."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from bnbench.cli.root import PlainConsole
from bnbench.config import schema
from bnbench.errors import UsageError
from bnbench.report.compare import compared, side_by_side
from bnbench.store import ExperimentFolder
from tests.report.invented import Told, invented
from tests.runs import SMALL_YAML

TEXT = f"""{SMALL_YAML}
setups:
  none: {{norm: {{kind: none}}}}
  bn: {{norm: {{kind: batch}}}}
  gn: {{norm: {{kind: group, groups: 2}}}}
seeds: 2
"""


def tell(config: schema.RunConfig) -> Told | None:
    states = {("none", 1): "diverged", ("gn", 0): "interrupted", ("gn", 1): "failed"}
    state = states.get((config.setup, config.seed), "completed")
    return Told(curve=[0.25, 0.625], test=0.5, state=state)


@pytest.fixture
def folder(tmp_path: Path) -> ExperimentFolder:
    return invented(tmp_path, TEXT, tell)


def said(record: dict[str, Any]) -> str:
    text = io.StringIO()
    console = PlainConsole(file=text, width=80)
    for part in side_by_side(record):
        console.print(part)
    return text.getvalue()


def test_only_what_differs_is_shown(folder: ExperimentFolder) -> None:
    runs_dir = folder.path.parent
    record = compared(["none_s00", "bn_s00"], runs_dir)
    assert [run["state"] for run in record["runs"]] == ["completed", "completed"]
    assert record["differences"]["norm.kind"] == ["none", "batch"]
    assert record["differences"]["norm.eps"] == [None, 1e-5]
    assert not {"optim.lr", "seed", "model.kind"} & record["differences"].keys()
    assert record["metrics"]["test accuracy"] == [0.5, 0.5]
    assert record["metrics"]["val accuracy"] == [0.625, 0.625]
    shown = said(record)
    assert "62.5 %" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_runs_without_an_end_show_their_last_evaluation(folder: ExperimentFolder) -> None:
    names = ["bn_s00", "none_s01", "gn_s00", "gn_s01"]
    record = compared(names, folder.path.parent)
    states = ["completed", "diverged", "interrupted", "failed"]
    assert [run["state"] for run in record["runs"]] == states
    assert record["runs"][1]["reason"] == "step 20: loss above 10·ln(classes)"
    assert record["runs"][3]["reason"] == "it broke"
    assert record["metrics"]["val accuracy"] == [0.625] * 4
    assert record["metrics"]["test accuracy"] == [0.5, None, None, None]
    shown = said(record)
    assert "(so far)" in shown
    assert "it broke" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_many_runs_are_shown_in_80_columns(folder: ExperimentFolder) -> None:
    record = compared([str(run.path) for run in folder.runs()], folder.path.parent)
    assert len(record["runs"]) == 6
    shown = said(record)
    assert max(map(len, shown.splitlines())) <= 80
    assert all(f"[{number}]" in shown for number in range(1, 7))


def test_a_damaged_run_is_said_to_be_one(folder: ExperimentFolder) -> None:
    bad, good = folder.runs()[:2]
    (bad.path / "result.json").write_text("{")
    record = compared([str(bad.path), str(good.path)], folder.path.parent)
    assert record["runs"][0]["state"] == "damaged"
    assert "not JSON" in record["runs"][0]["reason"]
    assert record["differences"] == {}, "nothing to compare with"
    assert "damaged" in said(record)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["bn", "gn_s00"], "the beginning of several runs: x/bn_s00_"),
        (["nobody", "gn_s00"], "no run 'nobody' in"),
        (["", "gn_s00"], "no run '' in"),
        (["bn_s00"], "there is only one run"),
        (["bn_s00", "x/bn_s00"], "is named twice"),
    ],
)
def test_what_cannot_be_compared_is_said(
    folder: ExperimentFolder, names: list[str], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        compared(names, folder.path.parent)


def test_a_run_is_found_by_its_hash_alone(folder: ExperimentFolder) -> None:
    name = folder.runs()[0].name
    record = compared([name.rpartition("_")[2], "bn_s01"], folder.path.parent)
    assert record["runs"][0]["run"] == name
