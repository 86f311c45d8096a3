"""What a run starts from, its images and its random numbers; what is measured, on which images.

Each purpose has a generator of its own, derived from the run's seed: setups that share a seed share
split, order and initial weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias, assert_never

import torch
from torch import Tensor, nn

from bnbench.config import schema
from bnbench.config.datasets import prepared_copy, source
from bnbench.data import batches as data_batches
from bnbench.data.batches import Batches, Standardize, subset
from bnbench.data.dataset import Dataset, load_fashion_mnist_12k, pixel_moments
from bnbench.events import Measurement, Split
from bnbench.probes.statistics import Autocast, Discrepancy, Sample

Announce = Callable[[str], None]

_loaded: dict[str, Dataset] = {}


def load_dataset(config: schema.DataConfig, announce: Announce) -> Dataset:
    """The images that a configuration names; kept in memory for the next run. Raises DataError."""
    if (name := _name(config)) not in _loaded:
        keep_loaded(config, _load(config, announce))
    return _loaded[name]


def keep_loaded(config: schema.DataConfig, dataset: Dataset) -> None:
    """Let these be the images that a configuration names. One dataset is kept at a time: the next
    run most likely wants the same."""
    _loaded.clear()
    _loaded[_name(config)] = dataset


def _name(config: schema.DataConfig) -> str:
    code = prepared_copy(config)[1] if isinstance(config, schema.CustomData) else ""
    return source(config) + code


def _load(config: schema.DataConfig, announce: Announce) -> Dataset:
    match config:
        case schema.Fashion12kData():
            return load_fashion_mnist_12k()
        case schema.TorchvisionData():
            from bnbench.data import torchvision_sets

            return torchvision_sets.load_torchvision(
                config.dataset,
                root=None if config.root is None else Path(config.root),
                download=config.download,
                announce=announce,
            )
        case schema.ImageFolderData():
            from bnbench.data import image_folder

            return image_folder.load_image_folder(
                Path(config.root),
                image_size=config.image_size,
                channels=config.channels,
                announce=announce,
            )
        case schema.CustomData():
            from bnbench.assemble import own_images

            return own_images.load(config, announce)
        case schema.SyntheticData():
            from bnbench.data import synthetic

            return synthetic.generate_synthetic(
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


def standardization(config: schema.DataConfig, dataset: Dataset) -> Standardize:
    """What makes a network's inputs of pixels; moments are of all training images."""
    match config.inputs:
        case "standardized":
            return Standardize(dataset.mean, dataset.std)
        case "standardized-pixels":
            return Standardize(*pixel_moments(dataset.train.pixels))
        case "unit":
            channels = len(dataset.mean)
            return Standardize((0.0,) * channels, (1.0,) * channels)
        case _:
            assert_never(config.inputs)


def generator(seed: int, *purpose: object) -> torch.Generator:
    """Random numbers for one purpose of one run; other purposes and seeds are independent."""
    return torch.Generator().manual_seed(derived(seed, *purpose))


def derived(seed: int, *purpose: object) -> int:
    """A seed of 63 bits for one purpose of one run."""
    words = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest()) >> 1


def reseed_layers(seed: int, device: torch.device, step: int) -> None:
    """Let dropout and other layers that draw numbers draw those of this step."""
    value = derived(seed, "layers", step)
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(value)
    elif device.type == "mps":
        torch.mps.manual_seed(value)


# --- what is measured ------------------------------------------------------------

Evaluate: TypeAlias = Callable[[], list[Measurement]]

POPULATION_IMAGES = 1024
"""Training images for population statistics at the end of a run: 1,000 to 10,000 suffice (Wu &
Johnson 2021, https://arxiv.org/abs/2105.07576, section 3.2); a power of two splits into batches."""

POPULATION_IMAGES_BEFORE = 256
"""The same at earlier evaluations, where the pass would otherwise be most of the cost."""


def evaluation_steps(total: int, evaluations: int) -> frozenset[int]:
    """After which steps to evaluate: evenly spaced over the budget, the last one at its end."""
    return frozenset(max(1, round(i * total / evaluations)) for i in range(1, evaluations + 1))


def norm_batch_size(config: schema.RunConfig) -> int:
    """Images per BatchNorm statistic (the ghost batch size, else the batch size)."""
    if isinstance(config.norm, schema.Chunked):
        return config.norm.batch_size or config.data.batch_size
    return config.data.batch_size


