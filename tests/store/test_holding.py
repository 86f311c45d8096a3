"""Simultaneous starts: one process holds a run, the others say who does."""

from __future__ import annotations

import subprocess
import sys
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from tests.processes import started

START = """\
import sys
from pathlib import Path
from bnbench.errors import HeldError
from bnbench.store import RunFolder

print("ready", flush=True)
sys.stdin.readline()
try:
    with RunFolder(Path(sys.argv[1])).hold():
        print("holds", flush=True)
        sys.stdin.readline()
except HeldError as error:
    print(error, flush=True)
"""


def starting(path: Path) -> AbstractContextManager[subprocess.Popen[str]]:
    """A process that holds the run when a line comes, until it is killed."""
    pipe = subprocess.PIPE
    return started(sys.executable, "-c", START, path, stdin=pipe, stdout=pipe)


@pytest.mark.parametrize("number", [2, 8, pytest.param(32, marks=pytest.mark.slow)])
def test_exactly_one_holds_a_run_and_the_others_say_who(tmp_path: Path, number: int) -> None:
    path = tmp_path / "run_s00_01234567"
    with ExitStack() as running:
        processes = [running.enter_context(starting(path)) for _ in range(number)]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = {}
        for process in processes:
            assert process.stdout is not None
            answers[process.pid] = process.stdout.readline()
    (holder,) = (pid for pid, answer in answers.items() if answer == "holds\n")
    others = {answer for pid, answer in answers.items() if pid != holder}
    assert others == {f"{path} is held by another process (id {holder})\n"}


def test_a_run_whose_holder_died_can_be_held(tmp_path: Path) -> None:
    path = tmp_path / "run_s00_01234567"
    for _ in range(2):
        with starting(path) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.stdout.readline() == "ready\n"
            assert process.stdout.readline() == "holds\n"
