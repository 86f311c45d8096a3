"""The limits of `processes`, with processes that never end."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import completed, in_terminal, lives, started, wait_until

TESTS = Path(__file__).parent


def test_a_command_that_does_not_end_is_killed_with_what_it_started_and_shown() -> None:
    for seconds in (0.5, 60):  # a busy machine may not have started it within the first
        with pytest.raises(AssertionError) as failed:
            completed("sh", "-c", "sleep 600 & echo $$ $!; wait", seconds=seconds)
        (note,) = failed.value.__notes__
        if numbers := re.search(rf"killed after {seconds} s:\n(\d+) (\d+)\n", note):
            break
    assert numbers is not None, note
    wait_until(lambda: not any(lives(int(number)) for number in numbers.groups()))


def test_nobody_waits_for_what_never_comes() -> None:
    def never() -> None:
        with started("sleep", "600", seconds=0.1, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == ""
            wait_until(lambda: False, process=process)

    with pytest.raises(AssertionError, match="too early"):
        never()
    with pytest.raises(AssertionError, match=r"not within 0.1 s"):
        wait_until(lambda: False, seconds=0.1)


def test_a_process_ends_with_its_test() -> None:
    with started("sleep", "600") as process:
        assert process.poll() is None
    assert process.returncode == -9
    with pytest.raises(ZeroDivisionError), started("sleep", "600") as process:
        raise ZeroDivisionError
    assert process.returncode == -9


def test_another_exit_code_fails_and_shows_what_was_said() -> None:
    code = "import sys; print('there'); sys.exit('here')"
    said = completed(sys.executable, "-c", code, code=1)
    assert (said.returncode, said.stdout, said.stderr) == (1, "there\n", "here\n")
    with pytest.raises(AssertionError) as failed:
        completed(sys.executable, "-c", code)
    assert failed.value.__notes__[0].endswith("printed:\nthere\n\nhere\n")


def test_a_terminal_has_a_limit_too() -> None:
    assert in_terminal("sh", "-c", "read x; test -t 2; echo $? $x", typed="y\n")[1].endswith(
        "0 y\r\n"
    )
    with pytest.raises(AssertionError) as failed:
        in_terminal("sleep", "600", seconds=0.1)
    assert "killed after 0.1 s" in failed.value.__notes__[0]


def test_no_test_starts_a_process_without_a_limit() -> None:
    start = re.compile(r"subprocess\.(run|Popen|call|check_\w+|getoutput)\(|os\.(system|popen)\(")
    files = [path for path in TESTS.rglob("test_*.py") if path != Path(__file__)]
    assert len(files) > 200
    assert not [path.name for path in files if start.search(path.read_text())]
