"""How many cores this process may use, and so how many workers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from bnbench.config import schema
from bnbench.errors import UsageError

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
NVIDIA = Path("/proc/driver/nvidia/version")
"""There where NVIDIA's driver is loaded, on Linux."""


def usable_cores() -> int:
    """Cores by affinity and, in a container, by the smallest quota; at least 1.

    Quotas: https://docs.kernel.org/admin-guide/cgroup-v2.html, "cpu.max"; version 1's two files:
    https://docs.kernel.org/scheduler/sched-bwc.html.
    """
    cores = [len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1]
    for folder in _control_groups():
        names = ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")
        words = [word for name in names for word in _text(folder / name).split()]
        if len(words) == 2 and words[0].isdigit():  # neither "max" nor "-1"
            cores.append(int(words[0]) // int(words[1]))
    return max(1, min(cores))


def workers_for(wanted: str, runs: Iterable[schema.RunConfig]) -> int:
    """How many workers `wanted` asks for, a number or "auto": then as many as keep every core
    busy with the threads that the runs ask for. Raises UsageError."""
    if wanted == "auto":
        threads = [run.compute.threads for run in runs if run.compute.threads != "auto"]
        return max(1, usable_cores() // max(threads, default=1))
    if not wanted.isdecimal() or int(wanted) < 1:
        raise UsageError(f"--workers {wanted}: not a number of workers", do="1, 2, … or auto")
    return int(wanted)


def may_use_gpu(device: str | None, runs: Iterable[schema.RunConfig]) -> bool:
    """Whether some run may land on an NVIDIA GPU, as far as can be told without torch."""
    wanted = {device or run.compute.device for run in runs}
    named = any(each.startswith("cuda") for each in wanted)
    return named or ("auto" in wanted and NVIDIA.exists())


def _control_groups() -> set[Path]:
    """The folders that limit this process's CPU time, in both versions of control groups."""
    folders = {CGROUPS, CGROUPS / "cpu"}
    for line in _text(OWN_CGROUP).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            root = CGROUPS / "cpu" if controllers else CGROUPS
            inner = root / path.lstrip("/")
            folders |= {inner, *(above for above in inner.parents if root in above.parents)}
    return folders


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
