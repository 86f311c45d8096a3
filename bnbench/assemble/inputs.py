"""What a run starts from: its images, and its random numbers.

Each purpose has a generator of its own, derived from the run's seed: setups that share a seed share
split, order and initial weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import assert_never

import torch

from bnbench.config import schema
from bnbench.data.dataset import Dataset
from bnbench.data.fashion12k import load_fashion_mnist_12k

Announce = Callable[[str], None]

_loaded: dict[schema.DataConfig, Dataset] = {}


def load_dataset(config: schema.DataConfig, announce: Announce) -> Dataset:
    """The images that a configuration names; kept in memory for the next run. Raises DataError."""
    usage = {
        name: field.default
        for name, field in schema.ImageData.model_fields.items()
        if name not in ("root", "download")
    }
    source = config.model_copy(update=usage)
    if source not in _loaded:
        _loaded.clear()  # one dataset at a time: the next run most likely wants the same
        _loaded[source] = _load(source, announce)
    return _loaded[source]


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
