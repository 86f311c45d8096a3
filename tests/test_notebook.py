"""`bnbench.sweep` and `bnbench.open`: the command line's results from Python."""

from __future__ import annotations

import ast
import json
import sys
from dataclasses import fields
from html import unescape
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

import bnbench
from bnbench.errors import ConfigError, UsageError
from bnbench.notebook import Bar, _screen
from bnbench.sweeps.jobs import SweepOptions
from tests import commands
from tests.processes import completed
from tests.report.invented import Told, invented

ROOT = Path(__file__).resolve().parents[1]
STUDY: dict[str, Any] = {
    "experiment": "x",
    "question": "Which <one>?",
    "data": {"dataset": "synthetic", "train_images": 96, "test_images": 32, "classes": 4,
             "validation_size": 32},
    "model": {"widths": [4, 4, 4]},
    "train": {"steps": 2},
    "setups": {"bn": {}, "none": {"norm": {"kind": "none"}}},
    "seeds": 2,
    "claims": [{"id": "a", "says": "bn is better", "metric": "val/running/accuracy",
                "better": "bn", "worse": "none"}],
}  # fmt: skip
TEXT = """\
question: Which one?
setups: {none: {norm: {kind: none}}, bn: {}}
axes: {data.batch_size: [8, 32]}
seeds: 6
claims:
  - {id: a, says: s, metric: test/running/accuracy, better: bn@8, worse: none@8}
"""


def test_what_the_command_line_says_of_a_sweep_can_be_said_here() -> None:
    options = {each.name for each in fields(SweepOptions)} - {"environment"}  # no one types it
    assert options <= signature(bnbench.sweep).parameters.keys()


