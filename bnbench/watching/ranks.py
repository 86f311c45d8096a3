"""Running statistics of the processes of a group, compared.

Through the group's key-value store and not by a collective operation: where one process alone is
watched, nobody waits for the others.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from io import BytesIO
from itertools import count
from math import inf, isnan
from typing import TypeAlias
from zipfile import BadZipFile

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from bnbench.running_statistics import tables

_numbers = count()
_DAMAGED = (
    BadZipFile, EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError, zlib.error,
)  # fmt: skip
"""What archive, arrays and names raise that are damaged, each in ways of their own."""

Statistics: TypeAlias = dict[str, list[NDArray[np.float32]]]
"""Of each layer, by name, its means and variances."""


class Ranks:
    """The process group, and the statistics of its ranks at one step.

    They are taken at the beginning of a forward pass, at its first layer: there those of
    DistributedDataParallel are equal, after it has given every rank those of rank 0 and before the
    layers take in their own batches.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        """`layers`: with running statistics, by name. Ranks are watched in the same order."""
        from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._layers = layers
        self._store = PrefixStore(f"bnbench.watch/{next(_numbers)}", _get_default_store())
        self._due = self._posted = -1
        self._own: Statistics = {}

    def due(self, step: int) -> None:
        """Take the statistics at the next call of `post`."""
        self._due = step

    def post(self) -> None:
        """Let rank 0 have this rank's statistics, where they are due."""
        if self._due < 0:
            return
        self._posted, self._due = self._due, -1
        own = {name: list(_values(layer)) for name, layer in self._layers.items()}
        if self.rank == 0:
            self._own = own
        else:
            self._store.set(f"{self._posted}/{self.rank}", _packed(own))  # type: ignore[arg-type]

    def differ(self) -> tuple[list[str], str] | None:
        """At rank 0: layers whose statistics are not the same everywhere, and by how much; those
        first that are themselves not everywhere. All layers where a rank's cannot be read, None
        where the other ranks have not posted theirs."""
        if self.rank != 0 or self._posted < 0:
            return None
        keys = [f"{self._posted}/{rank}" for rank in range(1, self.size)]
        self._posted = -1
        if not self._store.check(keys):
            return None
        unlike, found, unread = dict[str, int](), dict[str, float](), list[str]()
        worst = (0.0, "", 0)
        for rank, key in enumerate(keys, start=1):
            theirs = _unpacked(self._store.get(key))
            self._store.delete_key(key)
            if theirs is None:
                unread.append(f"rank {rank}'s statistics could not be read")
                continue
            for name in self._own | theirs:
                own, other = self._own.get(name, []), theirs.get(name, [])
                if [each.shape for each in own] != [each.shape for each in other]:
                    unlike.setdefault(name, rank)
                elif not all(map(partial(np.array_equal, equal_nan=True), own, other)):
                    means, variances = own
                    width = np.sqrt(np.maximum(variances, 0) + 1e-5)
                    off = float(np.mean(np.abs(other[0] - means) / width))
                    found[name] = inf if isnan(off) else off
                    worst = max(worst, (found[name], name, rank))
        if unlike:
            name, rank = next(iter(unlike.items()))
            said = (
                f"ranks have different networks: layer {name} is not in those of rank 0 and of "
                f"rank {rank}, or not with as many channels"
            )
        elif found:
            off, name, rank = worst
            said = (
                f"{len(found)} of {len(self._own)} layers differ between {self.size} ranks; of "
                f"layer {name}, rank {rank}'s means are {off:.2g} standard deviations from rank 0's"
            )
        else:
            said = ""
        told = "; ".join([said] * bool(said) + unread)
        return (list(unlike | found or self._own), told) if told else None


def _values(layer: nn.Module) -> Iterator[NDArray[np.float32]]:
    """Means and variances, copied."""
    for _, _, tensor in tables(layer):
        yield tensor.detach().to("cpu", torch.float32, copy=True).numpy()


def _packed(statistics: Statistics) -> bytes:
    """As bytes that are only read, where unpickling runs what is in them: whoever reaches the store
    writes to it."""
    written = BytesIO()
    tables = [each for pair in statistics.values() for each in pair]
    np.savez(written, np.array(list(statistics), dtype=str), *tables)
    return written.getvalue()


def _unpacked(packed: bytes) -> Statistics | None:
    """None for bytes that `_packed` has not made."""
    try:
        with np.load(BytesIO(packed), allow_pickle=False) as read:
            names, *tables = read.values()
        numbers = [np.asarray(each, np.float32) for each in tables]
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        return {str(name): list(pair) for name, pair in zip(names.tolist(), pairs, strict=True)}
    except _DAMAGED:
        return None


def ranks_of(layers: Mapping[str, nn.Module]) -> Ranks | None:
    """The process group's, where there is one of several processes."""
    there = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return Ranks(layers) if there else None
