"""Puts a run together from its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import log

import torch

from bnbench import data, optim
from bnbench.assemble.check import obstacle_of
from bnbench.assemble.dataset import Announce, load_dataset
from bnbench.assemble.evaluation import autocast, evaluation_steps, evaluations
from bnbench.assemble.model import learning_rate, make_model, make_optimizer
from bnbench.assemble.random import generator, reseed_layers
from bnbench.config import datasets, schema
from bnbench.errors import ArgumentError, ConfigError, Fault, UsageError
from bnbench.models.normalization import describe
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


def resolve_device(name: str) -> torch.device:
    """The device of this name; auto: the first GPU there is, else the CPU. Raises UsageError."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")  # torch.device wraps the index: "cuda:256" is cuda:0
    available = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if int(index or 0) >= available.get(kind, 0):
        raise UsageError(
            f"there is no device {name} on this machine",
            do="use --device cpu, or auto for what there is",
        )
    if kind == "cuda":
        return torch.device("cuda", int(index or 0))
    return torch.device(name)


def build_run(
    config: schema.RunConfig, device: torch.device, *, announce: Announce = lambda _: None
) -> tuple[Run, Facts]:
    """Everything that training needs, and what a user wants to know about it.

    `announce` is told what takes long (a download). Raises ConfigError, DataError.
    """
    random = partial(generator, config.seed)
    dataset = load_dataset(config.data, announce)
    try:
        train_indices, validation_indices = data.split(
            dataset.train.labels,
            validation_size=config.data.validation_size,
            train_size=config.data.train_size,
            generator=random("split"),
        )
        standardize = data.Standardize(dataset.mean, dataset.std).to(device)
        batches = data.Batches(
            dataset.train,
            train_indices,
            batch_size=config.data.batch_size,
            drop_last=config.data.drop_last,
            order=config.data.order,
            standardize=standardize,
            augment=config.data.augment,
            generator_for=random,
            device=device,
        )
        _, channels, height, width = dataset.train.pixels.shape
        steps = datasets.total_steps(
            config.train, len(train_indices), config.data.batch_size, config.data.drop_last
        )
        model = make_model(
            config,
            image_shape=(channels, height, width),
            classes=len(dataset.classes),
            steps=steps,
        ).to(device)
    except ArgumentError as error:
        obstacle = obstacle_of(config, error)
        fault = Fault(f"setup {config.setup}", obstacle.message, obstacle.hint)
        raise ConfigError([fault]) from error
    except ValueError as error:
        raise ConfigError([Fault(where=f"setup {config.setup}", message=str(error))]) from error

    evaluate, evaluate_last = evaluations(
        config, dataset, train_indices, validation_indices, model, standardize, device
    )
    optimizer = make_optimizer(config.optim, model)
    lr_at = learning_rate(config, steps)
    reseed = partial(reseed_layers, config.seed, device)
    probes = {}
    if config.probes.chosen():
        from bnbench.assemble.probes import Parts, make_probes

        parts = Parts(
            config=config,
            images=dataset.train,
            train_indices=train_indices,
            validation_indices=validation_indices,
            standardize=standardize,
            device=device,
            model=model,
            optimizer=optimizer,
            lr_at=lr_at,
            reseed=reseed,
            steps=steps,
        )
        probes = make_probes(parts, announce)
    run = Run(
        model=model,
        optimizer=optimizer,
        batch_at=batches,
        lr_at=lr_at,
        total_steps=steps,
        evaluate_after=evaluation_steps(steps, config.train.evaluations),
        evaluate=evaluate,
        evaluate_last=evaluate_last,
        log_every=config.train.log_every,
        divergence=Divergence(
            limit=config.train.diverged_above * log(len(dataset.classes)),
            grace_steps=optim.warmup_steps(config.optim.warmup, steps),
            criterion=f"{config.train.diverged_above:g}·ln(classes)",
        ),
        autocast=autocast(config, device),
        reseed=reseed,
        probes=probes,
    )
    described = describe(model)
    facts = Facts(
        parameters=described.parameters,
        trainable_parameters=described.trainable,
        normalization_layers=described.normalization_layers,
        train_images=len(train_indices),
        validation_images=len(validation_indices),
        test_images=len(dataset.test.labels),
        classes=dataset.classes,
        steps_per_epoch=batches.steps_per_epoch,
        total_steps=steps,
    )
    return run, facts
