"""`scripts/bench steps`: a training step of the default run against a bare loop."""

from __future__ import annotations

import argparse
import itertools
import platform
import random
import statistics
import time
from collections import deque
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from bnbench.assemble import build_run
from bnbench.assemble.inputs import load_dataset, standardization
from bnbench.config import schema
from bnbench.events import SafePoint
from bnbench.models.plain import Plain
from bnbench.models.recipe import Recipe
from bnbench.train import train

TARGETS = {2: "≥ 1.3", 8: "≥ 1.3", 64: "≥ 0.97"}  # times as fast, by batch size
STEPS = 10  # in a row, at whose end either loop reads the losses


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `scripts/bench steps`."""
    parser.add_argument("--rounds", type=int, default=25, help="measured rounds (25)")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")


def bare_loop(batch_size: int) -> Callable[[], None]:
    """`STEPS` of the default network of torch's layers in a usual loop: images resident, already
    standardized and channels-last; torch's optimizer and schedule as they are."""
    config = schema.RunConfig(experiment="bench", setup="default")
    dataset = load_dataset(config.data, print)
    pixels = standardization(config.data, dataset)(dataset.train.pixels)
    labels, order = dataset.train.labels, torch.randperm(len(pixels))
    recipe = Recipe(nn.BatchNorm2d, nn.ReLU)
    network = Plain(in_channels=1, classes=10, widths=(8, 16, 32), blocks=2, recipe=recipe)
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10**6)
    batches = itertools.cycle(order.split(batch_size)[:-1])

    def steps() -> None:
        losses = []
        for chosen in itertools.islice(batches, STEPS):
            loss = F.cross_entropy(network(pixels[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        torch.stack(losses).tolist()

    return steps


def our_loop(batch_size: int, *, replayable: bool) -> Callable[[], None]:
    """`STEPS` of the default run without its evaluations."""
    data = schema.Fashion12kData(batch_size=batch_size)
    length = schema.TrainConfig(steps=10**6, log_every=STEPS)
    config = schema.RunConfig(experiment="bench", setup="default", data=data, train=length)
    run, _ = build_run(config, torch.device("cpu"))
    run.evaluate_after, run.replayable = frozenset(), run.replayable and replayable
    points = (each for each in train(run) if isinstance(each, SafePoint))
    return lambda: deque(itertools.islice(points, STEPS), maxlen=0)


def bench_steps(arguments: argparse.Namespace, print_table: Callable[..., None]) -> None:
    """Measure, and print a table."""
    torch.set_num_threads(1)
    rows = []
    for batch_size, target in TARGETS.items():
        loops = {
            "bare": bare_loop(batch_size),
            "ours": our_loop(batch_size, replayable=True),
            "not replayed": our_loop(batch_size, replayable=False),
        }
        took: dict[str, list[float]] = {name: [] for name in loops}
        for number in range(arguments.rounds + 2):
            for name in random.sample(list(loops), len(loops)):
                begun = time.process_time()
                loops[name]()
                if number >= 2:  # the first rounds warm up
                    took[name].append((time.process_time() - begun) / STEPS)
        cells = [f"{1000 * statistics.median(took['bare']):.2f} ms"]
        for name in ("ours", "not replayed"):
            pairs = zip(took["bare"], took[name], strict=True)
            low, middle, high = statistics.quantiles([bare / its for bare, its in pairs], n=4)
            cells.append(f"{middle:.2f} ({low:.2f}–{high:.2f})")
        rows.append([str(batch_size), *cells[:2], target, cells[2]])
    print(
        "CPU time of a training step of the bare loop, and how many times as fast the default run "
        f"trains: median (quartiles) of {arguments.rounds} interleaved rounds of {STEPS} steps. "
        f"One thread, torch {torch.__version__}, {platform.machine()}.\n"
    )
    header = ["batch size", "bare", "ours", "target", "without replaying"]
    print_table(header, rows, markdown=arguments.markdown)