def sorted_together(config: schema.RunConfig, train_images: int) -> int:
    """How many images in a row training sorts by class; 1: it shuffles them.

    Of an epoch that is sorted, most batches hold one class; a sample has too few images of a class
    for that, and comes nearest to it sorted as a whole.
    """
    match config.data.order:
        case "shuffled":
            return 1
        case "class-sorted":
            return train_images
        case "class-sorted-batches":
            return config.data.batch_size
        case _:
            assert_never(config.data.order)


def whole(config: schema.RunConfig) -> int:
    """Images that belong together: those of one statistic, or the batch that training sorts."""
    by_batch = config.data.order == "class-sorted-batches"
    return config.data.batch_size if by_batch else norm_batch_size(config)


def autocast(config: schema.RunConfig, device: torch.device) -> Autocast:
    match config.compute.precision:
        case "fp32":
            return nullcontext
        case "bf16":
            return partial(torch.autocast, device.type, torch.bfloat16)
        case _:
            assert_never(config.compute.precision)


def discrepancy(config: schema.RunConfig, device: torch.device) -> Discrepancy:
    """How images are passed under each kind of statistics."""
    return Discrepancy(
        norm_batch_size=norm_batch_size(config),
        pass_size=config.data.eval_batch_size,
        autocast=autocast(config, device),
    )


@dataclass(frozen=True, slots=True)
class RunImages:
    """The dataset of a run, which of its training images train and validate, and their batches."""

    dataset: Dataset
    train: Tensor
    validation: Tensor
    standardize: Standardize
    batches: Batches
    device: torch.device

    def sample(self, split: Split, indices: Tensor) -> Sample:
        """The images at `indices` of the training or, for that split, of the test images."""
        images = self.dataset.test if split == "test" else self.dataset.train
        return Sample(
            split=split,
            images=len(indices),
            places=indices,
            batches=lambda size: data_batches.chunks(
                images, indices, size=size, standardize=self.standardize, device=self.device
            ),
        )


def ordered(
    labels: Tensor, sizes: Sequence[int], random: torch.Generator, *, together: int
) -> Tensor:
    """Positions in `labels` in an order whose first n, for each n of `sizes`, are stratified.

    Between two sizes the order is random, then each `together` in a row are sorted by class, as
    training sorts them: neighbours share batch statistics, and sorting more images at once makes
    batches of one class where training has few.
    """
    parts: list[Tensor] = []
    pool = torch.arange(len(labels))
    for size in [*sorted(set(sizes), reverse=True), 0]:
        inner = pool[subset(labels[pool], min(size, len(pool)), random)] if size else pool[:0]
        outer = pool[~torch.isin(pool, inner)]
        outer = outer[torch.randperm(len(outer), generator=random)]
        parts.append(outer[by_class(labels[outer], together)])
        pool = inner
    return torch.cat(parts[::-1])


def by_class(labels: Tensor, together: int) -> Tensor:
    """Positions in `labels`, each `together` in a row sorted by class; 1: as they are."""
    order = labels.argsort(stable=True)
    return order[(order // together).argsort(stable=True)]


def evaluations(
    config: schema.RunConfig, images: RunImages, model: nn.Module
) -> tuple[Evaluate, Evaluate]:
    """What measures the model during training, and what does at its end.

    Numbers of images are `whole` ones, as far as there are enough.
    """
    unit = whole(config)
    few = config.train.evaluation_images

    def samples(split: Split, indices: Tensor, *sizes: int | None) -> list[Sample]:
        """A stratified sample for each size (None: all images), each the beginning of the next
        larger one; then all images in the same order."""
        counts = [
            len(indices) if size is None else min(len(indices), -(-size // unit) * unit)
            for size in sizes
        ]
        dataset = images.dataset
        order = ordered(
            (dataset.test if split == "test" else dataset.train).labels[indices],
            counts,
            generator(config.seed, "evaluation", split),
            together=sorted_together(config, len(images.train)),
        )
        return [images.sample(split, indices[order[:n]]) for n in (*counts, len(indices))]

    sizes = few or POPULATION_IMAGES, POPULATION_IMAGES_BEFORE, POPULATION_IMAGES
    few_train, before, population, _ = samples("train", images.train, *sizes)
    few_validation, validation = samples("val", images.validation, few)
    test, _ = samples("test", torch.arange(len(images.dataset.test.labels)), None)
    measure = partial(discrepancy(config, images.device).measure, model)
    enough = max(before, few_train, key=lambda sample: sample.images)
    held = len(images.validation) > 0
    return (
        partial(measure, enough, (few_train, *[few_validation] * held)),
        partial(measure, population, (population, *[validation] * held, test)),
    )
