"""How much memory is free, and a refusal in numbers before it is needed."""

from __future__ import annotations

from pathlib import Path

from bnbench.errors import DataError

_MEMINFO = Path("/proc/meminfo")
_CGROUP_OF_SELF = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


def require_memory(images: int, channels: int, image_size: int) -> None:
    """Raises DataError, with the numbers, when that many uint8 images do not fit."""
    need = images * channels * image_size**2
    free = available_memory()
    if free is not None and need > free:
        raise DataError(
            f"{images:,} images of {channels}×{image_size}×{image_size} need {_readable(need)}; "
            f"{_readable(free)} are free",
            do="use fewer or smaller images (data.image_size), or a machine with more memory",
        )


def available_memory() -> int | None:
    """Bytes that this process can still get; None where the system does not say.

    Linux: what the kernel calls available, and what is left under each memory limit (cgroup v2)
    from this process's group up to the root.
    """
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    free += _left_in_cgroups()
    return min(free, default=None)


def _left_in_cgroups() -> list[int]:
    try:
        lines = _CGROUP_OF_SELF.read_text().splitlines()
    except OSError:
        return []
    left: list[int] = []
    for line in lines:
        if line.startswith("0::/"):
            group = _CGROUPS / line.removeprefix("0::/")
            for folder in (group, *group.parents):
                if folder.is_relative_to(_CGROUPS):
                    left += _left_in(folder)
    return left


def _left_in(folder: Path) -> list[int]:
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such file, or no limit: "max"
        return []
    # Pages of files that nobody used lately are dropped before a limit hurts.
    return [max(0, limit - used + int(stat.get("inactive_file", 0)))]


def _readable(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
