"""Images of one machine's disk, for a process that cannot read it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray

from bnbench.assemble.inputs import keep_loaded, load_dataset
from bnbench.config import datasets, schema
from bnbench.data.dataset import Dataset, Images


@dataclass(frozen=True, slots=True)
class Packed:
    """A dataset as arrays, which pickle apart from the rest and without a copy: pixels and labels
    of training and test images."""

    facts: datasets.DatasetFacts
    name: str
    classes: tuple[str, ...]
    arrays: tuple[NDArray[Any], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def pack(data: schema.DataConfig, announce: Callable[[str], None]) -> Packed:
    """What a worker needs of a dataset. Raises DataError."""
    dataset = load_dataset(data, announce)
    parts = dataset.train, dataset.test
    arrays = tuple(tensor.numpy() for part in parts for tensor in (part.pixels, part.labels))
    about = datasets.facts(data)
    return Packed(about, dataset.name, dataset.classes, arrays, dataset.mean, dataset.std)


@contextmanager
def received(data: Sequence[schema.DataConfig], packed: Iterable[Packed]) -> Iterator[None]:
    """While inside, these datasets stand for those of another machine's disk."""
    both = list(zip(data, packed, strict=True))
    with datasets.received({datasets.source(each): there.facts for each, there in both}):
        for each, there in both:
            keep_loaded(each, _unpacked(there))
        yield


def _unpacked(packed: Packed) -> Dataset:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nor written to
        a, b, c, d = map(torch.from_numpy, packed.arrays)
    train, test = Images(a, b), Images(c, d)
    return Dataset(packed.name, packed.classes, train, test, packed.mean, packed.std)
