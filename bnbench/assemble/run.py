"""A run, put together from its configuration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from math import log

import torch
from torch import Tensor, nn

from bnbench import optim
from bnbench.assemble.check import obstacle_of
from bnbench.assemble.custom import guarded, named
from bnbench.assemble.foreign import require_logits
from bnbench.assemble.inputs import (
    Announce,
    RunImages,
    autocast,
    evaluation_steps,
    evaluations,
    load_dataset,
    norm_batch_size,
    reseed_layers,
    run_images,
)
from bnbench.assemble.model import learning_rate, make_model, make_optimizer
from bnbench.config import datasets, feasible, schema
from bnbench.config.hints import value_called
from bnbench.errors import ArgumentError, ConfigError, Fault, UsageError
from bnbench.guard import awaited
from bnbench.models.recipe import counts
from bnbench.train import Divergence, Run


@dataclass(frozen=True, slots=True)
class Facts:
    """What a user wants to know about a run before it starts."""

    parameters: int
    trainable_parameters: int
    normalization_layers: int
    train_images: int
    validation_images: int
    test_images: int
    classes: tuple[str, ...]
    steps_per_epoch: int
    total_steps: int


def resolve_device(name: str, worker: int = 0) -> torch.device:
    """The device of this name; auto: the first GPU there is, else the CPU; cuda: of several GPUs
    the one whose turn it is, where workers are numbered from 0. Raises UsageError.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, colon, index = name.partition(":")  # torch.device wraps the index: "cuda:256" is cuda:0
    available = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if kind not in available or (colon and not (index.isascii() and index.isdigit())):
        meant = value_called("compute.device", name)
        do = f"did you mean {meant}?" if meant else "auto, cpu, cuda, cuda:1 or mps"
        raise UsageError(f"{name} is not a device", do=do)
    if int(index or 0) >= available[kind]:
        raise UsageError(
            f"there is no device {name} on this machine",
            do="use --device cpu, or auto for what there is",
        )
    if kind == "cuda":
        return torch.device("cuda", int(index or worker % available[kind]))
    return torch.device(name)


def build_run(
    config: schema.RunConfig, device: torch.device, *, announce: Announce = lambda _: None
) -> tuple[Run, Facts]:
    """Everything that training needs, and what a user wants to know about it.

    `announce` is told what takes long (a download), and what is odd. Raises ConfigError, DataError.
    """
    dataset = load_dataset(config.data, announce)
    try:
        images = run_images(config, dataset, device)
        steps = datasets.total_steps(
            config.train, len(images.train), config.data.batch_size, config.data.drop_last
        )
    except ValueError as error:
        raise _fault(config, str(error)) from error
    fails = "the network cannot be made"
    with (
        awaited(named(config), announce),
        guarded(config, lambda said: _fault(config, f"{fails}: {said}")),
    ):
        try:
            return _built(config, images, device, steps, announce)
        except ValueError as error:
            if feasible.opaque(config) and not isinstance(error, ArgumentError):
                raise  # most likely not of ours
            obstacle = obstacle_of(config, error)
            raise _fault(config, obstacle.message, obstacle.hint) from error


def _fault(config: schema.RunConfig, message: str, hint: str | None = None) -> ConfigError:
    return ConfigError([Fault(f"setup {config.setup}", message, hint)])


def _built(
    config: schema.RunConfig,
    images: RunImages,
    device: torch.device,
    steps: int,
    announce: Announce,
) -> tuple[Run, Facts]:
    """Raises ValueError where normalization and network do not fit together."""
    classes = len(images.dataset.classes)
    _, *shape = images.dataset.train.pixels.shape
    if device.type == "cuda":  # cuDNN's other algorithms add up in any order
        torch.backends.cudnn.deterministic = True
    model = make_model(config, tuple(shape), classes, steps).to(device)
    if feasible.opaque(config):
        require_logits(model, classes, announce)
    evaluate, evaluate_last = evaluations(images, model)
    run = Run(
        model=model,
        optimizer=make_optimizer(config.optim, model),
        batch_at=images.batches,
        lr_at=learning_rate(config, steps),
        total_steps=steps,
        evaluate_after=evaluation_steps(steps, config.train.evaluations),
        evaluate=evaluate,
        evaluate_last=evaluate_last,
        log_every=config.train.log_every,
        divergence=Divergence(
            limit=config.train.diverged_above * log(classes),
            grace_steps=optim.warmup_steps(config.optim.warmup, steps),
            criterion=f"{config.train.diverged_above:g}·ln(classes)",
        ),
        autocast=autocast(config, device),
        reseed=partial(reseed_layers, config.seed, device),
        replayable=device.type == "cpu" and not feasible.opaque(config),
    )
    if config.probes.chosen():
        from bnbench.assemble.probes import Parts, make_probes

        run = replace(run, probes=make_probes(Parts(images, run), announce))
    return run, _facts(images, model, steps)


def _facts(images: RunImages, model: nn.Module, steps: int) -> Facts:
    found = counts(model)
    return Facts(
        parameters=found.parameters,
        trainable_parameters=found.trainable,
        normalization_layers=found.normalization_layers,
        train_images=len(images.train),
        validation_images=len(images.validation),
        test_images=len(images.dataset.test.labels),
        classes=images.dataset.classes,
        steps_per_epoch=images.batches.steps_per_epoch,
        total_steps=steps,
    )


Batch = tuple[Tensor, Tensor]


def batches_of_stored(config: schema.RunConfig, images: int) -> tuple[list[Batch], list[Batch]]:
    """For a stored run that is diagnosed, so many images each of training and validation, on the
    CPU; of validation none where there are none.

    Of training, batches that are evenly spread over the first epoch: augmented, in the run's order,
    cut into what shares batch statistics. Of validation, a stratified sample, as evaluated.
    """
    of_run = run_images(config, load_dataset(config.data, lambda _: None), torch.device("cpu"))
    chunk, steps = norm_batch_size(config), of_run.batches.steps_per_epoch
    count = min(-(-images // config.data.batch_size), steps)
    training: list[Batch] = []
    for k in range(count):
        x, y = of_run.batches(k * steps // count)
        training += zip(x.split(chunk), y.split(chunk), strict=True)  # type: ignore[no-untyped-call]
    chosen, _ = of_run.stratified("val", [images], "diagnosis", together=1)
    return training, list(of_run.sample("val", chosen).batches(config.data.eval_batch_size))
