"""SLURM itself on this machine: its daemons, started without systemd, on 127.0.0.1 alone."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bnbench.board.serve import free_port
from tests.processes import wait_until

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel")

CONFIGURATION = """\
ClusterName=bnbench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
AuthInfo=socket={folder}/munge/socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=64000
PartitionName=short Nodes={host} Default=YES MaxTime=60
"""
"""`cred_expire`: a job that is queued again waits for so many seconds, not for two minutes."""


def missing() -> str | None:
    """Why there can be no SLURM here."""
    there = [shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin") for name in NEEDED]
    if None in there:
        return "SLURM is not installed (Debian: slurm-wlm, munge)"
    return None if os.geteuid() == 0 else "its daemons are started by root alone"


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """A cluster of one node with four cores, and the environment in which it is found."""
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(parents=True)
    (folder / "munge" / "key").write_bytes(os.urandom(128))
    (folder / "munge" / "key").chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    configuration = folder / "slurm.conf"
    # Below those that the system gives to whoever asks for any, before the daemons take them.
    port = free_port(10_000 + os.getpid() % 20_000)
    ports = port, free_port(port + 1)
    configuration.write_text(CONFIGURATION.format(folder=folder, host=host, ports=ports))
    environment = os.environ | {
        "SLURM_CONF": str(configuration),
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
    }
    munge = [
        f"--{name}={folder}/munge/{file}"
        for name, file in (
            ("key-file", "key"),
            ("socket", "socket"),
            ("pid-file", "pid"),
            ("log-file", "log"),
            ("seed-file", "seed"),
        )
    ]
    commands = (
        ["munged", "--foreground", "--force", *munge],
        ["slurmctld", "-D", "-f", str(configuration)],
        ["slurmd", "-D", "-f", str(configuration)],
    )
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            daemons.append(_started(command, environment))
            time.sleep(0.3)  # each needs the one before
        _wait_for_node(environment)
        yield environment
    finally:
        _end_jobs(environment)
        for daemon in reversed(daemons):
            daemon.terminate()
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(timeout=15)
            daemon.kill()
            daemon.wait()


def _started(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        command, env=environment, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
    )


def _end_jobs(environment: dict[str, str]) -> None:
    """Those that a failed test has left would go on without their daemons."""
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run(["scancel", "--user=root"], env=environment, timeout=10)
        for _ in range(15):
            queue = ["squeue", "--noheader"]
            if not subprocess.run(queue, env=environment, capture_output=True, timeout=10).stdout:
                return
            time.sleep(1)


def _wait_for_node(environment: dict[str, str]) -> None:
    def state() -> str:
        command = ("sinfo", "--noheader", "--format=%T")
        asked = subprocess.run(command, env=environment, capture_output=True, timeout=60)
        return asked.stdout.decode().strip()

    wait_until(lambda: state() == "idle", pause=0.2)
