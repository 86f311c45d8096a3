"""What is printed into a pipe or a file has every word."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.commands import bnbench
from tests.report.invented import Told, invented
from tests.runs import SMALL_YAML

WIDE = "question: Which of them is better, and by how much, where batches are as small as these?\n"
WIDE += f"setups: {{{(NAME := 'a_name_of_a_setup_' * 4)}: {{norm: {{kind: none}}}}, bn: {{}}}}\n"
WIDE += "axes: {optim.lr: [0.01, 0.1]}\nseeds: 2\n"
WIDE += (
    "claims:\n  - {id: higher, says: it is higher in each batch that was tried as papers claim it,"
)
WIDE += f" metric: test/running/accuracy, better: bn@0.1, worse: {NAME}@0.1}}\n"

MODEL = f"""
import sys
sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
from tests.diagnosis.patients import *
def stale():
    return steps(network(momentum=0.001), 10), loader(count=256)
"""

COMMANDS = {
    "configs list": 0,
    "configs check x.yaml": 0,
    "explain": 0,
    "explain stale": 0,
    "status": 0,
    "status x": 0,
    "compare FIRST LAST": 0,
    "report x": 0,
    "sweep x.yaml": 0,
    "sweep x.yaml --dry-run": 0,
    "verdict r.csv --metric dice --better gn --worse bn --smallest-effect 0.005": 0,
    "verdict r.csv --metric no_metric_of_this_table --better gn --worse bn": 2,
    "diagnose m.py:stale --images 256": 0,
    "diagnose m.py:a_function_that_is_not_there": 2,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_word_is_lost_in_a_pipe(
    command: str, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where 200 columns are asked for."""
    for console in ("output", "errors"):  # which keep the COLUMNS that they were made with
        monkeypatch.setattr(f"bnbench.cli.root.{console}._width", None)
    monkeypatch.setattr("bnbench.report.writing.drawn", lambda *_: [])
    monkeypatch.setattr(sys, "path", [*sys.path])
    for told in ("guard.PATIENCE", "diagnosis.words.LONG_SECONDS"):  # which a busy machine reaches
        monkeypatch.setattr(f"bnbench.{told}", 1e6)
    runs = invented(own_folder, SMALL_YAML + WIDE, lambda _: Told()).runs()
    rows = [f"{name}-{n},{name},{n},{0.8 + n / 100}" for name in ("bn", "gn") for n in range(6)]
    Path("r.csv").write_text("\n".join(["run,norm,seed,dice", *rows]))
    Path("m.py").write_text(MODEL)
    places = {"FIRST": str(runs[0].path), "LAST": str(runs[-1].path)}
    arguments = [places.get(each, each) for each in command.split()]
    monkeypatch.setenv("COLUMNS", "200")
    wide = bnbench(*arguments)
    monkeypatch.delenv("COLUMNS")
    piped = bnbench(*arguments)
    assert (wide.code, piped.code) == (COMMANDS[command],) * 2, piped
    for asked, found in zip(wide[1:], piped[1:], strict=True):
        assert found.replace("─", "").split() == asked.replace("─", "").split()
