"""What this process may use of its machine: cores and memory, by Linux's own words for both; and
the folder for what is kept between runs.

Limits of control groups: https://docs.kernel.org/admin-guide/cgroup-v2.html, and version 1.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

LIMIT = "BNBENCH_MEMORY_GB"
"""The variable of the environment that stands for what the system says about its memory."""

RESIDENT_SHARE = 0.25
"""Several workers have images of their own, and training needs memory as well."""

BUSY = 1.3
"""From this pace on it is worth a word: clocks and caches alone make some tenths."""

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
MEMINFO = Path("/proc/meminfo")


def usable_cores() -> int:
    """Cores by affinity and, in a container, by the smallest quota; at least 1.

    Quotas: "cpu.max"; version 1's two files: https://docs.kernel.org/scheduler/sched-bwc.html.
    """
    cores = [len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1]
    for folder in _control_groups("cpu"):
        names = ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")
        words = [word for name in names for word in _text(folder / name).split()]
        if len(words) == 2 and words[0].isdigit():  # neither "max" nor "-1"
            cores.append(int(words[0]) // int(words[1]))
    return max(1, min(cores))


class Pace:
    """How many times as long work takes as a thread computes for it: what the clock says, over the
    time of a core that the thread has got. The rest is other programs' or a quota's, or it waited:
    for a disk, a device, other threads."""

    def __init__(self) -> None:
        self._before = time.perf_counter(), time.thread_time()

    def read(self) -> float:
        """Of this thread since the last reading, or since this was made; at least 1."""
        before, self._before = self._before, (time.perf_counter(), time.thread_time())
        spent, worked = (now - then for now, then in zip(self._before, before, strict=True))
        return max(1.0, spent / worked) if worked > 0 else 1.0


def available_memory() -> int | None:
    """Bytes that this process can still get; None where the system does not say.

    Linux: what the kernel calls available, and what is left under the limit of each control group.
    """
    free = _meminfo("MemAvailable")
    for folder in _control_groups("memory") if free else ():
        limits, used = _numbers(folder, "max", "limit_in_bytes"), _numbers(folder, "current")
        used = used or _numbers(folder, "usage_in_bytes")
        stat = dict(line.split() for line in _text(folder / "memory.stat").splitlines())
        # Pages of files that nobody used lately are dropped before a limit hurts.
        dropped = int(stat.get("inactive_file", 0))
        free += [max(0, limit - now + dropped) for limit in limits for now in used]
    return min(free, default=None)


def fits(size: int) -> bool:
    """Whether a process keeps so many bytes of images in memory: up to a quarter of what is free,
    or of `BNBENCH_MEMORY_GB`."""
    limit = None
    with suppress(ValueError):  # which is said before a run is trained
        limit = memory_limit()
    free = [each for each in (available_memory(), limit) if each is not None]
    return size <= RESIDENT_SHARE * min(free, default=size / RESIDENT_SHARE)


def memory_limit() -> int | None:
    """Bytes that this process can get at most; None where the system does not say.

    The environment's `BNBENCH_MEMORY_GB`; else the least of the machine's memory, the limits of
    control groups and `ulimit -v`. Raises ValueError where the variable is no number.
    """
    if given := os.environ.get(LIMIT):
        try:
            return int(float(given) * 1e9)
        except (ValueError, OverflowError):
            raise ValueError(f"{LIMIT} is {given!r}, not a number") from None
    limits = _meminfo("MemTotal")
    for folder in _control_groups("memory"):
        limits += _numbers(folder, "max", "limit_in_bytes")
    if sys.platform != "win32":
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        limits += [soft] if soft != resource.RLIM_INFINITY else []
    return min(limits, default=None)


def cache_folder() -> Path | None:
    """The user's cache folder of bnbench, by the custom of the platform; None without a home."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "bnbench"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "bnbench"
    # https://specifications.freedesktop.org/basedir-spec: relative paths are to be ignored.
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else home / ".cache") / "bnbench"


def _meminfo(name: str) -> list[int]:
    lines = _text(MEMINFO).splitlines()
    return [int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")]


def _control_groups(controller: str) -> set[Path]:
    """The folders that limit this process in this, in both versions of control groups."""
    folders = {CGROUPS, CGROUPS / controller}
    for line in _text(OWN_CGROUP).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            root = CGROUPS / controller if controllers else CGROUPS
            inner = root / path.lstrip("/")
            folders |= {inner, *(above for above in inner.parents if root in above.parents)}
    return folders


def _numbers(folder: Path, *names: str) -> list[int]:
    """What the files of these names say about memory; "max" is no number."""
    texts = [_text(folder / f"memory.{name}").strip() for name in names]
    return [int(text) for text in texts if text.isdecimal()]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
