"""Cores by affinity and by the quotas of control groups, read from files like those of Linux."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bnbench import machine
from bnbench.errors import UsageError
from bnbench.machine import usable_cores
from bnbench.runner import settings
from bnbench.runner.settings import may_use_gpu, workers_for
from tests.runs import small_config


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 16 cores without control groups."""
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    return tmp_path


def write(path: Path, text: str) -> None:
    """A file with all its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_affinity_alone(system: Path) -> None:
    assert not (system / "cgroup").exists()
    assert usable_cores() == 16


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 16), ("400000 100000", 4), ("250000 100000", 2), ("50000 100000", 1)],
)
def test_version_2(system: Path, quota: str, expected: int) -> None:
    write(system / "cgroup" / "cpu.max", quota + "\n")
    assert usable_cores() == expected


def test_the_smallest_quota_on_the_way_up_counts(system: Path) -> None:
    write(system / "own", "0::/user.slice/job.scope\n")
    write(system / "cgroup" / "user.slice" / "cpu.max", "300000 100000\n")
    write(system / "cgroup" / "user.slice" / "job.scope" / "cpu.max", "max 100000\n")
    write(system / "cgroup" / "other.slice" / "cpu.max", "100000 100000\n")
    assert usable_cores() == 3


@pytest.mark.parametrize(("quota", "expected"), [("-1", 16), ("150000", 1), ("600000", 6)])
def test_version_1(system: Path, quota: str, expected: int) -> None:
    write(system / "own", "5:cpu,cpuacct:/docker/x\n3:memory:/elsewhere\n")
    write(system / "cgroup" / "cpu" / "docker" / "x" / "cpu.cfs_quota_us", quota + "\n")
    write(system / "cgroup" / "cpu" / "docker" / "x" / "cpu.cfs_period_us", "100000\n")
    assert usable_cores() == expected


@pytest.mark.skipif(sys.platform != "linux", reason="affinity can be set on Linux")
def test_affinity_of_this_process() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_workers(system: Path) -> None:
    write(system / "cgroup" / "cpu.max", "600000 100000\n")
    one = small_config()
    four = one.model_copy(update={"compute": one.compute.model_copy(update={"threads": 4})})
    assert workers_for("auto", [one]) == 6
    assert workers_for("auto", [one, four]) == 1, "no more threads than cores"
    assert workers_for("3", [one]) == 3
    for wrong in ("0", "-1", "many", "1.5"):
        with pytest.raises(UsageError, match=f"--workers {wrong}"):
            workers_for(wrong, [one])


def test_whether_a_gpu_may_be_used_is_told_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "NVIDIA", tmp_path / "version")
    auto = [small_config()]
    assert auto[0].compute.device == "auto"
    assert not may_use_gpu(None, auto)
    assert not may_use_gpu("cpu", auto)
    assert may_use_gpu("cuda:1", auto)
    (tmp_path / "version").touch()
    assert may_use_gpu(None, auto)
    assert not may_use_gpu("cpu", auto)
