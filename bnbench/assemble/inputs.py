"""What a run starts from, its images and its random numbers; what is measured, on which images.

Each purpose has a generator of its own, derived from the run's seed: setups that share a seed share
split, order and initial weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias, assert_never

import torch
from torch import Tensor, nn

from bnbench.config import datasets, schema
from bnbench.data import batches as data_batches
from bnbench.data.batches import Batches, Standardize, split, subset
from bnbench.data.dataset import Dataset, Images, load_fashion_mnist_12k, pixel_moments
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


Packed: TypeAlias = tuple[datasets.DatasetFacts, Dataset]
"""What a process that cannot read the disk needs of a dataset."""


def pack(config: schema.DataConfig, announce: Announce) -> Packed:
    """The images of this machine's disk, for another one. Raises DataError."""
    dataset = load_dataset(config, announce)
    return datasets.facts(config), dataset


@contextmanager
def received(data: Sequence[schema.DataConfig], packed: Iterable[Packed]) -> Iterator[None]:
    """While inside, these datasets stand for those of another machine's disk."""
    both = list(zip(data, packed, strict=True))
    with datasets.received({datasets.source(each): facts for each, (facts, _) in both}):
        for each, (_, dataset) in both:
            keep_loaded(each, dataset)
        yield


def _name(config: schema.DataConfig) -> str:
    code = datasets.prepared_copy(config)[1] if isinstance(config, schema.CustomData) else ""
    return datasets.source(config) + code


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
                data_seed=config.data_seed,
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


def autocast(config: schema.RunConfig, device: torch.device) -> Autocast:
    match config.compute.precision:
        case "fp32":
            return nullcontext
        case "bf16":
            return partial(torch.autocast, device.type, torch.bfloat16)
        case _:
            assert_never(config.compute.precision)


@dataclass(frozen=True, slots=True)
class RunImages:
    """The dataset of a run, which of its training images train and validate, and their batches."""

    config: schema.RunConfig
    dataset: Dataset
    train: Tensor
    validation: Tensor
    standardize: Standardize
    batches: Batches
    device: torch.device

    @property
    def how(self) -> Discrepancy:
        """How images are passed under each kind of statistics."""
        return Discrepancy(
            norm_batch_size=norm_batch_size(self.config),
            pass_size=self.config.data.eval_batch_size,
            autocast=autocast(self.config, self.device),
        )

    @property
    def whole(self) -> int:
        """Images that belong together: those of one statistic, or the batch that training sorts."""
        data = self.config.data
        by_batch = data.order == "class-sorted-batches"
        return data.batch_size if by_batch else norm_batch_size(self.config)

    @property
    def together(self) -> int:
        """How many images in a row training sorts by class; 1: it shuffles them.

        Of an epoch that is sorted, most batches hold one class; a sample has too few images of a
        class for that, and comes nearest to it sorted as a whole.
        """
        match self.config.data.order:
            case "shuffled":
                return 1
            case "class-sorted":
                return len(self.train)
            case "class-sorted-batches":
                return self.config.data.batch_size
            case _:
                assert_never(self.config.data.order)

    def sample(self, split: Split, indices: Tensor) -> Sample:
        """The images at `indices` of the training or, for that split, of the test images."""
        images = self._of(split)
        return Sample(
            split=split,
            images=len(indices),
            places=indices,
            batches=lambda size: data_batches.chunks(
                images, indices, size=size, standardize=self.standardize, device=self.device
            ),
        )

    def stratified(
        self,
        split: Split,
        sizes: Iterable[int],
        *purpose: object,
        whole: int = 1,
        together: int | None = None,
    ) -> list[Tensor]:
        """Where the images of a stratified sample are, for each size, and at last all of a split.

        Each is the beginning of the next larger one. Sizes are rounded up to a multiple of
        `whole`, as far as there are enough images. `purpose`: of the random numbers. `together`:
        as in `ordered`; unless given, as training sorts them.
        """
        every = {"train": self.train, "val": self.validation}
        indices = every[split] if split in every else torch.arange(len(self.dataset.test))
        counts = [min(-(-size // whole) * whole, len(indices)) for size in sizes]
        order = ordered(
            self._of(split).labels[indices],
            counts,
            generator(self.config.seed, *purpose),
            together=self.together if together is None else together,
        )
        return [indices[order[:n]] for n in (*counts, len(indices))]

    def _of(self, split: Split) -> Images:
        return self.dataset.test if split == "test" else self.dataset.train


def run_images(config: schema.RunConfig, dataset: Dataset, device: torch.device) -> RunImages:
    """Raises ValueError where the dataset has too few images."""
    random, data = partial(generator, config.seed), config.data
    train, validation = split(
        dataset.train.labels,
        validation_size=data.validation_size,
        train_size=data.train_size,
        generator=random("split"),
    )
    standardize = standardization(data, dataset).to(device)
    batches = Batches(
        dataset.train,
        train,
        batch_size=data.batch_size,
        drop_last=data.drop_last,
        order=data.order,
        standardize=standardize,
        augment=data.augment,
        generator_for=random,
        device=device,
    )
    return RunImages(config, dataset, train, validation, standardize, batches, device)


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


def evaluations(images: RunImages, model: nn.Module) -> tuple[Evaluate, Evaluate]:
    """What measures the model during training, and what does at its end.

    Numbers of images are `whole` ones, as far as there are enough.
    """

    def samples(split: Split, *sizes: int) -> list[Sample]:
        chosen = images.stratified(split, sizes, "evaluation", split, whole=images.whole)
        return [images.sample(split, each) for each in chosen]

    few, held = images.config.train.evaluation_images, len(images.validation)
    sizes = few or POPULATION_IMAGES, POPULATION_IMAGES_BEFORE, POPULATION_IMAGES
    few_train, before, population, _ = samples("train", *sizes)
    few_validation, validation = samples("val", few or held)
    test, _ = samples("test", len(images.dataset.test))
    measure = partial(images.how.measure, model)
    enough = max(before, few_train, key=lambda sample: sample.images)
    return (
        partial(measure, enough, (few_train, *[few_validation] * (held > 0))),
        partial(measure, population, (population, *[validation] * (held > 0), test)),
    )
