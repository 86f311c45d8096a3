"""A few steps without a trace: whether a network can train, and what a run will cost."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from math import inf, prod

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnbench.assemble import build_run, demand, resolve_device
from bnbench.assemble import check as network_check
from bnbench.assemble.custom import named
from bnbench.assemble.inputs import POPULATION_IMAGES, POPULATION_IMAGES_BEFORE
from bnbench.config import feasible, schema
from bnbench.config.datasets import facts
from bnbench.config.feasible import networks
from bnbench.errors import ConfigError, Fault
from bnbench.guard import Raised, awaited, foreign_code
from bnbench.machine import Pace, usable_cores
from bnbench.runner.settings import Cost, Fitting, Settings, failed, recorded_bytes
from bnbench.runner.threads import step_seconds
from bnbench.train import Position, Run

CUDA_CONTEXT_BYTES = 600_000_000
"""CUDA's context with torch's kernels in each process: an allowance, on the large side."""

PROCESS_BYTES = 600_000_000
"""A worker that has trained a small run: 580 MB with its libraries (torch 2.14.1)."""

MEMORY_SHARE = 0.9
"""How much of a device's memory runs may be planned to fill: evaluations take more than steps."""

TRIED_PRODUCTS, TRIED_BYTES = 4e10, 500e6
"""What is tried takes some seconds and no more memory than this; the rest is reckoned."""

FEW_IMAGES, FEW_SECONDS = 8, 0.1
"""Images of a batch that are timed of a large network, and how long: resnet18 takes 16 ms for each
on one core."""

STEPS_SECONDS = 0.2
"""How long steps of another one are timed: a hundred of the smallest, three of the deepest."""

EVALUATED_SECONDS = 0.2
"""An evaluation that would take longer is not tried: it is forward passes, whose cost is known."""

PROBED_SECONDS = 1.0
"""The same of a probe, of which no more is tried than it reads by default."""

PROBE_SIZES = ("images", "companions", "batches")

BYTES_PER_TENSOR = 310
"""What a checkpoint adds to each tensor; of torchvision's resnet18 and of an MLP: 315 and 296."""

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
            rehearse(config, settings, few_images(config))
        except ConfigError as error:
            block = "norm" if isinstance(config.norm, schema.CustomNormConfig) else "model"
            keys = (f"{block}.target", f"{block}.name", f"{block}.kind")
            refused += [
                (one, feasible.Obstacle(keys, fault.message, fault.hint))
                for one in network_check.one_of_each_setup(same)
                for fault in error.faults
            ]
    return refused


def rehearse(config: schema.RunConfig, settings: Settings, most: int | None = None) -> None:
    """Build the run and take one step, with the batch or at most so many images of it. Raises
    ConfigError where that fails."""
    run, _ = build_run(config, _device(config, settings), announce=settings.announce)

    def fails(raised: Raised) -> ConfigError:
        # It would in every run of this setup.
        return ConfigError([Fault(f"setup {config.setup}", f"the first step fails: {raised}")])

    with awaited(named(config), settings.announce), foreign_code(fails):
        images, labels = (each[:most] for each in run.batch_at(0))
        logits = run.model(images)
        torch.nn.functional.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]


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
    """What the run will cost, from a few steps, an evaluation and a reading of each probe of it.
    Raises as `execute`."""
    if (rough := reckoned(config)) is not None:
        return rough
    wanted = settings.threads if config.compute.threads == "auto" else config.compute.threads
    threads = min(wanted, usable_cores())  # more only make a few steps take minutes
    torch.set_num_threads(threads)
    device = _device(config, settings)
    probes, passes, times = _probes(config)
    small = config.model_copy(update={"probes": probes})
    run, about = build_run(small, device, announce=settings.announce)
    pace = Pace()
    per_step, per_image, basis = _step(config, run, threads)
    during, last = _passed(config, run.model)
    evaluation = during * per_image
    if evaluation < EVALUATED_SECONDS:
        before = time.perf_counter()
        run.evaluate()
        evaluation = time.perf_counter() - before
    probing = 0.0
    for name, probe in run.probes.items():
        reading = passes.get(name, config.data.batch_size) * per_image
        if reading < PROBED_SECONDS:
            before = time.perf_counter()
            probe.read(0)
            reading = time.perf_counter() - before
        probing += len(probe.read_after) * reading * times.get(name, 1.0)
    slower = pace.read() if device.type == "cpu" else 1.0  # waiting for a GPU is work

    evaluations = len(run.evaluate_after) - 1 + last / during
    weights = sum(each.nbytes + BYTES_PER_TENSOR for each in run.model.state_dict().values())
    return Cost(
        seconds=(about.total_steps * per_step + evaluations * evaluation + probing) / slower,
        bytes=weights + recorded_bytes(config),
        basis=basis,
        pace=slower,
    )