def test_a_study_as_a_mapping_is_the_one_of_the_command_line(
    own_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    study = bnbench.sweep(STUDY, set={"optim.lr": 0.05}, quiet=True)
    assert capfd.readouterr() == ("", "")
    (own_folder / "x.yaml").write_text(json.dumps(STUDY))  # JSON is YAML
    said = commands.bnbench("sweep", "x.yaml", "--set", "optim.lr=0.05", "--json")
    assert said.code == 0
    assert "trained" not in said.err, "all is there"
    assert {run["run"] for run in json.loads(said.out)} == {
        run["run"] for run in study.record["runs"]
    }
    assert study.path == Path("runs/x")
    assert len(study.record["runs"]) == 4


def test_over_adds_an_axis_and_paths_start_in_the_working_directory(own_folder: Path) -> None:
    layer = (
        "from torch import nn\n\n\nclass Mine(nn.Identity):\n    def __init__(self, channels):\n"
    )
    (own_folder / "mine.py").write_text(f"{layer}        super().__init__()\n")
    norm = {"norm": {"kind": "custom", "target": "mine.py:Mine"}}
    study = bnbench.sweep(
        STUDY | {"setups": {"mine": norm}, "claims": []},
        over={"optim.lr": [0.1, 0.2]},
        seeds=1,
        quiet=True,
    )
    assert [run["point"]["optim.lr"] for run in study.record["runs"]] == [0.1, 0.2]
    assert {run["state"] for run in study.record["runs"]} == {"completed"}


OWN = """\
import numpy as np


def load():
    images = np.random.default_rng(0).integers(0, 256, (96, 8, 8), np.uint8)
    return (images, np.arange(96) % 4), (images[:32], np.arange(32) % 4)
"""


def test_images_of_the_users_own_are_prepared(own_folder: Path) -> None:
    (own_folder / "own.py").write_text(OWN)
    data = {"dataset": "custom", "target": "own.py:load", "validation_size": 32}
    study = bnbench.sweep(STUDY | {"data": data, "claims": []}, seeds=1, quiet=True)
    assert {run["state"] for run in study.record["runs"]} == {"completed"}


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize(
    ("study", "error", "words"),
    [
        ({"norm": {"knid": "batch"}}, ConfigError, "study: norm.knid is not a key"),
        ({"norm": {"kind": print}}, UsageError, "norm.kind: a builtin_function_or_method"),
        ("nowhere.yaml", UsageError, "no shipped experiment"),
        ("claims", UsageError, "holds several experiments"),
    ],
)
def test_what_is_wrong_is_a_sentence(study: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as raised:
        bnbench.sweep(study, quiet=True)
    assert words in str(raised.value)


def test_what_is_opened_is_what_the_report_says(own_folder: Path) -> None:
    folder = invented(own_folder, TEXT, lambda config: Told(test=0.5 + 0.01 * config.seed))
    study = bnbench.open("x")
    assert commands.bnbench("report", "x").code == 0
    written = json.loads((folder.path / "report.json").read_text())
    assert study.verdicts == {"a": written["claims"][0]}
    assert {**study.record, "written": ""} == {**written, "written": ""}
    assert repr(study) == "\n".join(["Which one?", *written["answer"]])
    shown = study._repr_html_()
    assert shown.startswith("<iframe ")
    page = unescape(shown.partition('srcdoc="')[2].rpartition('" style=')[0])
    when = (study.record["written"], written["written"])
    assert page.replace(*when) == (folder.path / "report.html").read_text()


def test_tables(own_folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    folder = invented(own_folder, TEXT, lambda _: Told(curve=[0.25, 0.5], test=0.75))
    study = bnbench.open(folder.path)
    runs = study.to_pandas()
    assert len(runs) == 24
    assert set(runs["test/running/accuracy"]) == {0.75}
    assert commands.bnbench("report", "x").code == 0
    assert list(runs.columns) == list(pandas.read_csv(folder.path / "report.csv").columns)
    curves = study.curves()
    one = curves.query("setup == 'bn' and seed == 3 and split == 'val' and stats == 'running'")
    one = one[one["data.batch_size"] == 8]
    assert one[["step", "examples", "accuracy"]].values.tolist() == [[10, 1000, 0.25],
                                                                     [20, 2000, 0.5]]  # fmt: skip


def test_without_pandas_it_is_said(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    study = bnbench.open(invented(own_folder, TEXT, lambda _: Told()).path)
    with pytest.raises(UsageError, match="pip install pandas"):
        study.to_pandas()


def test_opening_needs_no_torch(own_folder: Path) -> None:
    invented(own_folder, TEXT, lambda _: Told())
    code = "import sys; sys.modules['torch'] = None; import bnbench; repr(bnbench.open('x'))"
    completed(sys.executable, "-c", code)


def test_the_functions_for_python_are_listed_before_any_is_used() -> None:
    """And nothing else comes with a star."""
    code = "import bnbench; print(*dir(bnbench)); from bnbench import *; print(*dir())"
    done = completed(sys.executable, "-c", code)
    listed, star = (
        {each for each in line.split() if not each.startswith("__")}
        for line in done.stdout.splitlines()
    )
    functions = {"Study", "diagnose", "open", "swap", "sweep", "watch"}
    assert functions <= listed
    assert star - {"bnbench"} == functions


@pytest.mark.slow
def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    study = f"bnbench.sweep({STUDY!r}, workers=2, quiet=True)"
    script.write_text(f"import bnbench\nprint('once')\nprint(len({study}.record['runs']))\n")
    assert completed(sys.executable, script, cwd=tmp_path).stdout == "once\n4\n"


def test_in_a_notebook_one_line_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from rich.console import Console

    shown: list[dict[str, str]] = []
    handle = SimpleNamespace(update=lambda bundle, **_: shown.append(bundle))

    def display(bundle: dict[str, str], **_: bool) -> SimpleNamespace:
        shown.append(bundle)
        return handle

    shell = SimpleNamespace(kernel=object())
    python = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", python)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    with _screen(Console(), 3) as screen:
        assert isinstance(screen, Bar)
        screen.advance(done=2, diverged=1, failed=0, seconds_left=40, busy=False)
    assert shown[1]["text/plain"] == "2 of 3, 1 diverged, 40 s left"
    assert 'value="2" max="3"' in shown[1]["text/html"]
    assert shown[-1] == {"text/plain": "", "text/html": ""}, "it goes away"
    assert not isinstance(_screen(Console(quiet=True), 3), Bar)


def cells() -> list[str]:
    """The code of the notebook, cell by cell."""
    notebook = json.loads((ROOT / "scripts/claims.ipynb").read_text())
    return ["".join(each["source"]) for each in notebook["cells"] if each["cell_type"] == "code"]


@pytest.mark.slow
@pytest.mark.usefixtures("own_folder")
def test_the_notebook_runs_from_top_to_bottom() -> None:
    data = {"dataset": "synthetic", "train_images": 544, "validation_size": 32, "test_images": 32,
            "train_size": None, "image_size": 8}  # fmt: skip
    quick = {**{f"data.{key}": value for key, value in data.items()},
             "train.steps": 2, "train.evaluations": 1, "train.evaluation_images": 32,
             "model.widths": [4, 4, 4]}  # fmt: skip
    names: dict[str, Any] = {}
    shown = []
    for cell in cells():
        if find_spec("pandas") is None and ("to_pandas" in cell or "curves()" in cell):
            continue
        *before, last = ast.parse(cell).body
        exec(compile(ast.Module(before, []), "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names))
        else:
            exec(compile(ast.Module([last], []), "cell", "exec"), names)
        if "OPTIONS" in names:
            names["OPTIONS"] = {"seeds": 1, "set": quick, "quiet": True}
    pages = [each._repr_html_() for each in shown if isinstance(each, bnbench.Study)]
    assert len(pages) == 7
