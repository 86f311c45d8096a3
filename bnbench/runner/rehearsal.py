"""A few steps without a trace: whether a network can train, and what a run will cost."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable
from math import inf

import torch

from bnbench.assemble import build_run, demand, resolve_device
from bnbench.assemble import check as network_check
from bnbench.assemble.custom import named
from bnbench.assemble.inputs import POPULATION_IMAGES_BEFORE
from bnbench.assemble.model import make_recipe
from bnbench.config import feasible, schema
from bnbench.config.datasets import facts
from bnbench.config.feasible import networks
from bnbench.errors import ConfigError, Fault
from bnbench.events import Gap
from bnbench.guard import Raised, awaited, foreign_code
from bnbench.machine import usable_cores
from bnbench.runner.settings import (
    BYTES_PER_EVENT,
    Cost,
    Fitting,
    Settings,
    failed,
    recorded_bytes,
)
from bnbench.runner.threads import step_seconds

CUDA_CONTEXT_BYTES = 600_000_000
"""CUDA's context with torch's kernels in each process: an allowance, on the large side."""

MEMORY_SHARE = 0.9
"""How much of a device's memory runs may be planned to fill: evaluations take more than steps."""

TRIED_PRODUCTS, TRIED_BYTES = 4e10, 500e6
"""What is tried takes some seconds and no more memory than this; the rest is reckoned."""

PRODUCTS_PER_SECOND = 2e10
"""Multiplications in small convolutions on one core: README's quickstart trains 2,144 images/s of
3.2e6 each, and three times as many with the backward pass."""


def check(
    configs: Iterable[schema.RunConfig], settings: Settings
) -> list[tuple[schema.RunConfig, feasible.Obstacle]]:
    """The runs whose networks cannot be trained, and why: each distinct network is tried once.

    bnbench's own networks are judged by `assemble.check`; torchvision's and the user's own take
    one step. Raises DataError where images for that step are missing.
    """
    configs = list(configs)
    refused = network_check.check(configs)
    known = {config.setup for config, _ in refused}
    for same in networks(configs):
        config = same[0]
        if not feasible.opaque(config) or config.setup in known:
            continue
        try:
            rehearse(config, settings)
        except ConfigError as error:
            block = "norm" if isinstance(config.norm, schema.CustomNormConfig) else "model"
            keys = (f"{block}.target", f"{block}.name", f"{block}.kind")
            refused += [
                (one, feasible.Obstacle(keys, fault.message, fault.hint))
                for one in network_check.one_of_each_setup(same)
                for fault in error.faults
            ]
    return refused


def rehearse(config: schema.RunConfig, settings: Settings) -> None:
    """Build the run and take one step. Raises ConfigError where it cannot train."""
    run, _ = build_run(config, _device(config, settings), announce=settings.announce)

    def fails(raised: Raised) -> ConfigError:
        # It would in every run of this setup.
        return ConfigError([Fault(f"setup {config.setup}", f"the first step fails: {raised}")])

    with awaited(named(config), settings.announce), foreign_code(fails):
        images, labels = run.batch_at(0)
        torch.nn.functional.cross_entropy(run.model(images), labels).backward()  # type: ignore[no-untyped-call]


def fitting(config: schema.RunConfig, settings: Settings) -> Fitting | None:
    """How many runs like this one are to train at a time: one on each of several GPUs, or as many
    as the one GPU's memory holds; None without a GPU.

    Each needs what this process takes from the device for one step: torch's reserve, and the
    context and libraries that every process loads for itself.
    """
    device = _device(config, settings)
    if device.type != "cuda":
        return None
    gpus = torch.cuda.device_count()
    if (settings.device or config.compute.device) == "cuda" and gpus > 1:
        return Fitting(gpus, gpus)
    torch.cuda.init()  # type: ignore[no-untyped-call]
    free_before, _ = torch.cuda.mem_get_info(device)
    rehearse(config, settings)
    free_after, _ = torch.cuda.mem_get_info(device)
    # The context is there before the first question; what it takes cannot be asked for.
    one = free_before - free_after + CUDA_CONTEXT_BYTES
    return Fitting(max(1, int(MEMORY_SHARE * (free_after + one) / one)))


def _device(config: schema.RunConfig, settings: Settings) -> torch.device:
    return resolve_device(settings.device or config.compute.device, settings.worker)


@foreign_code(failed)
def measure(config: schema.RunConfig, settings: Settings) -> Cost:
    """What the run will cost, from a few steps and an evaluation of it. Raises as `execute`."""
    if (rough := reckoned(config)) is not None:
        return rough
    config = config.model_copy(update={"probes": schema.ProbesConfig()})
    wanted = settings.threads if config.compute.threads == "auto" else config.compute.threads
    threads = min(wanted, usable_cores())  # more only make a few steps take minutes
    torch.set_num_threads(threads)
    run, about = build_run(config, _device(config, settings), announce=settings.announce)
    per_step = step_seconds(run, [threads])[threads]
    if per_step == inf:
        per_step = 0.0  # of its single step

    begun = time.perf_counter()
    readings = run.evaluate()
    evaluation = time.perf_counter() - begun
    during = sum(each.images for each in readings if isinstance(each, Gap))
    at_the_end = about.validation_images + about.test_images
    evaluations = len(run.evaluate_after) - 1 + at_the_end / max(1, during)
    events = about.total_steps / run.log_every + len(readings) * (len(run.evaluate_after) + 1)
    state = io.BytesIO()
    torch.save(run.state_dict(), state)
    return Cost(
        seconds=about.total_steps * per_step + evaluations * evaluation,
        bytes=state.tell() + round(BYTES_PER_EVENT * events),
    )


def reckoned(config: schema.RunConfig) -> Cost | None:
    """The cost of a run that is too large to be tried, by arithmetic; None for one that is not."""
    steps, dataset, train = feasible.planned_steps(config), facts(config.data), config.train
    shapes = demand.shapes(config, make_recipe(config, steps))
    held = config.data.validation_size, dataset.test_images
    splits = feasible.train_images_left(config, dataset), config.data.validation_size
    few = sum(min(images, train.evaluation_images or images) for images in splits)
    step = 3 * config.data.batch_size * shapes.products  # the backward pass is two
    evaluation = (POPULATION_IMAGES_BEFORE + 3 * few) * shapes.products
    needs = {what: size for what, _, size in demand.needs(config, shapes)}
    if 2 * step + evaluation <= TRIED_PRODUCTS and sum(needs.values()) <= TRIED_BYTES:
        return None
    products = steps * step + train.evaluations * evaluation + 3 * sum(held) * shapes.products
    return Cost(
        seconds=products / PRODUCTS_PER_SECOND,
        bytes=needs["weights"] + recorded_bytes(config),
        rough=True,
    )
