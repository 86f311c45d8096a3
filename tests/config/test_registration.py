"""What was decided before: written into the file, compared afterwards, and what changes it."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from bnbench.config import files, loading, plans, registration
from bnbench.config.schema import RegisteredConfig

TEXT = """\
# why
train: {steps: 20}
setups:
  bn: {norm: {kind: batch}}
  gn: {norm: {kind: group, groups: 2}, train: {steps: 40}}
axes: {optim.lr: [0.1, 0.01]}
tune: {axis: optim.lr}
seeds: 6
claims:
  - {id: a, says: better, metric: test/running/accuracy, better: bn, worse: gn, smallest_effect: 1}
"""
WHEN = datetime(2026, 1, 2, tzinfo=UTC)


def lines_of(path: Path, *sets: str) -> tuple[str, ...]:
    experiment = loading.load_experiment(path, loading.Overrides(set=sets))
    return registration.decided(experiment, plans.expand(experiment).runs)


def registered(tmp_path: Path, text: str = TEXT) -> tuple[Path, RegisteredConfig]:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    file.write_text(registration.registered(text, lines_of(file), WHEN))
    then = loading.load_experiment(file).registered
    assert then is not None
    return file, then


def test_a_file_that_is_registered_says_so(tmp_path: Path) -> None:
    file, then = registered(tmp_path)
    assert then.date == "2026-01-02T00:00:00+00:00"
    assert then.sha256 == sha256("\n".join(then.decided).encode()).hexdigest()
    assert then.decided == lines_of(file)
    assert registration.changes(then, lines_of(file)) == []
    assert file.read_text().startswith(TEXT)
    for line in (
        "seeds: 0, 1, 2, 3, 4, 5",
        "tune: axis optim.lr; by val/accuracy",
        "setup gn: norm.groups 2; norm.kind group; train.steps 40",
        "claim a: better bn; metric test/running/accuracy; smallest_effect 1; worse gn",
    ):
        assert line in then.decided
    (optim,) = (line for line in then.decided if line.startswith("optim: "))
    assert "; lr 0.01, 0.1;" in optim


def test_a_key_that_came_later_changes_no_registration_at_its_default(tmp_path: Path) -> None:
    file, then = registered(tmp_path)
    (model,) = (line for line in then.decided if line.startswith("model: "))
    assert "kernel" not in model
    now = lines_of(file, "model.kernel=5")
    assert registration.changes(then, now) == ["model: kernel 5, registered nothing"]


def test_registered_again_there_is_one_registration(tmp_path: Path) -> None:
    file, _ = registered(tmp_path)
    text = file.read_text()
    assert registration.registered(text, lines_of(file), WHEN) == text
    assert registration.unregistered(text) == TEXT
    in_between = text.replace("# why\n", "") + "question: which?\n"
    assert (
        registration.unregistered(in_between) == TEXT.replace("# why\n", "") + "question: which?\n"
    )


CHANGES = [
    ("seeds: 6", "seeds: [8, 9]", "seeds: 8, 9, registered 0, 1, 2, 3, 4, 5"),
    ("smallest_effect: 1", "smallest_effect: 0.5",
     "claim a: smallest_effect 0.5, registered smallest_effect 1"),
    ("worse: gn, ", "worse: gn, direction: two-sided, ",
     "claim a: direction two-sided, registered nothing"),
    ("{id: a,", "{id: b,", "claim b is new"),
    ("[0.1, 0.01]", "[0.1, 0.3]", "optim: lr 0.1, 0.3, registered lr 0.01, 0.1"),
    ("groups: 2", "groups: 4", "setup gn: norm.groups 4, registered norm.groups 2"),
    ("steps: 40", "steps: 40, evaluations: 3", "setup gn: train.evaluations 3"),
    ("says: better", "says: much better", None),  # words decide nothing
    ("# why", "# another comment", None),
    ("decided:\n    - ", "decided:\n    - \"x: y\"\n    - ", "the registration itself was changed"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "said"), CHANGES)
def test_what_has_changed_is_listed(tmp_path: Path, old: str, new: str, said: str | None) -> None:
    file, _ = registered(tmp_path)
    text = file.read_text()
    head, mark, block = text.partition("registered:  #")
    part = f"{head.replace(old, new)}{mark}{block}" if old in head else text.replace(old, new)
    file.write_text(part)
    then = loading.load_experiment(file).registered
    assert then is not None
    found = registration.changes(then, lines_of(file))
    assert (found == []) if said is None else any(each.startswith(said) for each in found), found


def test_the_command_line_is_seen_as_well_and_the_folders_file_keeps_it(tmp_path: Path) -> None:
    file, then = registered(tmp_path)
    assert registration.changes(then, lines_of(file, "optim.momentum=0.5")) == [
        "optim: momentum 0.5, registered momentum 0.9"
    ]
    experiment = loading.load_experiment(file, loading.Overrides(set=("optim.momentum=0.5",)))
    kept = tmp_path / "kept.yaml"
    kept.write_text(files.dump_experiment(experiment))
    assert loading.load_experiment(kept).registered == then
    assert "registered" not in files.renamed(file.read_text(), "mine", "schema.json")
