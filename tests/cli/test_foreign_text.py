"""Text of someone else on the screen: names, reasons, messages, whatever characters are in them."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bnbench import cli
from bnbench.cli.root import PlainConsole
from bnbench.config.yaml import UNPRINTABLE
from bnbench.store import ExperimentFolder
from bnbench.wording import printable
from tests.commands import bnbench
from tests.executors import InProcess
from tests.report.invented import Told, invented
from tests.runs import SMALL_YAML

HOSTILE = "\x1b]0;owned\x07\x1b[2Jgone"
SPOOFED = "fine\u202egnp.exe\u2028\x85\x9b31m\u200b\ud800\r\nbnbench: all is well"
MARKUP = "a:x:b [8] [red]c[/red] $x_ $y$ :100: {0} %s | *b* <script>&amp; 💯"


@pytest.fixture(autouse=True)
def _wide_and_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for console in ("output", "errors"):  # which keep the COLUMNS that they were made with
        monkeypatch.setattr(f"bnbench.cli.root.{console}._width", 400)
    monkeypatch.setattr("bnbench.sweeps.workers.Workers", InProcess)


def screen(*arguments: str, codes: tuple[int, ...] = (0, 1)) -> str:
    """What a command prints, of which a terminal obeys nothing."""
    result = CliRunner().invoke(cli.app, list(arguments))
    said = result.output + result.stderr
    assert result.exit_code in codes, said
    assert "unexpected" not in said
    obeyed = {char for char in said if char != "\n" and unicodedata.category(char)[0] == "C"}
    assert not obeyed, f"{arguments}: {obeyed} in {said!r}"
    return said


def stored(path: Path, setup: str) -> ExperimentFolder:
    """An experiment of two setups, one with this name, as it is after a sweep."""
    quoted = "".join(f"\\U{ord(char):08x}" for char in setup)
    text = f'{SMALL_YAML}setups: {{"{quoted}": {{}}, other: {{norm: {{kind: none}}}}}}\n'
    return invented(path, text, lambda _: Told())


def inside(name: str) -> bool:
    """Whether a YAML file may have it as a name: of some length, without control characters."""
    return 0 < len(name.strip()) <= 60 and not UNPRINTABLE.search(name) and name != "other"


def squeezed(text: str) -> str:
    """The words with one space in between."""
    return " ".join(text.split())


@given(setup=st.text(max_size=20).map("gn{}".format).filter(inside))
@example(setup=MARKUP)
@example(setup="a\u202eb\u2028c\u200bd\nf\te")
@settings(max_examples=4)
def test_a_setup_is_shown_under_its_name(setup: str) -> None:
    with TemporaryDirectory() as folder:
        experiment = stored(Path(folder), setup)
        screen("status", str(experiment.path))
        first, second = (str(run.path) for run in experiment.runs())
        screen("compare", first, second)
        runs_dir = str(experiment.path.parent)
        said = screen("sweep", str(Path(folder) / "x.yaml"), "--runs-dir", runs_dir)
        for line in printable(setup, keep="\n\t").split("\n"):
            assert squeezed(line) in squeezed(said)  # a tab's width depends on the column


@given(text=st.text(max_size=30))
@example(text=HOSTILE)
@example(text=SPOOFED)
@example(text=MARKUP)
@settings(max_examples=6)
def test_reasons_and_messages_of_a_stored_run_are_text(text: str) -> None:
    with TemporaryDirectory() as folder:
        experiment = stored(Path(folder), "bn")
        first, second = experiment.runs()
        (first.path / "result.json").unlink()
        (first.path / "error.json").write_text(json.dumps({"error": "X", "message": text}))
        result = json.loads((second.path / "result.json").read_text())
        counted = {key: value for key, value in result.items() if not isinstance(value, dict)}
        counted |= {"state": "diverged", "step": 1, "reason": text}
        counted.pop("seal", None)
        (second.path / "result.json").write_text(json.dumps(counted))
        runs, file = ("--runs-dir", str(experiment.path.parent)), str(Path(folder) / "x.yaml")
        said = screen("status", "x", *runs)
        assert len(said.splitlines()) <= 4, "a reason is one line"
        screen("compare", str(first.path), str(second.path))
        screen("sweep", file, "--quiet", *runs)


@pytest.mark.parametrize("text", [HOSTILE, SPOOFED, MARKUP])
def test_a_report_of_such_text_is_whole(tmp_path: Path, text: str) -> None:
    """On the screen, in the page and in its figures."""
    name = MARKUP if text == MARKUP else "".join(each for each in text if inside(each))[:40]
    experiment = stored(tmp_path, name)
    for run in experiment.runs():
        manifest = json.loads((run.path / "manifest.json").read_text())
        manifest |= {"machine": text, "command": [text]}
        (run.path / "manifest.json").write_text(json.dumps(manifest))
        result = json.loads((run.path / "result.json").read_text())
        result.pop("seal", None)
        (run.path / "result.json").write_text(json.dumps(result))
    said = screen("report", "x", "--runs-dir", str(tmp_path / "runs"))
    if text == MARKUP:
        assert name in said
        assert (
            name
            in " ".join(
                "".join(ElementTree.parse(path).getroot().itertext())
                for path in (experiment.path / "figures").glob("accuracy*.svg")
            )
            or name[:20] in (experiment.path / "report.html").read_text()
        )
    for path in (experiment.path / "figures").glob("*.svg"):
        ElementTree.parse(path)
    assert "<script>&amp;" not in (experiment.path / "report.html").read_text()


def test_a_fault_is_shown_at_its_line(tmp_path: Path) -> None:
    """`:100:` is the name of an emoji."""
    (tmp_path / "t.yaml").write_text("#\n" * 99 + "sedes: 1\n")
    said = screen("configs", "check", str(tmp_path / "t.yaml"), codes=(2,))
    assert f"{tmp_path / 't.yaml'}:100:1" in said.replace("\n", "")


def test_names_of_files_and_folders_are_text(tmp_path: Path) -> None:
    place = tmp_path / "a:x:b [8]\x1b[2J*?"
    place.mkdir()
    experiment = stored(place, "bn")
    runs = ("--runs-dir", str(experiment.path.parent))
    assert "a:x:b [8]\\x1b[2J*?" in screen("report", "x", *runs)
    screen("sweep", str(place / "x.yaml"), "--dry-run", *runs)
    screen("tensorboard", "x", "--rebuild", *runs)
    screen("report", "none\x1b[2J", *runs, codes=(2,))
    (experiment.path.parent / "y\x1b[2J").mkdir()
    (experiment.path.parent / "y\x1b[2J" / "experiment.yaml").write_text("seeds: 1\n")
    assert "y\\x1b[2J" in screen("status", *runs)


@given(text=st.text())
@example(text=HOSTILE)
@example(text=SPOOFED)
def test_nothing_that_is_printed_is_obeyed(text: str) -> None:
    """By the console itself: text, styled text, cells and headings of tables."""
    from io import StringIO

    from rich.table import Table
    from rich.text import Text

    file = StringIO()
    console = PlainConsole(file=file, width=500)
    table = Table(text, title=text, caption=text)
    table.add_row(text)
    for part in (text, Text(text, style="bold"), Text.assemble((text, "red"), text), table):
        console.print(part)
    assert all(char.isprintable() or char in "\n\t" for char in file.getvalue())


ODD = "no\nwhere\x1b[31m"


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "--runs-dir", ODD],
        ["status", ODD],
        ["report", ODD],
        ["report", "x", "--runs-dir", ODD],
        ["compare", ODD, "b"],
        ["tensorboard", "--runs-dir", ODD],
        ["train", ODD],
        ["explain", ODD],
        ["diagnose", f"{ODD}.py:make"],
    ],
)
def test_a_newline_in_a_name_begins_no_line(own_folder: Path, arguments: list[str]) -> None:
    assert not any(own_folder.iterdir())
    said = bnbench(*arguments)
    assert "no\n" not in said.out + said.err
    assert "\x1b" not in said.out + said.err


def test_an_empty_key_is_seen(own_folder: Path) -> None:
    (own_folder / "x.yaml").write_text('"": 3\ntrain: {"": 3}\nnorm: {kind: group, "": 1}\n')
    said = bnbench("configs", "check", "x.yaml")
    assert 'x.yaml:1:1: "" is not a key of an experiment' in said.err
    assert 'x.yaml:2:9: train."" is not a key of train' in said.err
    assert 'norm."" is not a key of kind "group"' in said.err


def test_what_cannot_be_set_on_the_command_line_is_said(own_folder: Path) -> None:
    (own_folder / "x.yaml").write_text("{}")
    said = bnbench("configs", "check", "x.yaml", "--set", "claims=[]")
    assert said.err == (
        "--set claims: claims is not a key\n  claims can only stand at the top of the file\n"
    )


def test_a_path_that_is_not_utf8_is_said(own_folder: Path) -> None:
    folder = own_folder / "b\udcff"
    folder.mkdir()
    (folder / "l.py").write_text("class L: pass\n")
    (folder / "x.yaml").write_text("norm: {kind: custom, target: l.py:L}\n")
    said = bnbench("configs", "check", str(folder / "x.yaml"))
    assert said.code == 2
    assert "norm.target: this path is not UTF-8, which no configuration can hold" in said.err
    (own_folder / "x.yaml").write_text("{}")
    sets = ("--set", f"data.root={folder}")
    said = bnbench("configs", "check", "x.yaml", *sets)
    assert said.err.startswith("--set data.root: a byte here is not UTF-8")
