"""`scripts/bench growth`: images per second as one size grows, all else as in the default run."""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from bnbench.assemble import build_run
from bnbench.config import schema
from bnbench.events import SafePoint
from bnbench.report.figures import as_svg, style
from bnbench.store import ExperimentFolder
from bnbench.train import train

SIDES = (8, 16, 32, 64, 128)
BUNDLED, PLAIN = {"dataset": "fashion-mnist-12k"}, {"kind": "plain"}
MADE = {"dataset": "synthetic", "train_images": 2000, "test_images": 100, "validation_size": 100}
AXES: dict[str, dict[int, dict[str, object]]] = {
    "batch size": {2**n: {"data": BUNDLED | {"batch_size": 2**n}} for n in range(1, 10)},
    "channels of the first stage": {
        n: {"model": PLAIN | {"widths": (n, 2 * n, 4 * n)}} for n in (4, 8, 16, 32, 64)
    },
    "convolutions": {3 * n: {"model": PLAIN | {"blocks": n}} for n in (1, 2, 4, 8, 16)},
    "pixels of an image's side": {n: {"data": MADE | {"image_size": n}} for n in SIDES},
}
WORKERS = (1, 2, 3, 4)
RUNS = (1, 2, 4, 8, 16, 32)
AT_ONCE = 8  # runs, for the workers
STUDY = "train: {epochs: 1}\n"
SETTLED = 3  # steps before anything is measured
LEAST = 0.3  # seconds of the CPU in a measurement


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `scripts/bench growth`."""
    parser.add_argument("--rounds", type=int, default=5, help="of training steps (5)")
    parser.add_argument("--sweep-rounds", type=int, default=2, help="of whole sweeps (2)")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw it as SVG")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")


def trainer(changes: dict[str, object]) -> tuple[int, Callable[[], None]]:
    """Images of a step of the default run with these changes, and the step."""
    whole = {"experiment": "growth", "setup": "default", "train": {"steps": 10**6}, **changes}
    config = schema.RunConfig.model_validate(whole)
    run, _ = build_run(config, torch.device("cpu"))
    run.evaluate_after = frozenset()
    training: Iterator[object] = train(run)

    def step() -> None:
        while not isinstance(next(training), SafePoint):
            pass

    return config.data.batch_size, step


def in_steps(rounds: int) -> dict[str, dict[int, float]]:
    """Images per second of the CPU in training steps, medians over rounds in shuffled order."""
    torch.set_num_threads(1)
    cells = {}
    for name, axis in AXES.items():
        for value, changes in axis.items():
            images, step = cells[name, value] = trainer(changes)
            for _ in range(SETTLED):
                step()
    found: dict[tuple[str, int], list[float]] = {cell: [] for cell in cells}
    for _ in range(rounds):
        for cell in random.sample(list(cells), len(cells)):
            images, step = cells[cell]
            begun, done = time.process_time(), 0
            while (spent := time.process_time() - begun) < LEAST:
                step()
                done += 1
            found[cell].append(images * done / spent)
    return {
        name: {value: statistics.median(found[name, value]) for value in axis}
        for name, axis in AXES.items()
    }


def in_sweeps(rounds: int) -> dict[str, dict[int, float]]:
    """Images per second by the clock in whole sweeps, from the shell to the end."""
    cells = [("workers", workers, workers, AT_ONCE) for workers in WORKERS]
    cells += [("runs, two workers", runs, 2, runs) for runs in RUNS]
    found: dict[str, dict[int, list[float]]] = {}
    for _ in range(rounds):
        for name, value, workers, runs in random.sample(cells, len(cells)):
            rate = sweep(workers, runs)
            print(f"{name}: {value}, {rate:.0f} images/s", file=sys.stderr, flush=True)
            found.setdefault(name, {}).setdefault(value, []).append(rate)
    return {
        name: {value: statistics.median(axis[value]) for value in sorted(axis)}
        for name, axis in sorted(found.items(), reverse=True)
    }


def sweep(workers: int, runs: int) -> float:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "growth.yaml").write_text(STUDY)
        command = [sys.executable, "-m", "bnbench", "sweep", "growth.yaml", "--quiet"]
        command += ["--workers", str(workers), "--seeds", str(runs)]
        begun = time.perf_counter()
        subprocess.run(command, cwd=name, check=True, stdout=subprocess.DEVNULL)
        took = time.perf_counter() - begun
        results = [run.result() for run in ExperimentFolder(Path(name) / "runs/growth").runs()]
        assert len(results) == runs
        return sum(result.examples for result in results if result) / took


def draw(found: dict[str, dict[int, float]]) -> str:
    with style.applied():
        figure, panels = style.panels(len(found), left=0.55)
        for axes, (name, line) in zip(panels, found.items(), strict=True):
            axes.loglog(list(line), list(line.values()), color=style.SLATE, marker="o", ms=4)
            axes.set_title(f"images/s against {name}")
            axes.set_xticks(list(line), [str(value) for value in line], minor=False)
            axes.set_xticks([], minor=True)
            style.plain_log_ticks(axes)
        return as_svg(figure, "growth")


def bench_growth(arguments: argparse.Namespace, print_table: Callable[..., None]) -> None:
    """Measure, draw, and print a table for each size."""
    found = in_steps(arguments.rounds) | in_sweeps(arguments.sweep_rounds)
    print(
        "Training: per second of the CPU, medians of "
        f"{arguments.rounds} interleaved rounds; one thread. Sweeps of {STUDY.strip()}: by the "
        f"clock, from the shell to the end, with their evaluations; {arguments.sweep_rounds} "
        f"rounds. torch {torch.__version__.partition('+')[0]}, {os.cpu_count()} cores of "
        f"{platform.machine()}."
    )
    for name, line in found.items():
        rows = [["images/s", *(f"{rate:,.0f}" for rate in line.values())]]
        print()
        print_table([name, *map(str, line)], rows, markdown=arguments.markdown)
    if arguments.figure:
        arguments.figure.write_text(draw(found))
