"""`bnbench sweep --on ray` as its users type it."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bnbench.store import ExperimentFolder
from tests.commands import Said, bnbench
from tests.extras import required
from tests.runs import write_experiment
from tests.sweeps.test_shipping import stored


@pytest.fixture
def study(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file with one small run."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return str(write_experiment(own_folder / "study.yaml"))


def refused(*arguments: str) -> Said:
    """Run a sweep of which nothing is begun."""
    said = bnbench("sweep", *arguments)
    assert not Path("runs").exists()
    return said


def test_without_ray_it_is_said_what_to_install(
    study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    said = refused(study, "--on", "ray")
    assert (said.code, said.err) == (2, 'Ray is not installed\n  pip install "bnbench[ray]"\n')


def test_an_address_is_of_ray(study: str) -> None:
    said = refused(study, "--address", "127.0.0.1:6379")
    assert (said.code, said.err.splitlines()[0]) == (2, "--address is of a Ray cluster")
    said = refused(study, "--on", "rai")
    assert said.code == 2
    assert "did you mean ray?" in said.err


def test_what_does_not_answer_as_ray_does(study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    required("ray")
    said = refused(study, "--on", "ray", "--address", "ray://127.0.0.1:10001")
    assert said.code == 2
    assert "not reached through Ray's client" in said.err
    monkeypatch.setattr("bnbench.sweeps.ray_address.PROBE_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        said = refused(study, "--on", "ray", "--address", address)
    assert said.code == 4
    assert said.err.startswith(f"no Ray cluster answers at {address}: timed out\n")
    monkeypatch.setenv("RAY_ADDRESS", address)  # where nobody listens any more
    said = refused(study, "--on", "ray")
    assert said.code == 4
    assert said.err.startswith(f"no Ray cluster answers at {address}: [Errno 111]")


def test_another_version_of_ray_is_said(study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = required("ray")

    def init(*_: object, **__: object) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.9.0")

    monkeypatch.setattr(ray, "init", init)
    said = refused(study, "--on", "ray")
    assert said.code == 4
    assert "Version mismatch: The cluster was started with" in said.err
    assert "Ray: 2.9.0" in said.err


LISTENING = """
import os, sys
from pathlib import Path
from bnbench.sweeps.ray_address import connect

def table(path):
    return [line.split() for line in Path(path).read_text().splitlines()[1:]]

def parent(process):
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])

connect(None)
there = {int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()}
ours, found = {os.getpid()}, True
while found:
    left = [each for each in there - ours if Path(f"/proc/{each}").exists()]
    found = {each for each in left if parent(each) in ours}
    ours |= found
sockets = set()
for process in ours:
    for file in Path(f"/proc/{process}/fd").glob("*"):
        try:
            sockets.add(os.readlink(file))
        except OSError:
            pass
listening = [
    row[1] for path in ("/proc/net/tcp", "/proc/net/tcp6") for row in table(path)
    if row[3] == "0A" and f"socket:[{row[9]}]" in sockets
]
assert len(listening) >= 3, listening
assert all(each.partition(":")[0].endswith("0100007F") for each in listening), listening

from bnbench.__main__ import main
sys.argv = ["bnbench", "sweep", "study.yaml", "--on", "ray", "--quiet", "--json"]
main()
"""


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_a_ray_of_its_own_listens_on_this_machine_alone(study: str) -> None:
    """And trains what local workers train."""
    required("ray")
    ray = subprocess.run(
        [sys.executable, "-c", LISTENING], capture_output=True, text=True, timeout=200
    )
    assert (ray.returncode, ray.stderr) == (0, "")
    assert ray.stdout.startswith("[\n  {"), "and nothing else"
    assert bnbench("sweep", study, "--runs-dir", "here", "--quiet").code == 0
    found = stored(ExperimentFolder(Path("runs/study")))
    assert len(found) == 1
    assert found == stored(ExperimentFolder(Path("here/study")))
    (run,) = ExperimentFolder(Path("runs/study")).runs()
    assert (run.manifest() or {})["command"][:3] == ["bnbench", "sweep", "study.yaml"]
