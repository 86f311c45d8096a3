"""What stands on the screen before anything that takes long, in real processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bnbench.store import ExperimentFolder
from tests.processes import completed, in_terminal
from tests.runs import a_result, end, write_experiment

STUDY = "setups: {none: {norm: {kind: none}}, bn: {}}\n"


def at_import(module: str, do: str, arguments: list[str]) -> list[str]:
    """A command line of Python: bnbench, with `do` done when the module is first looked for."""
    code = (
        "import os, signal, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}: {do}\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"sys.argv = ['bnbench', *{arguments!r}]\n"
        "from bnbench.__main__ import main\n"
        "main()"
    )
    return [sys.executable, "-c", code]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    write_experiment(tmp_path / "study.yaml", STUDY)
    end(ExperimentFolder(tmp_path / "runs" / "other").run("bn_s00_0123abcd"), "", a_result())
    (tmp_path / "m.py").write_text("")


@pytest.mark.parametrize(
    ("arguments", "module", "doing"),
    [
        (["train", "default"], "torch", "loading PyTorch …"),
        (["sweep", "study.yaml"], "tensorboard", "reading what is stored …"),
        (
            ["configs", "check", "study.yaml"],
            "torch",
            "loading PyTorch, and checking the networks …",
        ),
        (["diagnose", "m.py:make"], "torch", "loading PyTorch …"),
        (["report", "study"], "matplotlib", "reading the runs …"),
        (["tensorboard"], "tensorboard", "loading TensorBoard, and reading the runs …"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_being_done_is_shown_before_anything_heavy_is_imported(
    arguments: list[str], module: str, doing: str
) -> None:
    command = at_import(module, "os.write(2, b'HEAVY'); os._exit(7)", arguments)
    code, shown = in_terminal(*command)
    assert code == 7, shown
    assert doing in shown.partition("HEAVY")[0]
    piped = completed(*command, code=7)
    assert (piped.stdout, piped.stderr) == ("", "HEAVY")


@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_nothing_of_it_is_shown_to_whoever_asks_for_quiet_or_json(option: str) -> None:
    do = "os.write(2, b'HEAVY'); os._exit(7)"
    command = at_import("tensorboard", do, ["sweep", "study.yaml", option])
    assert in_terminal(*command) == (7, "HEAVY")


def test_ctrl_c_before_anything_is_saved_says_so() -> None:
    do = "os.kill(os.getpid(), signal.SIGINT)"
    command = at_import("torch", do, ["train", "default"])
    done = completed(*command, code=130)
    assert (done.stdout, done.stderr) == ("", "stopped; nothing is saved\n")
    assert [each.name for each in Path("runs").iterdir()] == ["other"], "nothing is saved"
