"""The one door from configuration to tensors.

`build_run` reads a `RunConfig` and makes the parts of a `Run`; what it calls knows no
configuration. Whatever is random is drawn from a generator of its own, derived from the run's
seed and a purpose, so that setups which share a seed share split, order and initial weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from math import log
from pathlib import Path
from typing import assert_never

import torch
from torch import Tensor, nn

from bnbench import data, models, norms, optim
from bnbench.config import (
    AdamWConfig,
    BatchNormConfig,
    DataConfig,
    Fashion12kData,
    GroupNormConfig,
    ImageData,
    ImageFolderData,
    LayerNormConfig,
    MLPModel,
    ModelConfig,
    NoNorm,
    NormConfig,
    OptimConfig,
    PlainModel,
    RunConfig,
    SGDConfig,
    SyntheticData,
    TorchvisionData,
    total_steps,
)
from bnbench.errors import ConfigError, Fault, UsageError
from bnbench.events import Split
from bnbench.probes import Autocast, Discrepancy, Sample
from bnbench.train import Divergence, Evaluate, Run

POPULATION_IMAGES = 1024
"""Training images behind population statistics: 1,000 to 10,000 suffice (Wu & Johnson 2021,
https://arxiv.org/abs/2105.07576, section 3.2); a power of two splits evenly into batches."""

Announce = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a user wants to know about a run before it starts."""

    parameters: int
    normalization_layers: int
    train_images: int
    validation_images: int
    test_images: int
    steps_per_epoch: int
    total_steps: int


def generator(seed: int, *purpose: object) -> torch.Generator:
    """Random numbers for one purpose of one run; other purposes and seeds are independent."""
    return torch.Generator().manual_seed(_derived(seed, *purpose))


def _derived(seed: int, *purpose: object) -> int:
    words = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest()) >> 1


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


_loaded: dict[DataConfig, data.Dataset] = {}


def load_dataset(config: DataConfig, announce: Announce) -> data.Dataset:
    """The images that a configuration names; kept in memory for the next run. Raises DataError."""
    usage = {
        name: field.default
        for name, field in ImageData.model_fields.items()
        if name not in ("root", "download")
    }
    source = config.model_copy(update=usage)
    if source not in _loaded:
        _loaded.clear()  # one dataset at a time: the next run most likely wants the same
        _loaded[source] = _load(source, announce)
    return _loaded[source]


def _load(config: DataConfig, announce: Announce) -> data.Dataset:
    match config:
        case Fashion12kData():
            return data.load_fashion_mnist_12k()
        case TorchvisionData():
            return data.load_torchvision(
                config.dataset,
                root=None if config.root is None else Path(config.root),
                download=config.download,
                announce=announce,
            )
        case ImageFolderData():
            return data.load_image_folder(
                Path(config.root),
                image_size=config.image_size,
                channels=config.channels,
                announce=announce,
            )
        case SyntheticData():
            return data.generate_synthetic(
                train_images=config.train_images,
                test_images=config.test_images,
                classes=config.classes,
                channels=config.channels,
                image_size=config.image_size,
                noise=config.noise,
                seed=config.data_seed,
            )
        case _:
            assert_never(config)


def make_norm(config: NormConfig) -> Callable[[int], nn.Module] | None:
    """What makes a normalization layer for a number of channels; None: there is none."""
    match config:
        case NoNorm():
            return None
        case BatchNormConfig():
            return partial(
                norms.batch_norm,
                batch_size=config.batch_size,
                momentum=config.momentum,
                eps=config.eps,
                affine=config.affine,
            )
        case GroupNormConfig():
            return partial(
                norms.GroupNorm, groups=config.groups, eps=config.eps, affine=config.affine
            )
        case LayerNormConfig():
            return partial(norms.LayerNorm, eps=config.eps, affine=config.affine)
        case _:
            assert_never(config)


def make_activation(config: ModelConfig) -> Callable[[], nn.Module]:
    """What makes an activation layer."""
    match config.activation:
        case "relu":
            return nn.ReLU
        case "leaky-relu":
            return nn.LeakyReLU
        case "gelu":
            return nn.GELU
        case "silu":
            return nn.SiLU
        case "tanh":
            return nn.Tanh
        case "sigmoid":
            return nn.Sigmoid
        case _:
            assert_never(config.activation)


def make_model(config: RunConfig, *, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The network for images of `image_shape` (C, H, W), initialized, channels-last.

    Raises ValueError where normalization and network do not fit together.
    """
    channels, height, width = image_shape
    recipe = models.Recipe(
        make_norm=make_norm(config.norm),
        make_activation=make_activation(config.model),
        placement="before" if isinstance(config.norm, NoNorm) else config.norm.placement,
    )
    model: nn.Module
    match config.model:
        case PlainModel():
            model = models.Plain(
                in_channels=channels,
                classes=classes,
                widths=config.model.widths,
                blocks=config.model.blocks,
                recipe=recipe,
                dropout=config.model.dropout,
            )
        case MLPModel():
            model = models.MLP(
                features=channels * height * width,
                classes=classes,
                widths=config.model.widths,
                recipe=recipe,
                dropout=config.model.dropout,
            )
        case _:
            assert_never(config.model)
    models.initialize(model, config.model.init, partial(generator, config.seed, "init"))
    return model.to(memory_format=torch.channels_last)


def make_optimizer(config: OptimConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over all of a model's parameters."""
    groups = optim.parameter_groups(
        model,
        weight_decay=config.weight_decay,
        decay_norm_and_bias=config.decay_norm_and_bias,
    )
    match config:
        case SGDConfig():
            return optim.sgd(groups, momentum=config.momentum)
        case AdamWConfig():
            return optim.adamw(groups, betas=config.betas, eps=config.eps)
        case _:
            assert_never(config)


def learning_rate(config: RunConfig, steps: int) -> optim.LearningRate:
    """The learning rate of each of `steps` steps."""
    settings = config.optim
    peak = optim.scaled_lr(
        settings.lr,
        rule=settings.lr_rule,
        batch_size=config.data.batch_size,
        base_batch_size=settings.base_batch_size,
    )
    match settings.schedule:
        case "constant":
            return optim.constant(peak, total_steps=steps, warmup=settings.warmup)
        case "cosine":
            return optim.cosine(peak, total_steps=steps, warmup=settings.warmup)
        case "step":
            return optim.stepwise(
                peak,
                total_steps=steps,
                warmup=settings.warmup,
                milestones=settings.milestones,
                decay=settings.decay,
            )
        case _:
            assert_never(settings.schedule)


def evaluation_steps(total: int, evaluations: int) -> frozenset[int]:
    """After which steps to evaluate: evenly spaced over the budget, the last one at its end."""
    return frozenset(max(1, round(i * total / evaluations)) for i in range(1, evaluations + 1))


def norm_batch_size(config: RunConfig) -> int:
    """Examples that share batch statistics in training, were the normalization BatchNorm."""
    if isinstance(config.norm, BatchNormConfig) and config.norm.batch_size is not None:
        return config.norm.batch_size
    return config.data.batch_size


def build_run(
    config: RunConfig, device: torch.device, *, announce: Announce = lambda _: None
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
        _, *shape = dataset.train.pixels.shape
        channels, height, width = shape
        model = make_model(
            config, image_shape=(channels, height, width), classes=len(dataset.classes)
        ).to(device)
    except ValueError as error:
        raise ConfigError([Fault(where=f"setup {config.setup}", message=str(error))]) from error

    steps = total_steps(
        config.train, len(train_indices), config.data.batch_size, config.data.drop_last
    )
    evaluate, evaluate_last = _evaluations(
        config, dataset, train_indices, validation_indices, model, standardize, device
    )
    run = Run(
        model=model,
        optimizer=make_optimizer(config.optim, model),
        batch_at=batches,
        lr_at=learning_rate(config, steps),
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
        autocast=_autocast(config, device),
        reseed=partial(_reseed, config.seed, device),
    )
    facts = Facts(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        normalization_layers=sum(
            name.rsplit(".", 1)[-1] == "norm" for name, _ in model.named_modules()
        ),
        train_images=len(train_indices),
        validation_images=len(validation_indices),
        test_images=len(dataset.test.labels),
        steps_per_epoch=batches.steps_per_epoch,
        total_steps=steps,
    )
    return run, facts


def _autocast(config: RunConfig, device: torch.device) -> Autocast:
    match config.compute.precision:
        case "fp32":
            return nullcontext
        case "bf16":
            return partial(torch.autocast, device.type, torch.bfloat16)
        case _:
            assert_never(config.compute.precision)


def _reseed(seed: int, device: torch.device, step: int) -> None:
    """Let dropout and other layers that draw numbers draw those of this step."""
    value = _derived(seed, "layers", step)
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(value)
    elif device.type == "mps":
        torch.mps.manual_seed(value)


def _evaluations(
    config: RunConfig,
    dataset: data.Dataset,
    train_indices: Tensor,
    validation_indices: Tensor,
    model: nn.Module,
    standardize: data.Standardize,
    device: torch.device,
) -> tuple[Evaluate, Evaluate]:
    """What measures the model during training, and at its end.

    Samples are whole chunks of images that share batch statistics, as far as there are enough.
    """
    random = partial(generator, config.seed, "evaluation")
    chunk = norm_batch_size(config)
    few = config.train.evaluation_images

    def sample(split: Split, images: data.Images, indices: Tensor, *, whole: bool) -> Sample:
        """The images at `indices`, or the first few of them, among companions as in training."""
        indices = indices[torch.randperm(len(indices), generator=random(split))]
        count = len(indices) if few is None else min(len(indices), _whole_chunks(few, chunk))
        parts = [indices[:count], indices[count:]]
        if config.data.order == "class-sorted":
            parts = [part[images.labels[part].argsort(stable=True)] for part in parts]
        chosen = torch.cat(parts) if whole else parts[0]
        return Sample(
            split=split,
            images=len(chosen),
            batches=lambda size: data.chunks(
                images, chosen, size=size, standardize=standardize, device=device
            ),
        )

    labels = dataset.train.labels[train_indices]
    size = min(len(labels), _whole_chunks(POPULATION_IMAGES, chunk))
    probe_indices = train_indices[data.subset(labels, size, random("population"))]
    test_indices = torch.arange(len(dataset.test.labels))
    population = sample("train", dataset.train, probe_indices, whole=True)
    validation = sample("val", dataset.train, validation_indices, whole=True)
    test = sample("test", dataset.test, test_indices, whole=True)
    train_few = sample("train", dataset.train, probe_indices, whole=False)
    validation_few = sample("val", dataset.train, validation_indices, whole=False)
    discrepancy = Discrepancy(
        norm_batch_size=chunk,
        pass_size=config.data.eval_batch_size,
        autocast=_autocast(config, device),
    )
    measure = partial(discrepancy.measure, model, population=population)
    return (
        lambda where: measure(samples=(train_few, validation_few), where=where),
        lambda where: measure(samples=(population, validation, test), where=where),
    )


def _whole_chunks(images: int, chunk: int) -> int:
    """At least `images`, in whole chunks."""
    return -(-images // chunk) * chunk
