"""What a layer of the user's own imports from its folder: found, run, and part of identity."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest

from bnbench.assemble.custom import forget, load_class
from bnbench.config import custom
from bnbench.errors import ConfigError

LAYER = """\
from helpers_of_mine.scale import FACTOR
from torch import nn


class Layer(nn.Module):
    factor = FACTOR

    def lazily(self):
        import later_of_mine

        return later_of_mine.VALUE
"""


def written(folder: Path, factor: int) -> Path:
    """A layer, its package with a relative import, and a module that is imported when called."""
    package = folder / "helpers_of_mine"
    package.mkdir(parents=True, exist_ok=True)
    (folder / "layer.py").write_text(LAYER)
    (folder / "later_of_mine.py").write_text(f"VALUE = {factor}\n")
    (folder / "unrelated.py").write_text("1 / 0\n")
    (package / "__init__.py").write_text("")
    (package / "scale.py").write_text("from .deep import FACTOR\n")
    (package / "deep.py").write_text(f"FACTOR = {factor}\n")
    return folder / "layer.py"


def test_what_is_imported_is_found_by_reading(tmp_path: Path) -> None:
    layer = written(tmp_path, 2)
    assert [each.relative_to(tmp_path).as_posix() for each in custom.files_of(layer)] == [
        *("layer.py", "helpers_of_mine/__init__.py", "helpers_of_mine/deep.py"),
        *("helpers_of_mine/scale.py", "later_of_mine.py"),
    ]


def test_each_content_is_run_and_none_leaks_into_another_folder(tmp_path: Path) -> None:
    a, b = written(tmp_path / "a", 2), written(tmp_path / "b", 3)
    for path, factor in ((a, 2), (b, 3), (a, 2)):
        layer: Any = load_class(f"{path}:Layer", "norm.target")
        assert layer.factor == factor
        assert layer().lazily() == factor
    written(tmp_path / "a", 7)
    again: Any = load_class(f"{a}:Layer", "norm.target")
    assert again.factor == 7
    assert not {str(tmp_path / "a"), str(tmp_path / "b")} & {*sys.path}
    assert not [*tmp_path.rglob("__pycache__")]


def test_files_are_run_again_for_each_run(tmp_path: Path) -> None:
    layer = written(tmp_path, 2)
    (tmp_path / "helpers_of_mine" / "__init__.py").unlink()
    other = "from helpers_of_mine import scale\nFACTOR = scale.FACTOR"
    layer.write_text(LAYER.replace("from helpers_of_mine.scale import FACTOR", other))
    for _ in range(2):
        found: Any = load_class(f"{layer}:Layer", "norm.target")
        assert found.factor == 2
        sys.modules["helpers_of_mine.scale"].FACTOR = 5  # type: ignore[attr-defined]
        forget()


@pytest.mark.parametrize("file", ["layer.py", "later_of_mine.py", "helpers_of_mine/deep.py"])
def test_a_file_that_cannot_run_again_is_kept(
    tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, there = written(tmp_path, 2), tmp_path / file
    monkeypatch.setattr(sys, "once", [], raising=False)
    once = "import sys\nif sys.once: raise KeyError('twice')\nsys.once.append(1)\n"
    there.write_text(once + there.read_text())
    for runs_between in (0, 1, 2):
        found: Any = load_class(f"{layer}:Layer", "norm.target")
        assert (found.factor, found().lazily()) == (2, 2)
        for _ in range(1 + runs_between):
            forget()
    there.write_text(f"{there.read_text()}# another\n")
    with pytest.raises((ConfigError, KeyError), match="twice"):
        vars(load_class(f"{layer}:Layer", "norm.target"))["lazily"](None)


def test_identity_covers_them_and_a_file_alone_keeps_its_own(tmp_path: Path) -> None:
    layer = written(tmp_path, 2)
    before = custom.content_hash(layer)
    (tmp_path / "unrelated.py").write_text("2 / 0\n")
    assert custom.content_hash(layer) == before
    assert custom.content_hash(written(tmp_path / "elsewhere", 2)) == before
    written(tmp_path, 3)
    assert custom.content_hash(layer) != before
    alone = tmp_path / "alone.py"
    alone.write_text("import json, torch, other_of_mine\n")
    (tmp_path / "json.py").write_text("1 / 0\n")  # Python's own is imported long before
    (tmp_path / "other_of_mine").mkdir()  # a folder of something else
    assert custom.content_hash(alone) == hashlib.sha256(alone.read_bytes()).hexdigest()


def test_a_fault_in_one_names_its_file_and_line(tmp_path: Path) -> None:
    layer = written(tmp_path, 2)
    (tmp_path / "helpers_of_mine" / "deep.py").write_text("FACTOR = 1\n1 / 0\n")
    with pytest.raises(ConfigError, match=r"deep\.py:2: ZeroDivisionError"):
        load_class(f"{layer}:Layer", "norm.target")


def test_they_come_along_to_another_machine(tmp_path: Path) -> None:
    layer = written(tmp_path, 4)
    sent = {str(path): custom.content(path) for path in custom.files_of(layer)}
    for path in [*tmp_path.rglob("*.py")]:
        path.unlink()
    with custom.received(sent):
        sent_one: Any = load_class(f"{layer}:Layer", "norm.target")
        assert sent_one.factor == 4
