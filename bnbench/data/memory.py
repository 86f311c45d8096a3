"""How much memory there is, and whether images fit into it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bnbench.errors import DataError, UsageError

LIMIT = "BNBENCH_MEMORY_GB"
"""The variable of the environment that stands for what the system says about its memory."""

_MEMINFO = Path("/proc/meminfo")
_CGROUP_OF_SELF = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


def require_memory(images: int, channels: int, image_size: int) -> None:
    """Raises DataError, with the numbers, when that many uint8 images do not fit."""
    need = images * channels * image_size**2
    free = available_memory()
    if free is not None and need > free:
        raise DataError(
            f"{images:,} images of {channels}×{image_size}×{image_size} need {readable(need)}; "
            f"{readable(free)} are free",
            do="use fewer or smaller images (data.image_size), or a machine with more memory",
        )


def available_memory() -> int | None:
    """Bytes that this process can still get; None where the system does not say.

    Linux: what the kernel calls available, and what is left under each memory limit (cgroup v2)
    from this process's group up to the root.
    """
    free = _meminfo("MemAvailable")
    free += [left for folder in _own_groups() for left in _left_in(folder)] if free else []
    return min(free, default=None)


def memory_limit() -> int | None:
    """Bytes that this process can get at most; None where the system does not say.

    The environment's `BNBENCH_MEMORY_GB`; else the least of the machine's memory, the limits of
    this process's groups (cgroup v2) and `ulimit -v`. Raises UsageError.
    """
    given = os.environ.get(LIMIT)
    if given:
        try:
            return int(float(given) * 1e9)
        except (ValueError, OverflowError):
            raise UsageError(
                f"{LIMIT} is {given!r}, not a number", do=f"write {LIMIT}=64"
            ) from None
    limits = _meminfo("MemTotal")
    for folder in _own_groups():
        limits += [int(line) for line in _lines(folder / "memory.max") if line.isdecimal()]
    if sys.platform != "win32":
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        limits += [soft] if soft != resource.RLIM_INFINITY else []
    return min(limits, default=None)


def readable(size: int) -> str:
    """`1.5 GB`, `20.0 MB`."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _meminfo(name: str) -> list[int]:
    lines = _lines(_MEMINFO)
    return [int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")]


def _own_groups() -> list[Path]:
    """The folders of this process's control group and of all above it."""
    for line in _lines(_CGROUP_OF_SELF):
        if line.startswith("0::/"):
            group = _CGROUPS / line.removeprefix("0::/")
            return [each for each in (group, *group.parents) if each.is_relative_to(_CGROUPS)]
    return []


def _left_in(folder: Path) -> list[int]:
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
    except (OSError, ValueError):  # no such file, or no limit: "max"
        return []
    stat = dict(line.split() for line in _lines(folder / "memory.stat"))
    # Pages of files that nobody used lately are dropped before a limit hurts.
    return [max(0, limit - used + int(stat.get("inactive_file", 0)))]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