def _probes(
    config: schema.RunConfig,
) -> tuple[schema.ProbesConfig, dict[str, int], dict[str, float]]:
    """The run's probes, of no more images than by default; by name, how many these are, and how
    many times as many the run's own are."""
    there = feasible.train_images_left(config, facts(config.data))
    chosen, passes, times = config.probes.chosen(), {}, {}
    for name, asked in chosen.items():
        usual = type(asked)()
        sizes = [key for key in PROBE_SIZES if key in type(asked).model_fields]
        small = {key: min(getattr(asked, key), getattr(usual, key)) for key in sizes}
        chosen[name] = asked.model_copy(update=small)
        passes[name] = prod(small.values()) if small else config.data.batch_size
        times[name] = prod(
            max(1.0, min(getattr(asked, key), max(there, 1000)) / small[key]) for key in sizes
        )
    return config.probes.model_copy(update=chosen), passes, times


def _step(config: schema.RunConfig, run: Run, threads: int) -> tuple[float, float, str]:
    """Seconds of a training step, and of an image that goes through the network once, which is a
    third of it; and what that was learned from."""
    batch, few = config.data.batch_size, few_images(config)
    if few == batch:
        per_step = step_seconds(run, [threads], seconds=STEPS_SECONDS)[threads]
        per_step = 0.0 if per_step == inf else per_step  # of one or two steps
        return per_step, per_step / (3 * batch), "a few training steps"
    fewer = max(1, few // 4)
    whole, part = (
        step_seconds(_of(run, images), [threads], seconds=FEW_SECONDS)[threads]
        for images in (few, fewer)
    )
    if inf in (whole, part):
        whole = part = 0.0
    per_image = max(whole - part, 0.0) / (few - fewer) or whole / few
    per_step = whole + (batch - few) * per_image
    return per_step, per_image / 3, f"training steps of {few} images"


def _of(run: Run, images: int) -> Run:
    """The run from its beginning, with this many images of each batch."""

    def first(step: int) -> tuple[Tensor, Tensor]:
        x, y = run.batch_at(step)
        return x[:images], y[:images]

    return replace(run, batch_at=first, position=Position())


def few_images(config: schema.RunConfig) -> int:
    """How many images of a batch show what all of it would do, and take: in networks of torchvision
    and timm, which are large, a few. Elsewhere all, as the user's own code may count them."""
    batch = config.data.batch_size
    large = isinstance(config.model, schema.TorchvisionModel | schema.TimmModel)
    if not large or isinstance(config.norm, schema.CustomNormConfig):
        return batch
    return batch if getattr(config.norm, "batch_size", None) else min(batch, FEW_IMAGES)


def _passed(config: schema.RunConfig, model: nn.Module | None = None) -> tuple[int, int]:
    """How many images go through the network in an evaluation during training, and in the last one:
    under one kind of statistics, or under three where a layer has batch statistics or no `model` is
    there to be asked."""
    data, dataset, few = config.data, facts(config.data), config.train.evaluation_images
    train, held = feasible.train_images_left(config, dataset), data.validation_size
    seen, validated = (min(images, few or images) for images in (train, held))
    seen = min(seen, few or POPULATION_IMAGES)
    before, population = (
        min(train, most) for most in (POPULATION_IMAGES_BEFORE, POPULATION_IMAGES)
    )
    if model is not None and not any(isinstance(each, _BatchNorm) for each in model.modules()):
        return seen + validated, population + held + dataset.test_images
    during = max(before, seen) + 2 * seen + 3 * validated
    return during, 3 * (population + held + dataset.test_images)


def memory(configs: Iterable[schema.RunConfig]) -> int:
    """Bytes of a process that trains any of these runs, as far as they are known."""
    most = 0
    for same in networks(configs):
        with suppress(ValueError):  # it cannot be made, and will be refused
            needs = demand.needs(same[0], demand.shapes(same[0]))
            most = max(most, sum(size for *_, size in needs))
    return PROCESS_BYTES + most


def reckoned(config: schema.RunConfig) -> Cost | None:
    """The cost of a run that is too large to be tried, by arithmetic; None for one that is not."""
    steps, train = feasible.planned_steps(config), config.train
    shapes = demand.shapes(config)
    step = 3 * config.data.batch_size * shapes.products  # the backward pass is two
    during, last = _passed(config)
    needs = {what: size for what, _, size in demand.needs(config, shapes)}
    tried = 2 * step + during * shapes.products
    if tried <= TRIED_PRODUCTS and sum(needs.values()) <= TRIED_BYTES:
        return None
    products = steps * step + ((train.evaluations - 1) * during + last) * shapes.products
    return Cost(
        seconds=products / PRODUCTS_PER_SECOND,
        bytes=needs["weights"] + recorded_bytes(config),
        rough=True,
        basis="arithmetic",
    )
