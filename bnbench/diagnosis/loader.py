"""Images of a loader, kept, so that every kind of statistics sees the same ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from bnbench.diagnosis.result import Loader
from bnbench.errors import BnbenchError, DataError, UsageError
from bnbench.probes.discrepancy import Sample

MOST_BYTES = 2**30
"""Inputs that are kept of one loader, at most: 1,783 images of 3×224×224 in fp32. Two loaders of
them and a network fit into a laptop's memory."""

EXPECTED = "expected batches (inputs, labels): a tensor and the whole numbers of the classes"


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """Inputs (n, …) and labels (n,), in the loader's order; `sizes`: of its batches."""

    loader: Loader
    x: Tensor
    y: Tensor
    sizes: tuple[int, ...]
    cut_short: bool
    device: torch.device

    def __len__(self) -> int:
        return len(self.y)

    @property
    def batch_size(self) -> int:
        """The loader's own: the commonest, as the last batch may be smaller."""
        ((size, _),) = Counter(self.sizes).most_common(1)
        return size

    def as_they_come(self) -> Sample:
        """The loader's batches, whatever size is asked for."""

        def batches(_: int) -> Iterator[tuple[Tensor, Tensor]]:
            for x, y in zip(self.x.split(self.sizes), self.y.split(self.sizes), strict=True):  # type: ignore[no-untyped-call]
                yield x.to(self.device), y

        return Sample(split="train", images=len(self), batches=batches)

    def in_order(self, order: Tensor) -> Sample:
        """The images at these positions."""

        def batches(size: int) -> Iterator[tuple[Tensor, Tensor]]:
            for chosen in order.split(size):  # type: ignore[no-untyped-call]
                yield self.x[chosen].to(self.device), self.y[chosen]

        return Sample(split="train", images=len(order), batches=batches)


def collect(source: Iterable[Any], loader: Loader, images: int, device: torch.device) -> Collected:
    """The first whole batches that hold `images`, or as many as there are or as fit.

    Of a `DataLoader` over a dataset with indices, and of a list, they are spread evenly: the first
    images of a dataset that is sorted by class are of one class. Raises UsageError, DataError.
    """
    xs: list[Tensor] = []
    ys: list[Tensor] = []
    count, size_in_bytes, cut_short = 0, 0, False
    for batch in _batches(_spread(source, images), loader):
        x, y = _inputs_and_labels(batch, loader)
        if len(x) == 0:
            continue
        if xs and x.shape[1:] != xs[0].shape[1:]:
            raise UsageError(
                f"the {loader} loader's inputs differ in shape: {_shape(xs[0][:1])} and "
                f"{_shape(x[:1])}, the first dimension aside",
                do="other batches are made of them, so they must fit: resize or crop the inputs",
            )
        if count >= images or (xs and size_in_bytes + x.nbytes > MOST_BYTES):
            cut_short = True
            break
        # Copies: some loaders fill the same memory again.
        xs.append(x.detach().to("cpu", copy=True))
        ys.append(y.detach().to("cpu", torch.long, copy=True))
        count, size_in_bytes = count + len(x), size_in_bytes + x.nbytes
    if count < 2:
        had = "no batch" if count == 0 else "one image"
        raise DataError(
            f"the {loader} loader gave {had}", do="give one that yields batches of several images"
        )
    sizes = tuple(len(y) for y in ys)
    return Collected(loader, torch.cat(xs), torch.cat(ys), sizes, cut_short, device)


def _spread(source: Iterable[Any], images: int) -> Iterable[Any]:
    """Some of a loader's batches, evenly spread over it, where they can be had one by one."""
    if isinstance(source, DataLoader):
        sampler = source.batch_sampler
        if isinstance(source.dataset, IterableDataset) or not isinstance(sampler, BatchSampler):
            return source
        batches = list(sampler)
        chosen = _evenly(batches, [len(batch) for batch in batches], images)
        if len(chosen) == len(batches):
            return source
        return DataLoader(
            source.dataset,
            batch_sampler=chosen,
            collate_fn=source.collate_fn,
            num_workers=source.num_workers,
            worker_init_fn=source.worker_init_fn,
            timeout=source.timeout,
            multiprocessing_context=source.multiprocessing_context,
            generator=source.generator,
        )
    if isinstance(source, list | tuple):
        return _evenly(source, [_length(batch) for batch in source], images)
    return source


def _evenly(batches: Sequence[Any], sizes: Sequence[int], images: int) -> Sequence[Any]:
    """Batches of which `images` are enough, spread over all of them, in their order."""
    usual = max(sizes, default=1) or 1
    wanted = min(-(-images // usual), len(batches))
    if wanted < 1:
        return batches
    return [batches[(2 * k + 1) * len(batches) // (2 * wanted)] for k in range(wanted)]


def _length(batch: Any) -> int:
    match batch:
        case [Tensor() as x, *_] if x.ndim:
            return len(x)
        case _:
            return 1


def _batches(source: Iterable[Any], loader: Loader) -> Iterator[Any]:
    """What a loader yields; what it raises becomes a sentence."""
    try:
        yield from source
    except BnbenchError:
        raise
    except Exception as error:
        raise DataError(
            f"the {loader} loader raised {type(error).__name__}: {error}",
            do="--debug shows where",
        ) from error


def _inputs_and_labels(batch: Any, loader: Loader) -> tuple[Tensor, Tensor]:
    match batch:
        case [Tensor() as x, Tensor() as y, *_]:
            pass
        case _:
            raise UsageError(f"the {loader} loader yields {described(batch)}", do=EXPECTED)
    if x.ndim < 2 or y.ndim != 1 or len(x) != len(y) or y.is_floating_point() or y.is_complex():
        raise UsageError(
            f"the {loader} loader yields inputs of shape {_shape(x)} with {str(y.dtype)[6:]} "
            f"labels of shape {_shape(y)}",
            do=f"{EXPECTED}, one for each input",
        )
    return x, y


def described(value: Any) -> str:
    """What something is, in a few words."""
    match value:
        case Tensor():
            return f"a tensor of shape {_shape(value)}"
        case [] | ():
            return f"an empty {type(value).__name__}"
        case list() | tuple():
            inside = ", ".join(type(each).__name__ for each in value[:4])
            return f"a {type(value).__name__} of {inside}{', …' if len(value) > 4 else ''}"
        case dict():
            keys = ", ".join(repr(key) for key in list(value)[:4])
            return f"a dict with {keys}{', …' if len(value) > 4 else ''}"
        case None:
            return "None"
        case _:
            return f"an object of type {type(value).__name__}"


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "()"
