"""`bnbench sweep --on ray` as its users type it."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bnbench.store import ExperimentFolder
from tests.commands import Said, bnbench
from tests.extras import required
from tests.processes import completed, started, wait_until
from tests.runs import committed_step, write_experiment
from tests.sweeps.test_shipping import stored


@pytest.fixture
def study(own_folder: Path) -> Iterator[str]:
    """A file with one small run. What is set for Ray is set for this test alone."""
    before = dict(os.environ)
    os.environ.pop("RAY_ADDRESS", None)
    yield str(write_experiment(own_folder / "study.yaml"))
    os.environ.clear()
    os.environ.update(before)


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
    monkeypatch.setattr("bnbench.sweeps.ray.address.JOIN_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        said = refused(study, "--on", "ray", "--address", address)
    assert said.code == 4
    assert said.err.startswith(f"Ray cannot be used at {address}: it does not let anybody join")
    monkeypatch.setenv("RAY_ADDRESS", address)  # where nobody listens any more
    for auto in ((), ("--address", "auto")):
        said = refused(study, "--on", "ray", *auto)
        assert said.code == 4
        assert ": [Errno 111]" in said.err
    said = refused(study, "--on", "ray", "--address", "nowhere")
    assert said.code == 2
    assert "HOST:PORT is wanted" in said.err


def test_what_a_cluster_refuses_a_process_with_is_said(
    study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    required("ray")
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        for code, why in {
            "import sys; print('\\nVersion mismatch:\\n  Ray: 2.9'); sys.exit(1)": (
                "Version mismatch: Ray: 2.9"
            ),
            "import os; os._exit(3)": "who joins it ends with code 3",
        }.items():
            monkeypatch.setattr("bnbench.sweeps.ray.address.JOIN", code)
            said = refused(study, "--on", "ray", "--address", address)
            assert said.code == 4
            assert said.err.startswith(f"Ray cannot be used at {address}: {why}\n")


def test_another_version_of_ray_is_said(study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = required("ray")

    def init(*_: object, **__: object) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.9.0")

    monkeypatch.setattr(ray, "init", init)
    said = refused(study, "--on", "ray")
    assert said.code == 4
    assert "Version mismatch: The cluster was started with" in said.err
    assert "Ray: 2.9.0" in said.err


STUCK = """
import sys, time
from types import SimpleNamespace
sys.modules["ray"] = SimpleNamespace(init=lambda *_: None, shutdown=lambda: time.sleep(3600))
from bnbench import __main__, cli
from bnbench.sweeps.ray import address
address.LEAVE_SECONDS = 0.1
address._join("", {})

def app():
    print("whole")
    sys.exit(int(sys.argv[1]))

cli.app = app
__main__.main() if sys.argv[1] else print("whole") or 1 / 0
"""


@pytest.mark.parametrize("code", ["0", "130", ""])
def test_a_cluster_that_cannot_be_left_changes_neither_output_nor_exit_code(code: str) -> None:
    """Also of a script of the user's own, which fails."""
    command = [sys.executable, "-c", STUCK, code]
    left = completed(*command, code=int(code or 1))
    assert left.stdout == "whole\n"
    assert left.stderr.endswith("does not let this process leave; what has come back is saved\n")


LISTENING = """
import os, sys
from pathlib import Path
from bnbench.errors import ClusterError
from bnbench.sweeps.ray.address import connect

def table(path):
    return [line.split() for line in Path(path).read_text().splitlines()[1:]]

def parent(process):
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])

for _ in range(5):  # Ray gives its processes half a minute, too short on a busy machine
    try:
        connect(None)
        break
    except ClusterError:
        pass
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
from bnbench.sweeps import shipping
shipping.SAVE_SECONDS = 0.0
sys.argv = ["bnbench", "sweep", "study.yaml", "--on", "ray", "--quiet", "--json"]
for code in 130, 130, 0:
    try:
        main()
    except SystemExit as end:
        assert end.code == code, end.code
"""
SLOW = """
import os, time
from pathlib import Path
from torch import nn

class Slow(nn.BatchNorm2d):
    def forward(self, x):
        file = Path(os.environ["SLOW"])
        if self.training and (seconds := file.read_text()):
            file.with_name(f"{seconds}-begun").touch()
            time.sleep(float(seconds))
        return super().forward(x)
"""
"""A layer that takes as many seconds longer as a file says."""


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_a_ray_of_its_own_is_left_with_ctrl_c_and_goes_on(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once at the second one, with what the driver has; else after a commit. It gives the bits
    of local workers, listens on this machine alone, says nothing of its own although its dashboard
    does not start, and leaves no process."""
    required("ray")
    norm = "norm: {kind: custom, target: slow.py:Slow}"
    train = "train: {steps: 300, checkpoint_every: 20}"
    (own_folder / "slow.py").write_text(SLOW)
    write_experiment(own_folder / "study.yaml", f"setups: {{own: {{{norm}, {train}}}}}\n")
    slow, said, printed = own_folder / "slowly", own_folder / "said", own_folder / "printed"
    slow.write_text("0.02")
    monkeypatch.setenv("SLOW", str(slow))
    environment = os.environ | {"RAY_DASHBOARD_STARTUP_TIMEOUT_S": "0"}
    environment.pop("RAY_ADDRESS", None)
    experiment, command = ExperimentFolder(Path("runs/study")), (sys.executable, "-c", LISTENING)
    with (
        said.open("wb") as stderr,
        printed.open("wb") as stdout,
        started(*command, env=environment, stdout=stdout, stderr=stderr) as ray,
    ):

        def commits(after: int) -> int:
            """The step of the next commit that the driver has."""
            wait_until(lambda: step() > after, process=ray)
            return step()

        def step() -> int:
            return max(map(committed_step, experiment.runs()), default=0)

        def presses(until: str) -> None:
            """Ctrl-C, which reaches all processes of a terminal."""
            os.killpg(ray.pid, signal.SIGINT)
            wait_until(lambda: until in said.read_text())

        first = commits(0)
        slow.write_text("5")
        wait_until((own_folder / "5-begun").exists)
        presses("(again: at once)")
        presses("stopped\n  the same command goes on from the last checkpoint\n")
        wait_until(lambda: not of_session(ray.pid, "ray::Actor"))
        slow.write_text("0.02")
        second = commits(step())
        presses("stopped with 0 of 1 runs done; of 1 more, what was trained is saved\n")
        slow.write_text("")
        assert ray.wait() == 0, said.read_text()
        assert 0 < first < second < 300
        wait_until(lambda: not of_session(ray.pid))
    ours = "stopp", "  the same command", "runs the code", "waiting for the cluster"
    assert not [line for line in said.read_text().splitlines() if not line.startswith(ours)]
    assert json.loads(printed.read_text())[0]["state"] == "completed"
    assert bnbench("sweep", "study.yaml", "--runs-dir", "here", "--quiet").code == 0
    assert stored(experiment) == stored(ExperimentFolder(Path("here/study")))
    (run,) = experiment.runs()
    manifest = run.manifest() or {}
    assert (manifest["attempts"], manifest["command"][:2]) == (3, ["bnbench", "sweep"])


def of_session(number: int, name: str = "") -> list[str]:
    """The processes of a session that are called so."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state = (process / "stat").read_text().rpartition(")")[2].split()
            if int(state[3]) == number and state[0] != "Z":
                found.append((process / "cmdline").read_text())
    return [each for each in found if name in each]
