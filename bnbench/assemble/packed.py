"""Images of one machine's disk, for a process that cannot read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from bnbench.assemble.inputs import keep_loaded, load_dataset
from bnbench.config import datasets, schema
from bnbench.data.dataset import Dataset

Packed: TypeAlias = tuple[datasets.DatasetFacts, Dataset]
"""What a worker needs of a dataset."""


def pack(data: schema.DataConfig, announce: Callable[[str], None]) -> Packed:
    """Raises DataError."""
    dataset = load_dataset(data, announce)
    return datasets.facts(data), dataset


@contextmanager
def received(data: Sequence[schema.DataConfig], packed: Iterable[Packed]) -> Iterator[None]:
    """While inside, these datasets stand for those of another machine's disk."""
    both = list(zip(data, packed, strict=True))
    with datasets.received({datasets.source(each): facts for each, (facts, _) in both}):
        for each, (_, dataset) in both:
            keep_loaded(each, dataset)
        yield
