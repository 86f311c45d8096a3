"""What fuzzing found: sentences stay short and printable, and are never cut off by an exception."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bnbench.config import datasets, plans

Complainer = Callable[..., str]
Planner = Callable[..., plans.Plan]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"\u202ea": 1', "x.yaml:1:1: \\u202ea is not a key of an experiment"),
        ('optim: {"\u202ea": 1}', 'x.yaml:1:9: optim.\\u202ea is not a key of kind "sgd"'),
    ],
)
def test_keys_are_printable_too(faults: Complainer, text: str, expected: str) -> None:
    assert faults(text).startswith(expected)


def test_a_terminal_obeys_no_argument(faults: Complainer) -> None:
    assert faults("", "\x1b[31m=1").startswith("--set \\x1b[31m: \\x1b[31m is not a key\n")
    assert "\x1b" not in faults("", over=("\x1b[31m=1",))


def test_endless_keys_are_cut(faults: Complainer, plan: Planner) -> None:
    name = "a" * 101
    said = f"the key {'a' * 59}… is longer than 100 characters"
    assert faults(f"setups: {{{name}: {{}}}}") == f"x.yaml:1:10: {said}"
    assert faults("", f"{name}=1") == f"--set {'a' * 59}…: {said}"
    assert len(plan(f"setups: {{{name[1:]}: {{}}}}").runs) == 1


def test_a_thousand_keys_are_enough(faults: Complainer) -> None:
    keys = ", ".join(f"k{i}: 1" for i in range(1001))
    said = faults(f"optim: {{{keys}}}")
    assert said.endswith(": more than 1,000 keys in one mapping")


def test_endless_faults_are_counted(faults: Complainer) -> None:
    lines = faults("".join(f"k{i}: 1\n" for i in range(150))).splitlines()
    places = [line for line in lines if line.startswith("x.yaml")]
    assert len(places) == 101
    assert places[99].startswith("x.yaml:100:1: k99 is not a key")
    assert places[100] == "x.yaml:101:1: 50 more faults from here"


def test_a_fault_at_the_end_of_a_text_stands_in_it(faults: Complainer) -> None:
    expected = 'x.yaml:2:5: this is not YAML: a ":" is missing after a key'
    assert faults("a: b\nc, '") == expected


def test_mappings_inside_of_axis_values(faults: Complainer, plan: Planner) -> None:
    said = "x.yaml:1:24: model.widths[0] must be a whole number from 1 to 65,536, not a mapping"
    assert faults("axes: {model.widths: [[{a: 1}]]}") == said
    Path("own.py").write_text("class Own: ...")
    text = """
        norm: {kind: custom, target: own.py:Own}
        axes: {norm.options.a: [[{b: 1, c: 2}], [{c: 2, b: 1}], [{b: 2, c: 1}]]}
    """
    assert len(plan(text).runs) == 2


@pytest.mark.parametrize("path", ["a" * 3000, "/".join("a" * 3000)])
def test_endless_paths_are_refused_in_a_line(faults: Complainer, path: str) -> None:
    said = faults(f"data: {{dataset: image-folder, image_size: 8, root: {path}}}")
    assert said.startswith("x.yaml:1:46: data.root: /")
    assert said.endswith("… cannot be read: File name too long")
    said = faults(f"norm: {{kind: custom, target: {path}.py:Own}}")
    assert len(said.splitlines()[0]) < 300


def test_image_folders_are_counted_as_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for part in ("train", "test"):
        for label in ("cat", "dog", ".hidden"):
            folder = Path("images", part, label)
            (folder / "deeper").mkdir(parents=True)
            for name in ("a.gif", "b.PNG", ".c.png", "d.txt", "deeper/e.png"):
                (folder / name).write_bytes(b"")
            for name in ("loop", "another"):
                (folder / name).symlink_to(Path("..").absolute())
    found = datasets.folder_facts(str(Path("images").absolute()), 3, 8)
    assert (found.train_images, found.test_images, found.classes) == (4, 4, 2)
