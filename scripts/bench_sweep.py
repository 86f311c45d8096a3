"""`scripts/bench sweep`: whole sweeps against their own runs and against a shell loop."""

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

import numpy as np
import torch

from bnbench.data.dataset import load_fashion_mnist_12k
from bnbench.machine import usable_cores
from bnbench.store import ExperimentFolder

EXPERIMENT = """\
setups:
  none:      {norm: {kind: none}}
  bn-before: {norm: {kind: batch, placement: before}}
  gn:        {norm: {kind: group, groups: 4}}
axes: {optim.lr: [0.03, 0.1]}
train: {steps: 150, evaluations: 5}
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

# What a careful user would write for one run: the same network and budget, torchvision's dataset
# and DataLoader, one evaluation at the end, all threads.
PLAIN = """\
import sys
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import datasets, transforms

root, norm, lr, seed = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
torch.manual_seed(seed)
to_input = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.286, 0.353)])
images = datasets.FashionMNIST(root, train=True, transform=to_input)
train, val = torch.utils.data.random_split(images, [len(images) - 1000, 1000])
test = datasets.FashionMNIST(root, train=False, transform=to_input)
loader = torch.utils.data.DataLoader(train, batch_size=64, shuffle=True, drop_last=True)


def block(before, after, stride):
    conv = nn.Conv2d(before, after, 3, stride, 1, bias=norm == "none")
    norms = {"none": nn.Identity, "bn-before": lambda: nn.BatchNorm2d(after),
             "gn": lambda: nn.GroupNorm(4, after)}
    return [conv, norms[norm](), nn.ReLU()]


layers = block(1, 8, 1) + block(8, 8, 1) + block(8, 16, 2) + block(16, 16, 1)
layers += block(16, 32, 2) + block(32, 32, 1)
model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 150)
step = 0
while step < 150:
    for x, y in loader:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        step += 1
        if step == 150:
            break
model.eval()
with torch.no_grad():
    for part in (val, test):
        right = sum((model(x).argmax(1) == y).sum().item()
                    for x, y in torch.utils.data.DataLoader(part, batch_size=500))
        print(norm, lr, seed, right / len(part))
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `scripts/bench sweep`."""
    parser.add_argument("--rounds", type=int, default=3, help="of sweep and shell loop (3)")
    parser.add_argument("--plain-runs", type=int, default=24, help="runs of the shell loop (24)")
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


def shell_round(folder: Path, count: int) -> float:
    """Seconds of a shell loop over so many of the 24 runs, one process each."""
    cells = [
        (norm, lr, seed)
        for seed in range(4)
        for lr in (0.03, 0.1)
        for norm in ("none", "bn-before", "gn")
    ]
    begun = time.perf_counter()
    for norm, lr, seed in cells[:count]:
        command = [sys.executable, "plain.py", folder, norm, str(lr), str(seed)]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def write_images(folder: Path) -> None:
    """The bundled images as the files that torchvision reads."""
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    dataset = load_fashion_mnist_12k()
    for name, part in (("train", dataset.train), ("t10k", dataset.test)):
        pixels = part.pixels.numpy().astype(np.uint8).reshape(-1, 28, 28)
        labels = part.labels.numpy().astype(np.uint8)
        write_idx(raw / f"{name}-images-idx3-ubyte", pixels)
        write_idx(raw / f"{name}-labels-idx1-ubyte", labels)


def write_idx(path: Path, values: np.ndarray) -> None:
    """MNIST's format: type, number of axes, their lengths, the bytes."""
    header = bytes([0, 0, 8, values.ndim])
    lengths = b"".join(length.to_bytes(4, "big") for length in values.shape)
    path.write_bytes(header + lengths + values.tobytes())


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
        (folder / "plain.py").write_text(PLAIN)
        write_images(folder)
        rounds = []
        for number in range(arguments.rounds):
            wall, own, overhead = sweep_round(folder, number)
            shell = shell_round(folder, arguments.plain_runs) * 24 / arguments.plain_runs
            rounds.append((wall, own, overhead, shell))
            print(
                f"round {number + 1}: sweep {wall:.1f} s, its runs {own:.1f} s, overhead of a run "
                f"{overhead:.2f} s, shell loop {shell:.1f} s",
                file=sys.stderr,
                flush=True,
            )
        early, late = driver_memory(folder, arguments.tiny_runs)
    wall, own, overhead, shell = (statistics.median(each) for each in zip(*rounds, strict=True))
    limit = statistics.median(1.10 * own / workers + 6 for _, own, _, _ in rounds)
    faster = statistics.median(shell / wall for wall, _, _, shell in rounds)
    rows = [
        ["sweep of 24 runs, by the clock", f"{wall:.1f} s", f"≤ {limit:.1f} s"],
        ["the runs' own seconds ÷ workers", f"{own / workers:.1f} s", ""],
        ["a shell loop of plain PyTorch scripts", f"{shell:.1f} s", ""],
        ["times faster than the shell loop", f"{faster:.2f}", "≥ 2.5"],
        ["a run beyond training and evaluation", f"{overhead:.2f} s", "≤ 0.3 s"],
        [
            f"driver's memory, {arguments.tiny_runs // 10} and {arguments.tiny_runs} runs",
            f"{early:.0f} and {late:.0f} MB",
            "no growth",
        ],
    ]
    print(
        f"Medians of {arguments.rounds} interleaved rounds; {workers} workers, torch "
        f"{torch.__version__}, Python {platform.python_version()}, {platform.machine()}.\n"
    )
    print_table(["", "measured", "asked"], rows, markdown=arguments.markdown)
