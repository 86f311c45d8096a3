"""`scripts/bench sweep`: whole sweeps against their own runs."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bnbench.machine import usable_cores
from bnbench.store import ExperimentFolder

EXPERIMENT = """\
setups:
  none:  {norm: {kind: none}}
  batch: {norm: {kind: batch}}
  group: {norm: {kind: group, groups: 4}}
axes: {optim.lr: [0.03, 0.1]}
train: {epochs: 1, evaluations: 5}
seeds: 4
"""
TINY = """\
data:
  dataset: synthetic
  train_images: 96
  test_images: 32
  classes: 4
  image_size: 8
  validation_size: 32
  batch_size: 8
  eval_batch_size: 16
model: {widths: [4, 8], blocks: 1}
train: {epochs: 1, evaluations: 1}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `scripts/bench sweep`."""
    parser.add_argument("--rounds", type=int, default=3, help="of the sweep (3)")
    parser.add_argument(
        "--tiny-runs", type=int, default=1000, help="for the driver's memory (1000)"
    )
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")


def bnbench(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A `bnbench sweep` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "bnbench", "sweep", *arguments, "--quiet"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        stdout=subprocess.DEVNULL,
    )


def sweep_round(folder: Path, number: int) -> tuple[float, float, float]:
    """Seconds by the clock; the sum of the runs' own; the median of a run's overhead beyond
    training and evaluation."""
    runs_dir = folder / f"runs-{number}"
    begun = time.perf_counter()
    process = bnbench(folder, "bench.yaml", "--runs-dir", str(runs_dir))
    assert process.wait() == 0
    wall = time.perf_counter() - begun
    found = [run.result() for run in ExperimentFolder(runs_dir / "bench").runs()]
    results = [result for result in found if result is not None]
    assert len(results) == 24
    overheads = [
        result.wall_seconds - result.train_seconds - result.evaluation_seconds for result in results
    ]
    own = sum(result.wall_seconds for result in results)
    return wall, own, statistics.median(overheads)


def driver_memory(folder: Path, count: int) -> tuple[float, float]:
    """Resident MB of the driver after a tenth of so many tiny runs, and just before their end."""
    process = bnbench(folder, "tiny.yaml", "--seeds", str(count))
    experiment = folder / "runs" / "tiny"
    early = late = 0.0
    while process.poll() is None:
        time.sleep(0.5)
        done = len(list(experiment.glob("*/result.json")))
        resident = resident_megabytes(process.pid)
        if done <= count // 10:
            early = resident
        if done < count:
            late = resident or late
    assert process.returncode == 0
    return early, late


def resident_megabytes(process: int) -> float:
    """Linux."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def bench_sweep(arguments: argparse.Namespace, print_table: Callable[..., None]) -> None:
    """Measure, and print a table of what was asked and what was found."""
    workers = usable_cores()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bench.yaml").write_text(EXPERIMENT)
        (folder / "tiny.yaml").write_text(TINY)
        rounds = []
        for number in range(arguments.rounds):
            wall, own, overhead = sweep_round(folder, number)
            rounds.append((wall, own, overhead))
            print(
                f"round {number + 1}: sweep {wall:.1f} s, its runs {own:.1f} s, overhead of a run "
                f"{overhead:.2f} s",
                file=sys.stderr,
                flush=True,
            )
        early, late = driver_memory(folder, arguments.tiny_runs)
    wall, own, overhead = (statistics.median(each) for each in zip(*rounds, strict=True))
    limit = statistics.median(1.10 * own / workers + 6 for _, own, _ in rounds)
    rows = [
        ["sweep of 24 runs, by the clock", f"{wall:.1f} s", f"≤ {limit:.1f} s"],
        ["the runs' own seconds ÷ workers", f"{own / workers:.1f} s", ""],
        ["a run beyond training and evaluation", f"{overhead:.2f} s", "≤ 0.3 s"],
        [
            f"driver's memory, {arguments.tiny_runs // 10} and {arguments.tiny_runs} runs",
            f"{early:.0f} and {late:.0f} MB",
            "no growth",
        ],
    ]
    print(
        f"Medians of {arguments.rounds} rounds; {workers} workers, torch "
        f"{torch.__version__}, Python {platform.python_version()}, {platform.machine()}.\n"
    )
    print_table(["", "measured", "asked"], rows, markdown=arguments.markdown)
