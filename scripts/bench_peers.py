"""`scripts/bench peers`: one run, and a sweep of 24, against the tools that people use for them.

The peers' scripts, in `scripts/peers/`, train the same network on the same images for as many
steps, in whole processes of one thread; a sweep has two of them at a time.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import ctypes
import hashlib
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import bench_sweep
import numpy as np

from bnbench.data.dataset import load_fashion_mnist_12k
from bnbench.machine import cache_folder
from bnbench.store import ExperimentFolder

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
SAMPLED_EVERY = 0.5  # seconds
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@dataclass(frozen=True, eq=False)  # ours is called the same in both tables
class Peer:
    """A command with scripts of `scripts/peers`, and what it measures; ours has none.

    `of`: the package whose version counts, as in the requirements.
    """

    name: str
    of: str
    command: str = ""


RUNS = [
    Peer("bnbench, 5 evaluations under three kinds of statistics", "bnbench"),
    Peer("the usual script, images in memory", "torch", "{python} usual.py {images} --in-memory"),
    Peer("the usual script, torchvision's transforms", "torch", "{python} usual.py {images}"),
    Peer(
        "Lightning, TensorBoard logger",
        "lightning",
        "{python} with_lightning.py {images} --in-memory",
    ),
    Peer("Keras on torch", "keras", "{python} with_keras.py {images}"),
]
SWEEPS = [
    Peer("bnbench, 5 evaluations under three kinds of statistics", "bnbench"),
    Peer("Optuna, two processes", "optuna", "{python} with_optuna.py {images}"),
    Peer(
        "Hydra, joblib launcher",
        "hydra-core",
        "{python} with_hydra.py --multirun hydra/launcher=joblib hydra.launcher.n_jobs=2 "
        "root={images} norm=none,batch,group lr=0.03,0.1 seed=0,1,2,3",
    ),
    Peer("Ray Tune", "ray[tune]", "{python} with_ray.py {images}"),
    Peer(
        "a shell loop of the usual script, two at a time", "torch", "in_a_shell {python} {images}"
    ),
]


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock, and of the CPU in all processes; steps and accuracy of each run."""

    wall: float
    cpu: float
    runs: list[tuple[int, float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `scripts/bench peers`."""
    parser.add_argument("--rounds", type=int, default=3, help="of single runs (3)")
    parser.add_argument("--sweep-rounds", type=int, default=2, help="of sweeps (2)")
    parser.add_argument("--only", default="", metavar="TEXT", help="ours and peers with this name")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")


def environment() -> Path:
    """The Python of the peers' environment: in the cache, above this one, whose torch it takes."""
    wanted = (PEERS / "requirements.txt").read_text() + sys.prefix + sys.version
    name = f"peers-{hashlib.sha256(wanted.encode()).hexdigest()[:8]}"
    folder = (cache_folder() or Path(tempfile.gettempdir())) / name
    python = folder / "bin/python"
    if not (folder / "installed").exists():
        print(f"installing the peers into {folder}", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        (site,) = folder.glob("lib/python*/site-packages")
        own = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        (site / "bnbench-own.pth").write_text("\n".join(own))
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*command, "-r", PEERS / "requirements.txt"], check=True)
        (folder / "installed").touch()
    return python


def descendants() -> dict[int, float]:
    """Seconds of the CPU, by process, of all that have come from this one. Linux."""
    found: dict[int, tuple[int, float]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        ticks = int(fields[11]) + int(fields[12])
        found[int(folder.name)] = int(fields[1]), ticks / os.sysconf("SC_CLK_TCK")
    below: dict[int, float] = {}
    parents = [os.getpid()]
    while parents:
        parent = parents.pop()
        children = [number for number, (its, _) in found.items() if its == parent]
        below |= {number: found[number][1] for number in children}
        parents += children
    return below


def reaped() -> float:
    """Seconds of the CPU of processes that have ended and were waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def measured(command: list[str], folder: Path) -> Cost:
    """A whole process with all that it starts; what it prints as `{"steps": …}` are its runs.

    Ray's daemons do not wait for their processes, so that these are in no sum when they have ended.
    """
    folder.mkdir()
    settings = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    seen: dict[int, float] = {}
    with (folder / "said").open("w+") as said, (folder / "errors").open("w+") as errors:
        before, begun = reaped(), time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | settings, stdout=said, stderr=errors
        )
        while process.poll() is None:
            seen |= descendants()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SAMPLED_EVERY)
        wall = time.perf_counter() - begun
    if process.returncode:
        errors_said = (folder / "errors").read_text()[-3000:]
        raise SystemExit(f"{' '.join(command)} failed:\n{errors_said}")
    with contextlib.suppress(ChildProcessError):
        while True:  # what it has left, which is this process's now
            os.wait()
    lines = [line for line in (folder / "said").read_text().splitlines() if line.startswith("{")]
    runs = [(each["steps"], each["accuracy"]) for each in map(ast.literal_eval, lines)]
    return Cost(wall, max(reaped() - before, sum(seen.values())), runs)


def ours(folder: Path, peer: Peer) -> Cost:
    command = [sys.executable, "-m", "bnbench", "train", "default"]
    if peer in SWEEPS:
        study = folder.with_suffix(".yaml")
        study.write_text(bench_sweep.EXPERIMENT)
        command = [*command[:3], "sweep", str(study), "--workers", "2"]
    cost = measured([*command, "--quiet", "--runs-dir", "runs"], folder)
    (experiment,) = (folder / "runs").iterdir()
    results = [run.result() for run in ExperimentFolder(experiment).runs()]
    runs = [(each.steps, each.scores["test"]["running"].accuracy) for each in results if each]
    return Cost(cost.wall, cost.cpu, runs)


def theirs(python: Path, peer: Peer, folder: Path, images: Path) -> Cost:
    words = peer.command.format(python=python, images=images).split()
    scripts = {path.name for path in PEERS.iterdir()}
    return measured([str(PEERS / word) if word in scripts else word for word in words], folder)


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


def rounds_of(peers: list[Peer], rounds: int, python: Path, folder: Path) -> list[list[Cost]]:
    """The costs of each peer; interleaved, every round starting with another one."""
    costs: list[list[Cost]] = [[] for _ in peers]
    for number in range(rounds):
        for place in range(len(peers)):
            which = (place + number) % len(peers)
            peer, target = peers[which], folder / f"{number}-{which}"
            if peer.command:
                cost = theirs(python, peer, target, folder / "images")
            else:
                cost = ours(target, peer)
            costs[which].append(cost)
            print(
                f"{peer.name}: {cost.wall:.1f} s, {cost.cpu:.1f} s of CPU",
                file=sys.stderr,
                flush=True,
            )
    return costs


def trained(cost: Cost) -> tuple[int, ...]:
    """The steps of each run."""
    return tuple(steps for steps, _ in cost.runs)


def rows_of(peers: list[Peer], costs: list[list[Cost]]) -> list[list[str]]:
    """Medians, and medians of the ratios to ours in the same round."""
    lines = (PEERS / "requirements.txt").read_text().splitlines()
    versions = dict(line.split("==") for line in lines if "==" in line)
    rows = []
    for peer, own in zip(peers, costs, strict=True):
        if {trained(cost) for cost in own} != {trained(costs[0][0])}:
            raise SystemExit(f"{peer.name}: not the steps of ours: {own}")
        cells = [peer.name, versions.get(peer.of) or version(peer.of)]
        for kind in ("wall", "cpu"):
            pairs = [
                (getattr(a, kind), getattr(b, kind)) for a, b in zip(own, costs[0], strict=True)
            ]
            cells.append(f"{statistics.median(a for a, _ in pairs):.1f}")
            cells.append(f"{statistics.median(a / b for a, b in pairs):.2f}")
        accuracies = [accuracy for cost in own for _, accuracy in cost.runs]
        rows.append([*cells, f"{100 * statistics.mean(accuracies):.1f}"])
    return rows


def bench_peers(arguments: argparse.Namespace, print_table: Callable[..., None]) -> None:
    """Measure, and print a table of single runs and one of sweeps."""
    python = environment()
    # Processes that outlive the one that started them become this one's, and their time with them.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    print(
        f"Whole processes from start to end, one thread each: medians of {arguments.rounds} "
        f"interleaved rounds ({arguments.sweep_rounds} of sweeps), and of the ratios to ours in "
        f"the same round. CPU: seconds of all their processes. Python {platform.python_version()}, "
        f"torch {version('torch')}, {os.cpu_count()} cores of {platform.machine()}."
    )
    for what, peers, rounds in (
        ("a run of three epochs", RUNS, arguments.rounds),
        ("a sweep of 24 runs, one epoch each", SWEEPS, arguments.sweep_rounds),
    ):
        if not rounds:
            continue
        chosen = [peer for peer in peers if not peer.command or arguments.only in peer.name]
        with tempfile.TemporaryDirectory() as name:
            write_images(Path(name) / "images")
            costs = rounds_of(chosen, rounds, python, Path(name))
        header = [what, "version", "s", "× ours", "CPU s", "× ours", "test %"]
        print()
        print_table(header, rows_of(chosen, costs), markdown=arguments.markdown)
