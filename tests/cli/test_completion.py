"""What Tab completes in bash itself, and what other shells are given."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.processes import completed, in_terminal
from tests.runs import write_experiment

COMPLETED = {
    "swe": "sweep",
    "sweep quicks": "quickstart",
    "sweep claims/pla": "claims/placement",
    "configs check my-": "my-study.yaml",
    "report my-ex": "my-experiment",
    "compare bn_s0": "bn_s00_0123abcd",
    "train my-study.yaml --setup gr": "group",
    "train quickstart --set norm.ki": "norm.kind=",
    "train quickstart --set norm.kind=batch-r": "norm.kind=batch-renorm",
    "sweep --over optim.schedule=cos": "optim.schedule=cosine",
    "explain evon": "evonorm-s0",
    # Not a name that a shell may be given: bash completes the file by itself, and quotes it.
    "sweep x": r"x\$\(touch\ bad\).yaml",
    "sweep damaged.yaml --setup x": r"x\$\(touch\ bad\).yaml",
}
"""What is typed after `bnbench` before Tab, and the last word then."""


@pytest.fixture
def _things(own_folder: Path) -> None:
    assert own_folder == Path.cwd()
    write_experiment(Path("my-study.yaml"), "setups: {batch: {}, group: {norm: {kind: group}}}\n")
    Path("x$(touch bad).yaml").write_text("")
    Path("damaged.yaml").write_text("setups: [")
    run = Path("runs/my-experiment/bn_s00_0123abcd")
    run.mkdir(parents=True)
    (run.parent / "experiment.yaml").write_text("")
    (run / "config.yaml").write_text("")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.usefixtures("_things")
def test_bash() -> None:
    paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": paths, "PS1": "", "TERM": "dumb", "INPUTRC": "/dev/null"}
    typed = 'stty -echo; eval "$(bnbench --show-completion bash)"\n'
    for each in COMPLETED:
        # To the beginning of the line, and there: write the rest of it to a file.
        typed += f"bnbench {each}\t\x01printf '%q\\n' >> said \x05\n"
    bash = ("bash", "--norc", "--noprofile", "-i")
    _, shown = in_terminal(*bash, typed=f"{typed}exit\n", env=environment)
    words = "".join(Path("said").read_text()).split("bnbench\n")[1:]
    got = dict(zip(COMPLETED, (each.splitlines()[-1] for each in words), strict=True))
    assert got == COMPLETED, shown
    assert not Path("bad").exists()


@pytest.mark.usefixtures("_things")
def test_other_shells_get_whole_words_without_torch() -> None:
    command = [sys.executable, "-X", "importtime", str(Path(sys.executable).with_name("bnbench"))]
    typed = {"_TYPER_COMPLETE_ARGS": "bnbench train quickstart --set norm.kind=batch-r"}
    typed["_BNBENCH_COMPLETE"] = "complete_zsh"
    said = completed(*command, env=os.environ | typed)
    assert said.stdout == """_arguments '*: :(("norm.kind=batch-renorm"))'\n"""
    assert "bnbench.explain" in said.stderr
    assert "torch" not in said.stderr
