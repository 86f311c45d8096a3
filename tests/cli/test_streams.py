"""Standard streams that are closed, full, not UTF-8, or that nobody reads: the work is done."""

from __future__ import annotations

import codecs
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnbench.cli import streams
from bnbench.config import identity, loading, plans
from bnbench.store import ExperimentFolder
from tests.processes import LIMIT, completed, started, wait_until
from tests.runs import committed_step, write_experiment

VERSION, HELP, LIST = ["--version"], ["explain", "--help"], ["configs", "list"]
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")


def bnbench(arguments: list[str], redirections: str = "", **more: Any) -> tuple[int, str, str]:
    """Run a command as a shell does with these redirections; exit code, output, error."""
    command = f'"$0" -m bnbench "$@" {redirections}'
    shell = ["/bin/sh", "-c", command, sys.executable, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started(*shell, **(pipes | more), encoding="latin-1") as process:
        out, err = process.communicate()
        return process.returncode, out, err


# --- a stream -----------------------------------------------------------------------------


def pipe() -> tuple[int, int]:
    """A pipe of one page."""
    import fcntl

    read, write = os.pipe()
    fcntl.fcntl(write, 1031, 4096)  # F_SETPIPE_SZ
    return read, write


@pytest.mark.parametrize("blocking", [True, False])
def test_everything_is_written_even_where_a_pipe_does_not_block(blocking: bool) -> None:
    read, write = pipe()
    os.set_blocking(write, blocking)
    text = "".join(f"line {number}\n" for number in range(5_000))
    found: list[bytes] = []

    def reader() -> None:
        with os.fdopen(read, "rb") as file:
            found.append(file.read())

    thread = threading.Thread(target=reader, daemon=True)
    thread.start()
    output = streams._Output(write, "w", closefd=True)
    assert output.write(text.encode()) == len(text)
    output.close()
    thread.join(LIMIT)
    assert found == [text.encode()]
    assert output.failure is None


def test_standard_output_that_the_users_code_closes_is_still_there() -> None:
    code = (
        "import sys; from bnbench.cli import streams; streams.prepare()\n"
        "for each in (sys.stdout, sys.stderr): each.close(); each.buffer.close()\n"
        "print('there'); print('here', file=sys.stderr); sys.exit(streams.finish())"
    )
    done = completed(sys.executable, "-c", code)
    assert (done.stdout, done.stderr) == ("there\n", "here\n")


def test_what_is_written_after_an_error_is_dropped() -> None:
    read, write = pipe()
    os.close(read)
    output = streams._Output(write, "w", closefd=True)
    assert output.write(b"abc") == 3
    assert output.failure is not None
    assert output.failure.errno == errno.EPIPE
    assert output.write(b"more") == 4
    output.close()


@given(text=st.text(st.characters() | st.sampled_from("±\udcff\ud800🙂\u2028")))
def test_json_stays_json_in_every_encoding(text: str) -> None:
    codecs.register_error("bnbench", streams._escaped)
    for encoding in ("ascii", "cp1252", "latin-1", "utf-8", "koi8-r"):
        written = json.dumps(text, ensure_ascii=False).encode(encoding, "bnbench")
        # Two halves of one character are written apart, and read as one.
        assert json.loads(written.decode(encoding)) == json.loads(json.dumps(text))


# --- a process ----------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [VERSION, HELP, LIST])
@needs_full
def test_a_full_standard_output_is_exit_4_and_said(arguments: list[str]) -> None:
    code, _, said = bnbench(arguments, f">{FULL}")
    assert code == 4
    assert said == (
        "standard output: No space left on device: what was printed is not complete\n"
        "  print it to another place; what is stored is whole\n"
    )


@pytest.mark.parametrize("redirection", [">&-", "<&-", "<&- >&- 2>&-", "2>&-", f"2>{FULL}"])
def test_other_streams_may_be_closed_or_full(redirection: str) -> None:
    assert bnbench(VERSION, redirection)[::2] == (0, "")


@needs_full
def test_the_exit_code_of_an_error_stays() -> None:
    assert bnbench(["explain", "xyzzy"], f">{FULL}")[0] == 2
    assert bnbench(["explain", "xyzzy"], f"2>{FULL}") == (2, "", "")


def test_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = completed(sys.executable, "-m", "bnbench", "configs", "schema", stdout=write)
    os.close(write)
    assert done.stderr == ""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_other_encodings(encoding: str) -> None:
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    code, out, said = bnbench(["explain", "batch", "--json"], env=environment)
    assert (code, said) == (0, "")
    assert json.loads(out.encode("latin-1").decode(encoding))


def test_a_locale_without_utf_8(tmp_path: Path) -> None:
    environment = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for arguments in (["configs", "show", "default"], ["configs", "copy", "default"], LIST):
        code, _, said = bnbench(arguments, env=environment, cwd=tmp_path)
        assert (code, said) == (0, "")


# --- training -----------------------------------------------------------------------------


@pytest.mark.slow
def test_train_goes_on_without_its_reader_in_a_folder_of_other_bytes(tmp_path: Path) -> None:
    place = tmp_path / os.fsdecode(b"a\xffb")
    place.mkdir()
    write_experiment(place / "small.yaml")
    read, write = os.pipe()
    os.close(read)
    for stream in ("stderr", "stdout"):
        command = (sys.executable, "-m", "bnbench", "train", place / "small.yaml", "--restart")
        completed(*command, cwd=place, **{stream: write})
    os.close(write)
    (run,) = ExperimentFolder(place / "runs" / "small").runs()
    assert run.result() is not None
    # The manifest names the path that was given.
    command = json.loads((run.path / "manifest.json").read_bytes())["command"]
    assert command[2].endswith("a?b/small.yaml")
    for arguments in (["report", "small"], ["status", "small"]):
        assert bnbench(arguments, cwd=place)[0] == 0
    assert json.loads((place / "runs" / "small" / "report.json").read_bytes())
    assert (place / "runs" / "small" / "report.html").read_bytes().decode()


@pytest.mark.slow
def test_few_descriptors_no_home_and_a_narrow_terminal(tmp_path: Path) -> None:
    write_experiment(tmp_path / "small.yaml", "setups: {none: {norm: {kind: none}}, bn: {}}\n")
    environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "COLUMNS": "20"}
    few = "; exit"
    for arguments in (
        ["sweep", "small.yaml", "--workers", "2"],
        ["report", "small"],
        ["tensorboard", "small", "--rebuild"],
    ):
        script = f'ulimit -n 64; "$0" -m bnbench "$@" <&- {few}'
        shell = ("/bin/sh", "-c", script, sys.executable, *arguments)
        assert "Traceback" not in completed(*shell, cwd=tmp_path, env=environment).stderr


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [False, True])
def test_sighup_commits_unless_nohup_has_it_ignored(tmp_path: Path, ignored: bool) -> None:
    text = "optim: {lr: 0.01}\n"
    write_experiment(tmp_path / "long.yaml", text)
    content = (tmp_path / "long.yaml").read_text().replace("epochs: 2", "steps: 20000")
    (tmp_path / "long.yaml").write_text(content)
    config = plans.expand(loading.load_experiment(tmp_path / "long.yaml")).only()
    folder = ExperimentFolder(tmp_path / "runs" / "long").run(identity.run_id(config))
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may be under nohup, too
    nohup = ["nohup"] if ignored else []
    command = [*nohup, sys.executable, "-m", "bnbench", "train", "long.yaml"]
    quiet = subprocess.DEVNULL
    with started(*command, cwd=tmp_path, stdout=quiet, stderr=quiet) as process:
        signal.signal(signal.SIGHUP, before)
        wait_until(lambda: committed_step(folder) >= 20, process=process)
        process.send_signal(signal.SIGHUP)
        if ignored:
            later = committed_step(folder) + 20
            wait_until(lambda: committed_step(folder) >= later, process=process)
            process.send_signal(signal.SIGTERM)
        assert process.wait() == (143 if ignored else 129)
    assert committed_step(folder) >= 20
