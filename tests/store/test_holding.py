"""Simultaneous starts: one process holds a run, the others say who does."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("number", [2, 8, pytest.param(32, marks=pytest.mark.slow)])
def test_exactly_one_holds_a_run_and_the_others_say_who(tmp_path: Path, number: int) -> None:
    path = tmp_path / "run_s00_01234567"
    command = [sys.executable, "-c", START, str(path)]
    with ExitStack() as running:
        processes = []
        for _ in range(number):
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            processes.append(running.enter_context(process))
            running.callback(process.kill)
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
        process = subprocess.Popen(
            [sys.executable, "-c", START, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        assert process.stdout.readline() == "holds\n"
        process.kill()
        process.communicate()
