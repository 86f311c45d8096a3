"""`scripts/torture` at a thousandth of its size, and that it would notice what is wrong."""

from __future__ import annotations

import random
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bnbench import store
from bnbench.runner.execution import execute
from bnbench.store import Appender, RunFolder, files
from tests import disturbed, disturbed_commands
from tests.config.fuzzing import judge
from tests.config.hostile import hostile
from tests.injection import kills
from tests.processes import completed
from tests.stub import build_stub

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")
def test_a_thousandth_of_it_finds_nothing(tmp_path: Path) -> None:
    completed(
        *(sys.executable, "scripts/torture", "--share", "0.001", "--folder", tmp_path),
        *("--lanes", "1", "--write", tmp_path / "table.md"),
        cwd=REPOSITORY,
    )
    table = (tmp_path / "table.md").read_text()
    assert table.count("| 1 | 1 | 1 | 2 |") == 6, "each command is killed, and has a bad disk, once"
    assert re.search(r"^\| 100 \| \d+ \| \d+ \| 0 \| 0 \|", table, re.MULTILINE)
    assert "0 faults" in table


def test_hostile_configurations_are_of_both_kinds_and_of_every_length() -> None:
    cases = [hostile(random.Random(number)) for number in range(60)]
    outcomes = Counter(judge(case) for case in cases)
    assert set(outcomes) <= {"refused", "valid"}
    assert outcomes["refused"] > 40
    assert max(len(case.data) for case in cases) > 10_000
    assert hostile(random.Random(7)) == hostile(random.Random(7))


def train(place: Path) -> disturbed_commands.Command:
    """A command without a template."""
    return disturbed_commands.commands(place / "template")["train"]


@pytest.mark.slow
@pytest.mark.parametrize("bug", ["none", "no temporary file", "events are not cut"])
def test_negative_control_a_bad_disk_shows_a_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: str
) -> None:
    """Only kills at operations on the file that the bug concerns, to be quick."""

    def in_place(path: Path, content: bytes, **_: Any) -> None:
        with files.translated(path), path.open("wb") as file:
            file.write(content)

    def uncut(folder: RunFolder, keep: int = 0, *_: Any) -> Appender:
        path = folder.path / "metrics.jsonl"
        return Appender(path, keep=path.stat().st_size if keep else 0)

    if bug == "no temporary file":
        monkeypatch.setattr(files, "replace_content", in_place)
    if bug == "events are not cut":
        monkeypatch.setattr(RunFolder, "metrics", uncut)
    chosen = "checkpoint.pt" if bug == "events are not cut" else "result.json"

    def some(seen: list[str]) -> list[Any]:
        return [each for each in kills(seen) if f" {chosen}" in seen[each[0] - 1]]

    monkeypatch.setattr(disturbed, "kills", some)
    monkeypatch.setattr(disturbed, "ERRORS", ())
    counts = disturbed.Counts()
    disturbed.disturb(train(tmp_path), tmp_path / "work", counts)
    assert counts.disturbances["train"] > 0
    assert bool(counts.faults) == (bug != "none")


def test_negative_control_a_difference_is_noticed(tmp_path: Path) -> None:
    command = train(tmp_path)
    place = tmp_path / "place"
    place.mkdir()
    command.before(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute, "__defaults__", (build_stub,))
        assert disturbed.here(place, command.arguments)[0] == 0
    whole = command.evidence(place)
    (run,) = store.experiments(place / "runs")[0].runs()
    path = run.path / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"accuracy": 0.5', b'"accuracy": 0.4', 1))
    assert command.evidence(place) != whole
