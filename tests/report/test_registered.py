"""What a report says of a file that was registered before its runs, or after."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from bnbench.config import loading, registration
from bnbench.report.reading import read_study
from bnbench.store import Record
from bnbench.sweeps import experiments, studies
from tests.commands import bnbench
from tests.report.invented import Told, invented, recorded, write_run

TEXT = """\
setups: {bn: {norm: {kind: batch}}, gn: {norm: {kind: group}}}
seeds: 6
claims: [{id: a, says: s, metric: val/running/accuracy, better: bn, worse: gn, smallest_effect: 1}]
"""


def record(path: Path, text: str) -> Record:
    """Its runs began on 2026-01-01."""
    tell = lambda config: Told(curve=[0.8 if config.setup == "bn" else 0.7])  # noqa: E731
    return recorded(read_study(invented(path, text, tell)))


def registered(path: Path, year: int, text: str = TEXT) -> str:
    study = read_study(invented(path, text, lambda _: Told()))
    lines = registration.decided(study.experiment, (run.config for run in study.runs))
    return registration.registered(text, lines, datetime(year, 1, 2, tzinfo=UTC))


def test_a_file_as_it_was_registered(tmp_path: Path) -> None:
    found = record(tmp_path, registered(tmp_path, 2025))
    assert found["registered"]["changed"] == []
    assert found["registered"]["runs_before"] == 0
    assert found["notices"][0]["text"] == "As registered on 2025-01-02."
    assert "1 claim, registered on 2025-01-02." in found["methods"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("smallest_effect: 1", "smallest_effect: 0.1",
         "claim a: smallest_effect 0.1, registered smallest_effect 1."),
        ("seeds: 6", "seeds: 7", "seeds: 0, 1, 2, 3, 4, 5, 6, registered 0, 1, 2, 3, 4, 5."),
    ],
)  # fmt: skip
def test_what_has_changed_since_then(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = registered(tmp_path, 2025).replace(old, new, 1)
    told = record(tmp_path, text)["notices"][0]["text"]
    assert told == f"Changed since it was registered on 2025-01-02: {said}"


def test_a_claim_that_is_trained_alone_is_judged_as_one_of_the_file(tmp_path: Path) -> None:
    other = "  {id: b, says: s, metric: val/running/accuracy, better: bn, worse: ln}]\n"
    text = TEXT.replace("setups: {", "setups: {ln: {norm: {kind: layer}}, ")
    text = registered(tmp_path, 2025, text.replace("}]\n", "},\n" + other))
    (tmp_path / "x.yaml").write_text(text)
    plan = partial(
        experiments.plan_all,
        str(tmp_path / "x.yaml"),
        max_runs=99,
        runs_dir=tmp_path,
        say=lambda _: None,
    )
    (alone,) = plan(loading.Overrides(claims=("a",)))
    assert {run.setup for run in alone.plan.runs} == {"bn", "gn"}
    studies.begin(alone.experiment, alone.folder, pytest.fail)
    for run in alone.plan.runs:
        write_run(run, alone.folder, Told(curve=[0.8 if run.setup == "bn" else 0.7]))
    found = recorded(read_study(alone.folder))
    assert "As registered on 2025-01-02." in [each["text"] for each in found["notices"]]
    first, second = found["claims"]
    assert (first["effect"]["p"], first["effect"]["p_adjusted"]) == (1 / 64, 2 / 64)
    assert (second["outcome"], second["effect"]) == ("inconclusive", None)
    (every,) = plan(loading.Overrides())
    assert every.folder == alone.folder
    assert len(every.plan.runs) == 18


def test_claims_that_came_after_the_data(tmp_path: Path) -> None:
    found = record(tmp_path, registered(tmp_path, 2027))
    assert found["registered"]["runs_before"] == 12
    assert found["notices"][0]["text"] == (
        "As registered on 2027-01-02. 12 runs began before it was registered."
    )


def test_a_file_that_was_not_registered(tmp_path: Path) -> None:
    found = record(tmp_path, TEXT)
    assert found["registered"] is None
    assert "1 claim, not registered before the first run." in found["methods"]
    assert not any("egistered" in each["text"] for each in found["notices"])


def test_one_command_registers_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("x.yaml")
    file.write_text(TEXT)
    said = bnbench("configs", "check", "x.yaml", "--register")
    assert said.code == 0
    assert said.out.startswith("registered: 1 claim, ")
    assert file.read_text().startswith(TEXT)
    digest = said.out.split()[3]
    assert f"sha256: {digest}" in file.read_text()
    file.write_text(TEXT)
    said = bnbench("configs", "check", "x.yaml", "--register", "--set", "optim.lr=0.2")
    assert said.code == 2
    assert "--set optim.lr=0.2 is not in it" in said.err
    file.write_text(TEXT.partition("claims")[0])
    said = bnbench("configs", "check", "x.yaml", "--register")
    assert said.code == 2
    assert "has no claims to register" in said.err
    assert "registered" not in file.read_text()
